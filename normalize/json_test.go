package normalize

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/auditrelay/auditrelay/audit"
)

// jsonRead reads one document and returns its members as text by their dotted paths, and the paths in the order of the
// line. It refuses what must not be in a line: breaks, controls, invalid UTF-8, a key twice, anything after the object.
// A list comes back as its members joined by spaces; the names of attributes are kept apart by a slash.
func jsonRead(line []byte) (values map[string]string, order []string, err error) {
	if !utf8.Valid(line) {
		return nil, nil, fmt.Errorf("is not UTF-8")
	}
	for _, r := range string(line) {
		if r < 0x20 || r >= 0x7f && r <= 0x9f || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e {
			return nil, nil, fmt.Errorf("has the character %U", r)
		}
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	values = make(map[string]string)
	if err := jsonReadObject(d, "", values, &order); err != nil {
		return nil, nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, nil, fmt.Errorf("something follows the object")
	}
	return values, order, nil
}

func jsonReadObject(d *json.Decoder, path string, values map[string]string, order *[]string) error {
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("%s is not an object: %v %v", path, t, err)
	}
	seen := make(map[string]bool)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		name := t.(string)
		if seen[name] {
			return fmt.Errorf("%s%s is there twice", path, name)
		}
		seen[name] = true
		switch key := path + name; {
		case path == "" && name == "attributes":
			err = jsonReadObject(d, "attributes/", values, order)
		case path == "" && jsonIsObject(name):
			err = jsonReadObject(d, name+".", values, order)
		default:
			var value any
			err = d.Decode(&value)
			values[key] = strings.Trim(fmt.Sprint(value), "[]")
			if text, ok := value.(string); ok {
				values[key] = text
			}
			*order = append(*order, key)
		}
		if err != nil {
			return err
		}
	}
	_, err := d.Token()
	if len(seen) == 0 {
		return fmt.Errorf("%s is empty", path)
	}
	return err
}

func jsonIsObject(name string) bool {
	for _, object := range strings.Fields("result actor target client host session account group file package tenant " +
		"auth process app source syslog relay") {
		if name == object {
			return true
		}
	}
	return false
}

// jsonText is what must come back of a text: itself, with U+FFFD for each byte that is not UTF-8.
func jsonText[T string | []byte](s T) string { return string([]rune(string(s))) }

// jsonExpect says in plain words what an event must come back as.
func jsonExpect(ev *audit.Event) map[string]string {
	const layout = "2006-01-02T15:04:05.000Z"
	want := map[string]string{
		"id": ev.ID.String(), "time": ev.Time.Format(layout), "received": ev.Received.Format(layout),
		"product": jsonText(ev.Product), "class": jsonText(ev.Class), "severity": ev.Severity.String(),
		"severity_source": ev.SeveritySource.String(), "outcome": ev.Outcome.String(), "known": strconv.FormatBool(ev.Known),
		"relay.id": "prg-01", "relay.log": "01234567", "vendor": jsonText(encNames(ev.Product).Vendor),
	}
	if ev.Number > 0 {
		want["number"] = strconv.FormatUint(uint64(ev.Number), 10)
	}
	if ev.Source != "" {
		want["source.collector"] = jsonText(ev.Source)
	}
	for word := range ev.Marks.Each {
		want["marks"] = strings.TrimSpace(want["marks"] + " " + word)
	}
	for _, f := range ev.Fields {
		if f.Key == audit.KeyAttribute {
			name := "attributes/" + jsonText(f.Name)
			if _, taken := want[name]; !taken {
				want[name] = jsonText(f.Value)
			}
			continue
		}
		info := f.Key.Info()
		n, err := strconv.ParseInt(string(f.Value), 10, 64)
		number := err == nil && strconv.FormatInt(n, 10) == string(f.Value)
		if len(f.Value) > 0 && (info.Type != audit.TypeInteger || f.Key == audit.KeyResultCode || number) {
			want[info.Name] = jsonText(f.Value)
		}
	}
	switch {
	case len(ev.Raw) == 0:
	case utf8.Valid(ev.Raw):
		want["raw"] = string(ev.Raw)
	default:
		want["raw_base64"] = base64.StdEncoding.EncodeToString(ev.Raw)
	}
	return want
}

