package normalize

import (
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

// testScratch returns the state that decoders write to.
func testScratch(t testing.TB) *scratch {
	s := newScratch(testNormalizer(t, nil))
	s.dst = audit.GetEvents()
	s.bind(s.n.generic)
	return s
}

// cellsOf returns the cells as name=value lines.
func cellsOf(s *scratch) []string {
	out := []string{}
	for i := range s.cells {
		out = append(out, string(s.cells[i].name)+"="+string(s.cells[i].value))
	}
	return out
}

func TestJSONIsFlattened(t *testing.T) {
	for _, c := range []struct {
		text, want, problem string
	}{
		{`{}`, "", ""},
		{` { "a" : 1 , "b" : { "c" : "x" , "d" : { "e" : true } } } `[1:], "a=1|b.c=x|b.d.e=true", ""},
		{`{"a":"","b":null,"c":false,"d":[],"e":{}}`, "c=false|d=[]", ""},
		{`{"a":[1,{"b":"]"},"x\"]"],"z":1}`, `a=[1,{"b":"]"},"x\"]"]|z=1`, ""},
		{`{"n":1e400,"m":-0.10,"big":12345678901234567890}`, "n=1e400|m=-0.10|big=12345678901234567890", ""},
		{`{"a b":"\u010d\/\"\\\b\f\n\r\t"}`, "a b=č/\"\\\b\f\n\r\t", ""},
		{`{"\u0061.b":"x"}`, "a.b=x", ""},
		{`{"a":"\ud83d\ude00"}`, "a=😀", ""},
		{`{"a":"\ud800x\udc00"}`, "a=\xed\xa0\x80x\xed\xb0\x80", ""},
		{`{"a":"\ud800\u0041"}`, "a=\xed\xa0\x80A", ""},
		{`{"a":"C:\Users\u12"}`, `a=C:\Users\u12`, ""},
		{`{"a":"\\","b":"\\\"","c":"x"}`, `a=\|b=\"|c=x`, ""},
		{"{\"a\":\"x\ty\"}", "a=x\ty", ""},
		{`{"":"x"}`, "_=x", ""},
		{`{"a":1}` + "\r\n\x00", "a=1", ""},
		{`{"a":1`, "a=1", "a comma or closing brace is missing"},
		{`{"a":1,`, "a=1", "a name is missing"},
		{`{"a":1,}`, "a=1", "a name is missing"},
		{`{"a":1,"b`, "a=1", "a text does not end"},
		{`{"a":1,"b\"`, "a=1", "a text does not end"},
		{`{"a":1,"b"}`, "a=1", "a colon is missing"},
		{`{"a":1,"b":NaN}`, "a=1", "a value is no JSON value"},
		{`{"a":01}`, "", "a value is no JSON value"},
		{`{"a":1.}`, "", "a value is no JSON value"},
		{`{"a":+1}`, "", "a value is no JSON value"},
		{`{"a":}`, "", "a value is no JSON value"},
		{`{"a":[1,]}`, "", "a value is no JSON value"},
		{`{"a":[1}`, "", "a comma or closing bracket is missing"},
		{`{"a":{"b":1}`, "a.b=1", "a comma or closing brace is missing"},
		{`{"a":1}{"b":2}`, "a=1", "there is text after the object"},
		{strings.Repeat(`{"a":`, 9) + "1" + strings.Repeat("}", 9), `a.a.a.a.a.a.a.a={"a":1}`, ""},
		{strings.Repeat(`{"a":`, 64) + "1" + strings.Repeat("}", 64), "a.a.a.a.a.a.a.a=" +
			strings.Repeat(`{"a":`, 56) + "1" + strings.Repeat("}", 56), ""},
		{strings.Repeat(`{"a":`, 70) + "1" + strings.Repeat("}", 70), "", "it is nested too deeply"},
		{`{"a":` + strings.Repeat("[", 10000), "", "it is nested too deeply"},
	} {
		s := testScratch(t)
		problem, _ := s.readJSON([]byte(c.text), nil)
		require.Equal(t, c.want, strings.Join(cellsOf(s), "|"), c.text)
		require.Equal(t, c.problem, problem, c.text)
	}
}

func TestOfTwoKeysTheFirstHolds(t *testing.T) {
	n := testNormalizer(t, nil)
	ev := &events(t, n, lineRecords("s", audit.FormatJSON,
		`{"a":1,"a":2,"action":"x","action":"y","user_name":"u","userName":"v"}`))[0]
	require.Equal(t, "1", string(ev.Attribute("a")))
	require.Equal(t, "x", ev.Class)
	require.Equal(t, "u", field(t, ev, "actor.name"))
	require.Equal(t, "v", string(ev.Attribute("userName")), "another spelling is another key")
	for line, marked := range map[string]bool{
		`{"a":1,"b":2}`:                         false, // no key twice
		`{"a":1,"a":1}`:                         true,  // a key that the catalogue does not know
		`{"action":"x","action":"y"}`:           true,  // one that it knows
		`{"q":{"a":1},"q.a":2}`:                 true,  // one name once it is flattened
		`{"q":{"a":1},"q":{"b":2}}`:             false, // all are there
		`{"user_name":"u","userName":"v"}`:      false,
		`{"u":1,"\u0075":2}`:                    true,  // the same letter, escaped
		`{"a":[{"b":1,"b":2}],"c":"{\"d\":1}"}`: false, // kept whole
	} {
		ev := &events(t, n, lineRecords("s", audit.FormatJSON, line))[0]
		require.Equal(t, marked, ev.Marks.Has(audit.MarkDetailsUnparsed), line)
	}
}

func TestClassThatIsNoTextIsMissing(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 8) + `{"type":"x"}` + strings.Repeat("}", 8)
	for _, c := range []struct{ product, line, class string }{
		{"sofie", `{"type":["EMAIL_SENT"],"a":1}`, "unreadable"},
		{"sofie", `{"type":{"EMAIL_SENT":1},"a":1}`, "unreadable"},
		{"sofie", `{"type":["EMAIL_SENT"],"auditLogType":"EMAIL_SENT","a":1}`, "EMAIL_SENT"},
		{"sofie", `{"type":"[\"EMAIL_SENT\"]","a":1}`, `["EMAIL_SENT"]`}, // a text, if an odd one
		{"generic", `{"event":["x"],"operation":"y","a":1}`, "y"},
		{"generic", `{"event":[],"a":1}`, "json"},
		{"generic", deep, "json"},
		{"netop", `{"Entity Type":["DEVICE"],"Action":{"CREATE":1},"a":1}`, "unreadable"},
	} {
		src := lineRecords("s", audit.FormatJSON, c.line)
		src.List[0].Product = c.product
		ev := &events(t, testNormalizer(t, nil), src)[0]
		require.Equal(t, c.class, ev.Class, c.line)
		require.Equal(t, c.class == "unreadable", ev.Marks.Has(audit.MarkUnreadable), c.line)
		if c.line != deep {
			require.Equal(t, "1", string(ev.Attribute("a")), "%s: nothing is lost", c.line)
		}
	}
}

