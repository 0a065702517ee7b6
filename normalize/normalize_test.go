package normalize

import (
	"bytes"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

// received is when all test records came, if the test does not say otherwise.
var received = time.Date(2025, 7, 2, 12, 0, 0, 0, time.UTC)

// fixedSalt makes events the same at each run.
func fixedSalt(p []byte) { clear(p) }

// testLocations are the zones of the servers that the samples come from.
func testLocation(t testing.TB, name string) *time.Location {
	t.Helper()
	location, err := time.LoadLocation(name)
	require.NoError(t, err)
	return location
}

// builtin are the built-in catalogues, read once for all tests.
var builtin = sync.OnceValues(func() (*Catalogs, error) { return LoadCatalogs() })

func testCatalogs(t testing.TB) *Catalogs {
	t.Helper()
	c, err := builtin()
	require.NoError(t, err)
	return c
}

func testNormalizer(t testing.TB, sources map[string]Source) *Normalizer {
	t.Helper()
	n, err := New(Options{Catalogs: testCatalogs(t), Sources: sources, Salt: fixedSalt, Local: time.UTC})
	require.NoError(t, err)
	return n
}

// csvRecords makes the records of a CSV file as the file collector does: the first row is the header.
func csvRecords(t testing.TB, source string, comma byte, data []byte) *audit.Records {
	t.Helper()
	rows := splitRows(data)
	origin := &audit.Origin{Path: "/srv/export.csv", Format: audit.FormatCSV, Header: rows[0], Comma: comma}
	b := audit.GetRecords(source)
	for i, row := range rows[1:] {
		rec := b.Add(row)
		rec.Received, rec.Origin, rec.Row = received, origin, int64(i+1)
	}
	return b
}

// splitRows splits at line ends that are not inside quotes.
func splitRows(data []byte) (rows [][]byte) {
	start, quoted := 0, false
	for i, c := range data {
		switch {
		case c == '"':
			quoted = !quoted
		case c == '\n' && !quoted:
			rows = append(rows, bytes.TrimSuffix(data[start:i], []byte("\r")))
			start = i + 1
		}
	}
	if start < len(data) {
		rows = append(rows, data[start:])
	}
	return rows
}

func lineRecords(source string, format audit.Format, lines ...string) *audit.Records {
	origin := &audit.Origin{Path: "/srv/lines.log", Format: format}
	b := audit.GetRecords(source)
	for i, line := range lines {
		rec := b.Add([]byte(line))
		rec.Received, rec.Origin, rec.Row = received, origin, int64(i+1)
	}
	return b
}

// events normalizes and checks what must hold for all events.
func events(t testing.TB, n *Normalizer, src *audit.Records) []audit.Event {
	t.Helper()
	dst := audit.GetEvents()
	n.Normalize(dst, src)
	require.Len(t, dst.List, len(src.List))
	for i := range dst.List {
		checkEvent(t, &dst.List[i], &src.List[i])
	}
	return dst.List
}

func checkEvent(t testing.TB, ev *audit.Event, rec *audit.Record) {
	t.Helper()
	require.Equal(t, string(rec.Raw), string(ev.Raw))
	require.NotEmpty(t, ev.Class)
	require.NotEmpty(t, ev.Product)
	require.NotZero(t, ev.Severity)
	for i, f := range ev.Fields {
		if len(f.Value) == 0 || (f.Key == audit.KeyAttribute) != (len(f.Name) > 0) {
			require.Fail(t, "field without value or name", "%v %q", f.Key, f.Name)
		}
		if i == 0 {
			continue
		}
		if last := ev.Fields[i-1]; last.Key > f.Key || last.Key == f.Key && bytes.Compare(last.Name, f.Name) >= 0 {
			require.Fail(t, "fields out of order", "%v %q, %v %q", last.Key, last.Name, f.Key, f.Name)
		}
	}
	encoded := ev.AppendBinary(nil)
	batch := audit.GetEvents()
	defer batch.Release()
	require.NoError(t, audit.NewDecoder().Decode(batch, encoded, 1, 1))
}

// field returns an event's field of the table by its name, "" if it has none.
func field(t testing.TB, ev *audit.Event, name string) string {
	t.Helper()
	key, ok := audit.FieldByName(name)
	require.True(t, ok, name)
	return string(ev.Field(key))
}

func sampleEvents(t *testing.T, file, source string, comma byte) []audit.Event {
	t.Helper()
	data, err := os.ReadFile("testdata/samples/" + file)
	require.NoError(t, err)
	n := testNormalizer(t, map[string]Source{
		"ucx": {Location: testLocation(t, "Europe/Rome")}, "sofie": {Location: testLocation(t, "Europe/Prague")},
	})
	if comma != 0 {
		return events(t, n, csvRecords(t, source, comma, data))
	}
	return events(t, n, lineRecords(source, audit.FormatAuto, strings.Split(strings.TrimSpace(string(data)), "\n")...))
}

func TestSampleNetopSaysWhoDidWhatFromWhere(t *testing.T) {
	evs := sampleEvents(t, "netop-log-report.csv", "netop", ',')
	require.Len(t, evs, 22)
	for i := range evs {
		require.Equal(t, "netop", evs[i].Product)
		require.True(t, evs[i].Known, evs[i].Class)
	}

	failed := &evs[2]
	require.Equal(t, "USER/LOGIN", failed.Class)
	require.Equal(t, audit.OutcomeFailure, failed.Outcome)
	require.Equal(t, audit.SeverityWarning, failed.Severity)
	require.Equal(t, audit.SeverityFromRule, failed.SeveritySource)
	require.Equal(t, "203.0.113.66", field(t, failed, "client.ip"))
	require.Equal(t, "mallory@example.com", field(t, failed, "actor.name"))
	require.True(t, failed.Marks.Has(audit.MarkActorClaimed))

	system := &evs[6]
	require.Equal(t, "system", field(t, system, "actor.type"))
	require.Equal(t, "SYSTEM", field(t, system, "actor.id"))
	require.Empty(t, field(t, system, "actor.name"))
	require.Empty(t, field(t, system, "client.ip"))

	keyboard := &evs[12]
	require.Equal(t, "DEVICE/KEYBOARD_LOCKED", keyboard.Class)
	require.Equal(t, "tom.baker@example.com", field(t, keyboard, "actor.name"))
	require.Empty(t, field(t, keyboard, "actor.type"), "neither local nor remote is asserted")

	guest := &evs[16]
	require.Equal(t, "DEVICE/LOGIN_FAILED", guest.Class)
	require.Equal(t, "administrator", field(t, guest, "actor.name"))
	require.Equal(t, "guest", field(t, guest, "actor.type"))
	require.Equal(t, "198.51.100.8", field(t, guest, "client.ip"))
	require.Equal(t, "LON-SRV-01", field(t, guest, "host.name"))
	require.Equal(t, audit.OutcomeFailure, guest.Outcome)

	gateway := &evs[17]
	require.Equal(t, "DEVICE/GATEWAY_LOGIN", gateway.Class)
	require.Equal(t, audit.OutcomeFailure, gateway.Outcome)
	require.Equal(t, "password wrong", field(t, gateway, "reason"))
	require.Equal(t, "tom", field(t, gateway, "actor.name"))
	require.Equal(t, "SUPPORT", field(t, gateway, "actor.domain"))
	require.Equal(t, "2025-01-01T09:15:10Z", gateway.Time.Format(time.RFC3339))
}

func TestSampleUCXIsReadInTheServersZone(t *testing.T) {
	evs := sampleEvents(t, "ucx-audit.csv", "ucx", ';')
	require.Len(t, evs, 16)
	require.Equal(t, "2025-02-03T07:00:01Z", evs[0].Time.Format(time.RFC3339))
	require.Equal(t, "2025-07-01T10:10:00Z", evs[14].Time.Format(time.RFC3339))
	require.Equal(t, "Suite/User login failure", evs[2].Class)
	require.True(t, evs[2].Marks.Has(audit.MarkActorClaimed))

	deleted := &evs[9]
	require.Equal(t, "ucx", deleted.Product)
	require.Equal(t, "Recording/Delete recording", deleted.Class)
	require.False(t, deleted.Known)
	require.Equal(t, audit.OutcomeUnknown, deleted.Outcome)
	require.Equal(t, "a0000000-0000-4000-8000-000000000003", field(t, deleted, "target.id"))
	require.Equal(t, "28700003", string(deleted.Attribute("details.Recording PBX Call Id")))
	for i := range evs {
		require.Equal(t, i != 9, evs[i].Known, evs[i].Class)
	}
}

func TestSampleSofieByJSONAndBySyslog(t *testing.T) {
	evs := sampleEvents(t, "sofie-events.jsonl", "sofie", 0)
	require.Len(t, evs, 10)
	require.Equal(t, "eva.malá", field(t, &evs[0], "actor.name"))
	require.Equal(t, "EMALA", string(evs[0].Attribute("attribute.sourceSAMAccountName")))
	require.Equal(t, "anonymous", field(t, &evs[6], "actor.type"))
	require.Empty(t, field(t, &evs[9], "actor.name"), "nobody is logged in when a login fails")

	evs = sampleEvents(t, "sofie-syslog.log", "sofie", 0)
	require.Len(t, evs, 10)
	require.Equal(t, "2025-03-10T09:00:05Z", evs[0].Time.Format(time.RFC3339))
	require.True(t, evs[0].Marks.Has(audit.MarkYearGuessed))
	added := &evs[1]
	require.Equal(t, "admin", field(t, added, "actor.name"))
	require.Equal(t, "jiří.kůň", field(t, added, "target.name"), "the one who did it and the one it was done to are two")
	for i := range evs {
		require.True(t, evs[i].Known, evs[i].Class)
		require.Equal(t, "sofie", evs[i].Product)
		require.Equal(t, audit.SeverityFromRecord, evs[i].SeveritySource)
	}
}

func TestProductComesFromTheRecordThenTheSourceThenTheBytes(t *testing.T) {
	n := testNormalizer(t, map[string]Source{"s": {Product: "ucx"}})
	src := lineRecords("s", audit.FormatAuto, `{"type":"USER_LOGGED_IN","source":"WEB"}`,
		`{"type":"USER_LOGGED_IN","source":"WEB"}`)
	src.List[0].Product = "sofie"
	evs := events(t, n, src)
	require.Equal(t, []string{"sofie", "ucx"}, []string{evs[0].Product, evs[1].Product})

	src = lineRecords("nobody", audit.FormatAuto,
		`{"type":"USER_LOGGED_IN","source":"WEB"}`, `{"type":"com.example.thing","source":"/here"}`,
		`{"type":"TEST_LOG","source":"TEST"}`, "x")
	evs = events(t, n, src)
	require.Equal(t, []string{"sofie", "generic", "sofie", "generic"},
		[]string{evs[0].Product, evs[1].Product, evs[2].Product, evs[3].Product})

	_, err := New(Options{Catalogs: testCatalogs(t), Sources: map[string]Source{"a": {Product: "sophie"}}})
	require.ErrorContains(t, err, `collector a: product "sophie" has no catalogue: use generic, netop, sofie, ucx`)
}

func TestIDsComeFromTheKey(t *testing.T) {
	n := testNormalizer(t, nil)
	src := lineRecords("s", audit.FormatText, "a", "b")
	src.List[0].Key = []byte("file-1:0")
	evs := events(t, n, src)
	require.Equal(t, audit.KeyID("generic", []byte("file-1:0")), evs[0].ID)
	require.True(t, evs[1].ID.IsZero())
}

func TestSaltsDifferAndAreSafeForConcurrentUse(t *testing.T) {
	n, err := New(Options{Catalogs: testCatalogs(t)})
	require.NoError(t, err)
	var mu sync.Mutex
	seen := map[[16]byte]bool{}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			src := lineRecords("s", audit.FormatText, make([]string, 600)...)
			dst := audit.GetEvents()
			n.Normalize(dst, src)
			mu.Lock()
			defer mu.Unlock()
			for i := range dst.List {
				seen[dst.List[i].Salt] = true
			}
		})
	}
	group.Wait()
	require.Len(t, seen, 4*600)
}