func TestJSONReadsAsWeMeantIt(t *testing.T) {
	ev := encNetop()
	want := `{"id":"` + ev.ID.String() + `","number":4711,"time":"2025-01-01T09:08:30.000Z",` +
		`"received":"2025-01-01T12:00:00.045Z",` +
		`"product":"netop","vendor":"Impero","class":"DEVICE/NRC_SESSION_STARTED","name":"Remote session started",` +
		`"category":"session","action":"NRC_SESSION_STARTED","severity":"notice","severity_source":"catalog",` +
		`"outcome":"success","result":{"code":"0"},"known":true,"marks":["late"],` +
		`"actor":{"id":"700","name":"tom.baker@example.com"},"target":{"type":"DEVICE","id":"d-7","name":"LON-PC-07"},` +
		`"client":{"ip":"198.51.100.8"},"host":{"name":"LON-PC-07"},"session":{"id":"rs-1"},"account":{"id":"5001"},` +
		`"module":"HOST","source":{"collector":"portal"},"relay":{"id":"prg-01","log":"01234567"},` +
		`"attributes":{"guest.computer_name":"SUP-04","guest.gam_username":"tom.baker@example.com","guest.nrc_id":"G-11",` +
		`"host.logged_on_windows_user":"OFFICE\\karen","host.nrc_version":"12.90",` +
		`"host.operating_system":"Windows 11 Pro"},` +
		`"raw":` + strconv.Quote(string(ev.Raw)) + `}`
	require.Equal(t, want, string(encNew(t, "json").Append(nil, ev)))
}

// TestJSONComesBackThroughTheStandardLibrary compares all of a document: a value that forged a member or a line would
// be one too many.
func TestJSONComesBackThroughTheStandardLibrary(t *testing.T) {
	encoder := encNew(t, "json")
	rapid.Check(t, func(t *rapid.T) {
		ev := encEvent().Draw(t, "event")
		line := encoder.Append(nil, ev)
		require.Equal(t, line, encoder.Append(nil, ev))
		require.True(t, json.Valid(line), "%q", line)
		got, _, err := jsonRead(line)
		require.NoError(t, err, "%q", line)
		require.Equal(t, jsonExpect(ev), got, "%q", line)
	})
}

func TestJSONEventWithAllFieldsHasThemInTheDocumentedOrder(t *testing.T) {
	ev := encNetop()
	ev.Fields = nil
	for _, info := range audit.Fields() {
		ev.Fields = append(ev.Fields, audit.Field{Key: info.Key, Value: []byte("1")})
	}
	for _, name := range []string{"a.b", "a", "ž"} {
		ev.Fields = append(ev.Fields, audit.Field{Key: audit.KeyAttribute, Name: []byte(name)})
	}
	ev.SortFields()
	_, order, err := jsonRead(encNew(t, "json").Append(nil, ev))
	require.NoError(t, err)
	require.Equal(t, strings.Fields(`id number time time_original received product vendor class name category action
		severity severity_source severity_original outcome reason result.code message known marks
		actor.id actor.name actor.full_name actor.domain actor.type target.type target.id target.name
		client.ip client.host client.user_agent host.name host.ip host.id session.id account.id group.id group.name
		file.name file.path package.id tenant.name auth.method process.command_line app.name module environment
		source.collector source.path source.offset source.record source.part source.peer
		syslog.facility syslog.procid syslog.msgid relay.id relay.log
		attributes/a attributes/a.b attributes/ž raw`), order)
}

func TestJSONOfAnEmptyEventHasWhatIsAlwaysThere(t *testing.T) {
	encoder, err := NewEncoder("json", EncoderOptions{})
	require.NoError(t, err)
	require.Equal(t, `{"time":"0001-01-01T00:00:00.000Z","received":"0001-01-01T00:00:00.000Z","product":"","class":"",`+
		`"severity":"info","severity_source":"catalog","outcome":"unknown","known":false}`,
		string(encoder.Append(nil, &audit.Event{Marks: 1 << 63})), "also with a mark that has no word yet")
}

func TestJSONObjectsCloseWhicheverMembersAreThere(t *testing.T) {
	encoder, err := NewEncoder("json", EncoderOptions{RelayID: "a\"b"})
	require.NoError(t, err)
	for _, keys := range [][]audit.FieldKey{
		{audit.KeySourcePath},
		{audit.KeySyslogMsgID},
		{audit.KeySourcePeer, audit.KeySyslogFacility},
		{audit.KeyAppName, audit.KeyModule},
		{audit.KeyActorType, audit.KeyTargetType, audit.KeyClientIP},
		{audit.KeyResultCode},
	} {
		for _, source := range []string{"", "c"} {
			fields := make(map[audit.FieldKey]string)
			for _, key := range keys {
				fields[key] = "5"
			}
			ev := encWith(fields)
			ev.Source = source
			line := encoder.Append(nil, ev)
			got, _, err := jsonRead(line)
			require.NoError(t, err, "%s", line)
			for _, key := range keys {
				require.Equal(t, "5", got[key.String()], "%s", line)
			}
			require.Equal(t, source, got["source.collector"])
			require.Equal(t, `a"b`, got["relay.id"])
		}
	}
}