func TestListsOfNamesAndValuesBecomeFields(t *testing.T) {
	for text, want := range map[string]string{
		`{"attributes":[{"name":"a","value":"1"},{"value":2,"key":"b"}]}`: "attributes.a=1|attributes.b=2",
		`{"attributes":[{"name":"a","value":1},{"name":"b","x":2}]}`:      `attributes=[{"name":"a","value":1},{"name":"b","x":2}]`,
		`{"attributes":[{"name":"a","value":null}]}`:                      "",
		`{"attributes":[]}`:                    "",
		`{"attributes":[1,2]}`:                 "attributes=[1,2]",
		`{"other":[{"name":"a","value":"1"}]}`: `other=[{"name":"a","value":"1"}]`,
		`{"attribute":{"a":"1"}}`:              "attribute.a=1",
	} {
		s := testScratch(t)
		s.bind(s.n.catalogs.product("sofie"))
		problem, _ := s.readJSON([]byte(text), nil)
		require.Empty(t, problem)
		require.Equal(t, want, strings.Join(cellsOf(s), "|"), text)
	}
}

func TestCSVCells(t *testing.T) {
	for row, want := range map[string]string{
		``:                     "",
		`a,b,c`:                "a|b|c",
		`a,,c,`:                "a||c|",
		`"a,b",c`:              "a,b|c",
		`"say ""hi""",x`:       `say "hi"|x`,
		`""`:                   "",
		`"",""`:                "|",
		`""""`:                 `"`,
		`a"b,c`:                `a"b|c`,
		`"a"b,c`:               `"a"b|c`,
		`"never closes,b`:      "never closes,b",
		"\"two\nlines\",x":     "two\nlines|x",
		`"a" ,b`:               "a|b",
		`x,"{""k"":""v,w""}",`: `x|{"k":"v,w"}|`,
	} {
		var got []string
		cells := csvCells{rest: []byte(row), comma: ','}
		for cells.next() {
			got = append(got, string(cells.value))
		}
		require.Equal(t, want, strings.Join(got, "|"), row)
	}
}

