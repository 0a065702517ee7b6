package normalize

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

var update = flag.Bool("update", false, "write the golden files anew; read the diff afterwards")

// goldenSource is the section "source" of a golden file: what a collector would know of the record. The last line end
// of the section "input" is not the record's.
type goldenSource struct {
	Product  string    `json:"product,omitempty"`
	Format   string    `json:"format"` // auto, csv, json, syslog, text
	Comma    string    `json:"comma,omitempty"`
	Zone     string    `json:"zone,omitempty"`
	Received time.Time `json:"received"`
}

// goldenEvent is the section "event.json": the event as normalize made it.
type goldenEvent struct {
	Time       time.Time         `json:"time"`
	Product    string            `json:"product"`
	Class      string            `json:"class"`
	Known      bool              `json:"known"`
	Severity   string            `json:"severity"`
	From       string            `json:"severity_source"`
	Outcome    string            `json:"outcome"`
	Marks      []string          `json:"marks,omitempty"`
	Fields     map[string]string `json:"fields"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

func goldenEventOf(ev *audit.Event) goldenEvent {
	g := goldenEvent{
		Time: ev.Time, Product: ev.Product, Class: ev.Class, Known: ev.Known, Severity: ev.Severity.String(),
		From: ev.SeveritySource.String(), Outcome: ev.Outcome.String(), Fields: map[string]string{},
		Attributes: map[string]string{},
	}
	ev.Marks.Each(func(word string) bool { g.Marks = append(g.Marks, word); return true })
	for _, f := range ev.Fields {
		if f.Key == audit.KeyAttribute {
			g.Attributes[string(f.Name)] = string(f.Value)
		} else {
			g.Fields[f.Key.String()] = string(f.Value)
		}
	}
	return g
}

func section(a *txtar.Archive, name string) []byte {
	for _, f := range a.Files {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

func setSection(a *txtar.Archive, name string, data []byte) {
	for i := range a.Files {
		if a.Files[i].Name == name {
			a.Files[i].Data = data
			return
		}
	}
	a.Files = append(a.Files, txtar.File{Name: name, Data: data})
}

func parseFormat(t *testing.T, word string) audit.Format {
	for f := audit.FormatAuto; f <= audit.FormatText; f++ {
		if f.String() == word {
			return f
		}
	}
	require.Fail(t, "unknown format "+word)
	return 0
}

// TestGolden normalizes each record under testdata/<product>/ and compares the event and what the encoders make of it.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.txtar")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	catalogs := testCatalogs(t)
	names := func(id string) ProductNames { n, _ := catalogs.Product(id); return n }
	for _, file := range files {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(file, "testdata/"), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			require.NoError(t, err)
			var source goldenSource
			require.NoError(t, json.Unmarshal(section(archive, "source"), &source))
			n, err := New(Options{
				Catalogs: catalogs, Salt: fixedSalt, Local: time.UTC,
				Sources: map[string]Source{"golden": {Product: source.Product, Location: testLocation(t, source.Zone)}},
			})
			require.NoError(t, err)
			origin := &audit.Origin{
				Path: "/srv/golden.log", Format: parseFormat(t, source.Format),
				Header: bytes.TrimSuffix(section(archive, "header"), []byte("\n")),
			}
			if source.Comma != "" {
				origin.Comma = source.Comma[0]
			}
			src := audit.GetRecords("golden")
			rec := src.Add(bytes.TrimSuffix(section(archive, "input"), []byte("\n")))
			rec.Origin, rec.Received, rec.Offset, rec.Row, rec.Key = origin, source.Received, 100, 1, []byte("key")
			ev := &events(t, n, src)[0]
			ev.Number = 1

			got := map[string][]byte{}
			got["event.json"], err = json.MarshalIndent(goldenEventOf(ev), "", "  ")
			require.NoError(t, err)
			for _, format := range Formats() {
				encoder, err := NewEncoder(format, EncoderOptions{Names: names, RelayID: "prg-01", Log: 12345678})
				require.NoError(t, err)
				got[format] = encoder.Append(nil, ev)
			}
			for _, name := range append([]string{"event.json"}, Formats()...) {
				text := append(got[name], '\n')
				if *update {
					setSection(archive, name, text)
					continue
				}
				require.Equal(t, string(section(archive, name)), string(text), "%s: run with -update and read the diff", name)
			}
			if *update {
				require.NoError(t, os.WriteFile(file, txtar.Format(archive), 0o644))
			}
		})
	}
}

// TestGoldenCoversTheSamples checks that each record of the samples has its golden file, so that none is forgotten.
func TestGoldenCoversTheSamples(t *testing.T) {
	want := map[string]int{
		"netop-log-report.csv": 22, "ucx-audit.csv": 16, "sofie-events.jsonl": 10, "sofie-syslog.log": 10,
	}
	inputs := map[string]bool{}
	files, err := filepath.Glob("testdata/*/*.txtar")
	require.NoError(t, err)
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		require.NoError(t, err)
		inputs[string(bytes.TrimSuffix(section(archive, "input"), []byte("\n")))] = true
	}
	for name, count := range want {
		data, err := os.ReadFile("testdata/samples/" + name)
		require.NoError(t, err)
		rows := splitLines(data)
		if strings.HasSuffix(name, ".csv") {
			rows = splitRows(data)[1:]
		}
		require.Len(t, rows, count, name)
		for i, row := range rows {
			require.True(t, inputs[string(row)], fmt.Sprintf("%s record %d has no golden file", name, i+1))
		}
	}
}

func splitLines(data []byte) [][]byte {
	return bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
}