func TestWhereARecordCameFrom(t *testing.T) {
	n := testNormalizer(t, nil)
	src := lineRecords("s", audit.FormatText, "a", "b")
	rec := &src.List[0]
	rec.Offset, rec.Part, rec.Peer = 4096, 2, netip.MustParseAddr("::ffff:192.0.2.1")
	evs := events(t, n, src)
	require.Equal(t, []string{"/srv/lines.log", "4096", "1", "2", "192.0.2.1"}, []string{
		field(t, &evs[0], "source.path"), field(t, &evs[0], "source.offset"), field(t, &evs[0], "source.record"),
		field(t, &evs[0], "source.part"), field(t, &evs[0], "source.peer"),
	})
	require.True(t, evs[0].Marks.Has(audit.MarkPart))
	require.Empty(t, field(t, &evs[0], "client.ip"), "who sent the record is not who did it")
	require.Empty(t, field(t, &evs[1], "source.path"), "an offset that has no meaning belongs to no file")
}

func TestFieldsOverTheLimitAreCutAndMarked(t *testing.T) {
	n := testNormalizer(t, nil)
	var b strings.Builder
	b.WriteString(`{"action":"x"`)
	for i := range 3000 {
		b.WriteString(`,"k` + strconv.Itoa(i) + `":1`)
	}
	b.WriteString(`}`)
	evs := events(t, n, lineRecords("s", audit.FormatJSON, b.String(), `{"`+strings.Repeat("n", 300)+`":1,"ok":2}`))
	require.True(t, evs[0].Marks.Has(audit.MarkFieldsCut))
	require.LessOrEqual(t, len(evs[0].Fields), fieldsMax+10)
	require.Equal(t, "x", evs[0].Class)
	require.True(t, evs[1].Marks.Has(audit.MarkFieldsCut))
	require.Equal(t, "2", string(evs[1].Attribute("ok")))
}