func TestJSONEscapesWhatWouldHideInALine(t *testing.T) {
	for text, want := range map[string]string{
		"a\"b\\c/<>&":               `a\"b\\c/<>&`,
		"\b\f\n\r\t\x00\x1f\x7f":    `\b\f\n\r\t\u0000\u001f\u007f`,
		"\u0080\u009f\u00a0ř":       "\\u0080\\u009f\u00a0ř",
		"\u2027\u2028\u2029":        "\u2027\\u2028\\u2029",
		"\u061c\u200e\u202e\u2066x": `\u061c\u200e\u202e\u2066x`,
		"\xff\xc3(\xed\xa0\x80":     "\ufffd\ufffd(\ufffd\ufffd\ufffd",
		"12345678😀1234567\"":        "12345678😀1234567\\\"",
		"CSV \"\"quotes\"\"\"":      `CSV \"\"quotes\"\"\"`,
	} {
		require.Equal(t, `"`+want+`"`, string(jsonAppendString(nil, text)), "%q", text)
		require.Equal(t, `"`+want+`"`, string(jsonAppendString(nil, []byte(text))), "%q", text)
	}
}

func TestJSONLeavesOutAndCounts(t *testing.T) {
	encoder := encNew(t, "json")
	ev := encWith(map[audit.FieldKey]string{
		audit.KeySourceOffset: "007", audit.KeySourceRecord: "x", audit.KeyResultCode: "007",
	})
	for _, name := range []string{"k\xfe", "k\xff", "k\ufffd", "l"} {
		ev.Fields = append(ev.Fields, audit.Field{Key: audit.KeyAttribute, Name: []byte(name), Value: []byte("v")})
	}
	ev.SortFields()
	got, _, err := jsonRead(encoder.Append(nil, ev))
	require.NoError(t, err)
	require.EqualValues(t, 4, encoder.Cut(), "two numbers that are none, two names that have become equal")
	require.Equal(t, "v", got["attributes/k\ufffd"])
	require.Equal(t, "v", got["attributes/l"])
	require.Equal(t, "007", got["result.code"])
	require.NotContains(t, got, "source.offset")
}

// TestCopyStopsAtTheFirstByteThatHasAnAction compares the look at eight bytes together with the plain one.
func TestCopyStopsAtTheFirstByteThatHasAnAction(t *testing.T) {
	edge := rapid.SampledFrom([]byte("~\x7f\x80\xff !\x1f\x00\\=|\"]>}#a"))
	texts := rapid.SliceOfN(rapid.OneOf(rapid.Byte(), edge), 0, 40)
	rapid.Check(t, func(t *rapid.T) {
		s := texts.Draw(t, "s")
		from := rapid.IntRange(0, len(s)).Draw(t, "from")
		for _, table := range []*encTable{jsonTable, cefHeaderTable, cefValueTable} {
			end := from
			for end < len(s) && table.actions[s[end]] == 0 {
				end++
			}
			got, i := encCopy([]byte("x"), s, from, table)
			require.Equal(t, end, i)
			require.Equal(t, "x"+string(s[from:end]), string(got))
		}
	})
}

func FuzzJSON(f *testing.F) {
	for i, piece := range encNasty {
		f.Add(piece, "name "+piece, encNasty[len(encNasty)-1-i], "value "+piece+"}")
	}
	f.Add("c", "\xfe", "\xff", encRepeat("\"\"", 50))
	encoder := encNew(f, "json")
	f.Fuzz(func(t *testing.T, class, name, other, value string) {
		ev := encWith(nil)
		ev.Class, ev.Source, ev.Raw = class, other, []byte(value)
		for _, attribute := range []string{name, other} {
			ev.Fields = append(ev.Fields, audit.Field{Key: audit.KeyAttribute, Name: []byte(attribute), Value: []byte(value)})
		}
		for _, info := range audit.Fields() {
			ev.Fields = append(ev.Fields, audit.Field{Key: info.Key, Value: []byte(value)})
		}
		ev.SortFields()
		line := encoder.Append(nil, ev)
		got, _, err := jsonRead(line)
		require.NoError(t, err, "%q", line)
		require.Equal(t, jsonText(class), got["class"])
		require.Equal(t, jsonText(value), got["attributes/"+jsonText(name)])
		require.Equal(t, jsonText(value), got["message"])
		if utf8.ValidString(value) {
			require.Equal(t, value, got["raw"])
		} else {
			require.Equal(t, base64.StdEncoding.EncodeToString([]byte(value)), got["raw_base64"])
		}
	})
}

func BenchmarkJSON(b *testing.B) { encBenchmark(b, "json") }