func TestDelimiterIsTheOneThatStandsMostOften(t *testing.T) {
	require.Equal(t, byte(';'), comma(nil, []byte("a;b;c,d")))
	require.Equal(t, byte('\t'), comma(nil, []byte("a\tb\tc")))
	require.Equal(t, byte(','), comma(nil, []byte("abc")))
	require.Equal(t, byte('|'), comma(&audit.Origin{Comma: '|'}, []byte("a,b,c")))
}

func TestPairs(t *testing.T) {
	for text, want := range map[string]string{
		`a=1 b=2`:                        "a=1|b=2|whole",
		`a=1, b=2; c=3`:                  "a=1|b=2|c=3|whole",
		`a="x y" b='z w' c="q \"r\" \\"`: `a=x y|b=z w|c=q "r" \|whole`,
		`a= b=2`:                         "b=2|whole",
		`a=1 and b=2`:                    "a=1|b=2|",
		`a="open b=2`:                    `a="open|b=2|whole`,
		`a=1`:                            "-",
		`user logged in a=1 b=2`:         "-",
		`hello world`:                    "-",
		`a b=1 c=2`:                      "-",
	} {
		s := testScratch(t)
		found, whole := s.readPairs([]byte(text))
		if !found {
			require.Equal(t, want, "-", text)
			require.Empty(t, s.cells)
			continue
		}
		got := strings.Join(cellsOf(s), "|") + "|"
		if whole {
			got += "whole"
		}
		require.Equal(t, want, got, text)
	}
}

func TestDetails(t *testing.T) {
	for text, want := range map[string]string{
		`A {1}, B c {2}`:           "d.A=1|d.B c=2",
		`A {x {y, z} w}, B {}`:     "d.A=x {y, z} w",
		`A {}`:                     "",
		`Start (Server Time) {10}`: "d.Start (Server Time)=10",
		`A {1} B {2},`:             "d.A=1|d.B=2",
		`A {1, B {2}`:              "-",
		`A {1}, rest`:              "-",
		`{1}`:                      "-",
		`plain`:                    "-",
		``:                         "-",
	} {
		s := testScratch(t)
		got := "-"
		if s.readDetails([]byte(text), []byte("d.")) {
			got = strings.Join(cellsOf(s), "|")
		} else {
			require.Empty(t, s.cells)
		}
		require.Equal(t, want, got, text)
	}
}

func TestNamesAreFoundInAnySpelling(t *testing.T) {
	p := testCatalogs(t).product("netop")
	want := p.find([]byte("User Id"))
	require.NotZero(t, want)
	for _, name := range []string{"user_id", "userId", "USER-ID", "userid", " User  Id "} {
		require.Equal(t, want, p.find([]byte(name)), name)
	}
	require.Zero(t, p.find([]byte("User Ids")))
	require.Zero(t, p.find([]byte("User.Id")))
	require.Zero(t, p.find(nil))
	deep := p.find([]byte("data.any.thing.client_ip"))
	require.True(t, p.wildSlot[deep])
	require.Zero(t, p.find([]byte("other.any.client_ip")), "the star stands behind data only")
	require.False(t, p.wildSlot[p.find([]byte("data.guest.public_ip"))], "a name that is listed goes before a star")
}

func TestBrokenJSONIsNotLost(t *testing.T) {
	n := testNormalizer(t, map[string]Source{"s": {Product: "sofie"}})
	whole := `{"source":"WEB_USER","type":"FILE_ADDED","severity":"INFO","fileName":"a.txt",` +
		`"x":{"y":[1,2,{"z":"\u0041"}]}}`
	for cut := range len(whole) {
		src := lineRecords("s", audit.FormatJSON, whole[:cut])
		ev := &events(t, n, src)[0]
		require.True(t, ev.Marks.Has(audit.MarkUnreadable), whole[:cut])
		if cut > 0 {
			require.True(t, ev.Marks.Has(audit.MarkTruncated), whole[:cut])
		}
		if cut > strings.Index(whole, `,"severity"`) {
			require.Equal(t, "FILE_ADDED", ev.Class)
		}
	}
}