func TestBytesThatNoTextHasAreMarked(t *testing.T) {
	n := testNormalizer(t, nil)
	evs := events(t, n, lineRecords("s", audit.FormatText,
		"caf\xe9 olé", "a\x1b[2Jb", "příliš\tžluťoučký", "x\x00y tail here", "12345678\x01", "end\x00"))
	for i, want := range []audit.Marks{
		audit.MarkInvalidUTF8, audit.MarkBinary, 0, audit.MarkBinary, audit.MarkBinary, audit.MarkBinary,
	} {
		require.Equal(t, want, evs[i].Marks&(audit.MarkInvalidUTF8|audit.MarkBinary), "record %d", i)
	}
	require.Equal(t, "caf\xe9 olé", field(t, &evs[0], "message"), "bytes survive")
}

// TestUnknownClassesAreBounded normalizes more made-up classes than are remembered.
func TestUnknownClassesAreBounded(t *testing.T) {
	n := testNormalizer(t, nil)
	lines := make([]string, 3*internMax)
	for i := range lines {
		lines[i] = `{"action":"a` + strconv.Itoa(i) + `"}`
	}
	evs := events(t, n, lineRecords("s", audit.FormatJSON, lines...))
	require.Equal(t, "a"+strconv.Itoa(3*internMax-1), evs[3*internMax-1].Class)
	s := n.pool.Get().(*scratch)
	require.LessOrEqual(t, len(s.interned), internMax)
}