func TestBrokenJSONThatIsWholeIsNotCalledTruncated(t *testing.T) {
	n := testNormalizer(t, nil)
	for _, text := range []string{`{"action":"x",}`, `{"action":"x","b":tru}`, `{"action":"x"}{}`} {
		ev := &events(t, n, lineRecords("s", audit.FormatJSON, text))[0]
		require.Equal(t, audit.MarkUnreadable, ev.Marks&(audit.MarkUnreadable|audit.MarkTruncated), text)
		require.Equal(t, "x", ev.Class)
	}
}

func FuzzDecodeJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a":1,"b":{"c":"x\u0041"}}`, `{"a":[1,{"b":[]}]}`, `{"a":"\ud800"`, `{"attributes":[{"name":"a","value":"b"}]}`,
		`{"a":tru`, `{"a":1}x`, `{"":{"":{}}}`, "{\"a\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	s := testScratch(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) == 0 || text[0] != '{' {
			return
		}
		s.dst.Reset()
		s.bind(s.n.catalogs.product("sofie"))
		problem, _ := s.readJSON(text, nil)
		valid := json.Valid(text)
		// What the standard library reads, we read; the other way round we are more lenient inside of strings and with
		// what stands behind the object.
		if valid && len(text) < 200 {
			require.Contains(t, []string{"", "it is nested too deeply"}, problem)
		}
		if !valid && problem == "" {
			lenient := strings.ContainsAny(string(text), "\x00\\") || !utf8.Valid(text) || hasControl(text) ||
				strings.ContainsAny(string(text), "\t\r\n")
			require.True(t, lenient, "%q was read", text)
		}
		for i := range s.cells {
			require.NotEmpty(t, s.cells[i].name)
			require.NotEmpty(t, s.cells[i].value)
		}
	})
}

// FuzzDecodeCSV compares with the standard library where that reads strictly.
func FuzzDecodeCSV(f *testing.F) {
	for _, seed := range []string{`a,b`, `"a""b",c`, `"a`, `a"b`, "\"a\nb\",c", `,,`, `"",""`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, row string) {
		var got []string
		cells := csvCells{rest: []byte(row), comma: ','}
		for cells.next() {
			got = append(got, string(cells.value))
			require.LessOrEqual(t, len(got), len(row)+1)
		}
		if strings.Contains(row, "\r") {
			return // the standard library changes line endings
		}
		r := csv.NewReader(strings.NewReader(row))
		r.FieldsPerRecord = -1
		want, err := r.Read()
		if err != nil || len(row) == 0 || row[0] == '\n' {
			return
		}
		if r.InputOffset() != int64(len(row)) || strings.HasSuffix(row, "\n") {
			return // a line end outside of quotes: more than one record
		}
		require.Equal(t, want, got)
	})
}

func FuzzDecodePairs(f *testing.F) {
	f.Add(`a=1 b="x y" c='z'`)
	f.Add(`a="\"" b=\`)
	f.Add(`A {1}, B {2 {3}}`)
	s := testScratch(f)
	f.Fuzz(func(t *testing.T, text string) {
		s.dst.Reset()
		s.bind(s.n.generic)
		s.readPairs([]byte(text))
		s.readDetails([]byte(text), []byte("d."))
		require.LessOrEqual(t, len(s.cells), fieldsMax)
	})
}

// FuzzNormalize checks what must hold for any record of any product: as many events out as records in, each one whole.
func FuzzNormalize(f *testing.F) {
	for _, c := range benchCases(f) {
		f.Add([]byte(c.records.List[0].Raw), uint8(0), uint8(1))
	}
	f.Add([]byte(`{"type":"USER_LOGGED_IN","source":"WEB"}`), uint8(2), uint8(3))
	f.Add([]byte("<134>Mar 10 10:00:05 a b: {\"type\":\"X\""), uint8(3), uint8(2))
	n := testNormalizer(f, nil)
	products := append(testCatalogs(f).Products(), "")
	header := &audit.Origin{Path: "/f.csv", Format: audit.FormatCSV, Header: []byte(benchNetopHeader), Comma: ','}
	f.Fuzz(func(t *testing.T, raw []byte, format, product uint8) {
		src := audit.GetRecords("fuzz")
		defer src.Release()
		for i := range 2 {
			rec := src.Add(raw)
			rec.Received, rec.Product = received, products[int(product)%len(products)]
			rec.Origin = &audit.Origin{Path: "/f.log", Format: audit.Format(format % 5)}
			if i == 1 && format > 127 {
				rec.Origin = header
			}
		}
		for _, ev := range events(t, n, src) {
			require.False(t, ev.Time.IsZero())
		}
		dst := audit.GetEvents()
		defer dst.Release()
		require.Len(t, n.Explain(dst, src), 2)
	})
}