// TestBatchesDoNotShareMemory checks that what one call decoded is not overwritten by the next.
func TestBatchesDoNotShareMemory(t *testing.T) {
	n := testNormalizer(t, nil)
	var kept []*audit.Events
	for i := range 20 {
		src := lineRecords("s", audit.FormatJSON,
			`{"action":"go","user":{"name":"u`+strconv.Itoa(i)+`","esc":"\u0041`+strconv.Itoa(i)+`"}}`)
		dst := audit.GetEvents()
		n.Normalize(dst, src)
		kept = append(kept, dst)
	}
	for i, dst := range kept {
		require.Equal(t, "u"+strconv.Itoa(i), field(t, &dst.List[0], "actor.name"))
		require.Equal(t, "A"+strconv.Itoa(i), string(dst.List[0].Attribute("user.esc")))
	}
}

func TestPlansAreBoundedAndRightAfterwards(t *testing.T) {
	n := testNormalizer(t, nil)
	for range 2 * plansMax {
		src := csvRecords(t, "s", ',', []byte("kind,user name\ngo,ann\n"))
		dst := audit.GetEvents()
		n.Normalize(dst, src)
		require.Equal(t, "ann", field(t, &dst.List[0], "actor.name"))
		dst.Release()
		src.Release()
	}
	require.LessOrEqual(t, len(n.plans), plansMax)
}

// TestOneHeaderForTwoProducts reads the same file once as what it is and once as what somebody said it is.
func TestOneHeaderForTwoProducts(t *testing.T) {
	n := testNormalizer(t, nil)
	src := csvRecords(t, "s", ',', []byte(benchNetopHeader+"\n"+benchNetop+"\n"+benchNetop+"\n"))
	src.List[1].Product = "generic"
	evs := events(t, n, src)
	require.Equal(t, []string{"netop", "generic"}, []string{evs[0].Product, evs[1].Product})
	require.Equal(t, "OFFICE-karen", string(evs[0].Attribute("data.logged_on_windows_user")))
	require.Contains(t, string(evs[1].Attribute("Data")), `"logged_on_windows_user": "OFFICE-karen"`)
}

func TestTwoColumnsOfOneNameBothComeOut(t *testing.T) {
	n := testNormalizer(t, nil)
	ev := &events(t, n, csvRecords(t, "s", ';', []byte("\xef\xbb\xbf\"Action\" ;note;Note;note;\ngo;a;b;c;d\n")))[0]
	require.Equal(t, "go", field(t, ev, "action"))
	require.Equal(t, []string{"a", "b", "c", "d"}, []string{
		string(ev.Attribute("note")), string(ev.Attribute("Note")), string(ev.Attribute("note.2")), string(ev.Attribute("column.5")),
	})
}

// TestHostileRecordsDoNotTakeLong gives what would make a careless reader go over the record again and again.
func TestHostileRecordsDoNotTakeLong(t *testing.T) {
	n := testNormalizer(t, nil)
	const size = 1 << 20
	for name, text := range map[string]string{
		"parameters": "<34>1 - - - - - [x@1" + strings.Repeat(` p="v"`, size/6) + "]",
		"elements":   "<34>1 - - - - - " + strings.Repeat("[a]", size/3),
		"braces":     strings.Repeat("{", size),
		"quotes":     `{"a":"` + strings.Repeat(`\"`, size/2),
		"keys":       "{" + strings.Repeat(`"type":`, size/7),
		"pairs":      strings.Repeat("a=\"", size/3),
		"brackets":   `{"a":` + strings.Repeat("[", size) + "}",
		"spaces":     "<34>" + strings.Repeat(" ", size),
		"cells":      strings.Repeat(`"a""b",`, size/7),
	} {
		for _, product := range []string{"generic", "sofie", "ucx", "netop"} {
			src := lineRecords("s", audit.FormatAuto, text)
			src.List[0].Product = product
			start := time.Now()
			events(t, n, src)
			require.Less(t, time.Since(start), 5*time.Second, "%s as %s", name, product)
		}
	}
}
