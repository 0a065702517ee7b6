package normalize

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

// vendorTable reads a table under testdata/vendor, without its header row.
func vendorTable(t *testing.T, name string) [][]string {
	t.Helper()
	data, err := os.ReadFile("testdata/vendor/" + name)
	require.NoError(t, err)
	var rows [][]string
	for _, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")[1:] {
		rows = append(rows, strings.Split(line, "\t"))
	}
	return rows
}

func entriesByClass(t *testing.T, product string) map[string]Entry {
	t.Helper()
	entries := map[string]Entry{}
	for _, e := range testCatalogs(t).Entries(product) {
		entries[e.Class] = e
	}
	return entries
}

func TestNetopCatalogIsTheVendorsList(t *testing.T) {
	rows, entries := vendorTable(t, "netop.tsv"), entriesByClass(t, "netop")
	require.Len(t, rows, 110)
	modules := map[string]int{}
	for _, row := range rows {
		e, ok := entries[row[1]+"/"+row[2]]
		require.True(t, ok, row)
		require.Equal(t, row[0], e.Module, e.Class)
		require.NotEmpty(t, e.MeaningEnglish, e.Class)
		modules[e.Module]++
		delete(entries, e.Class)
	}
	require.Empty(t, entries, "entries that the vendor does not list")
	require.Equal(t, map[string]int{"portal": 67, "HOST": 43}, modules)
}

func TestSofieCatalogIsTheVendorsList(t *testing.T) {
	rows, entries := vendorTable(t, "sofie.tsv"), entriesByClass(t, "sofie")
	require.Len(t, rows, 206)
	for _, row := range rows {
		e, ok := entries[row[0]]
		require.True(t, ok, row)
		severity := strings.ToLower(row[1])
		if severity == "" {
			require.Equal(t, "USER_AUTH_FAILED_GUID_MISMATCH", e.Class)
			severity = "warning" // its successor's
		}
		require.Equal(t, []string{severity, row[2], row[3]}, []string{e.Severity.String(), e.Since, e.Until}, e.Class)
		require.Equal(t, row[4] == "never", e.Never, e.Class)
		require.Equal(t, row[5], e.MeaningCzech, "%s: the vendor's text, letter by letter", e.Class)
		require.NotEmpty(t, e.MeaningEnglish, e.Class)
		delete(entries, e.Class)
	}
	require.Empty(t, entries, "entries that the vendor does not list")
}

func TestUCXCatalogIsTheVendorsList(t *testing.T) {
	rows, entries := vendorTable(t, "ucx.tsv"), entriesByClass(t, "ucx")
	require.Len(t, rows, 8)
	for _, row := range rows {
		if row[0] == "" {
			row[0] = "*"
		}
		class := row[0] + "/" + row[1]
		require.Contains(t, entries, class)
		delete(entries, class)
		if any := "*/" + row[1]; row[0] == "Attendant Console" {
			require.Equal(t, listed(entries[any]), listed(entriesByClass(t, "ucx")[class]), "the same under any application")
			delete(entries, any)
		}
	}
	require.Empty(t, entries, "entries that the vendor does not list")
	recording, known := testCatalogs(t).Entry("ucx", "Call recording/Play recording")
	require.True(t, known)
	require.Len(t, recording.Parameters[0].Names, 9)
	for _, class := range []string{"User login failure", "One/Desktop/User login failure"} {
		failure, known := testCatalogs(t).Entry("ucx", class)
		require.True(t, known, class)
		require.Equal(t, "User login failed", failure.Name, class)
	}
	_, known = testCatalogs(t).Entry("ucx", "login failure")
	require.False(t, known, "classes are names of the catalogue, not of the prose")
	require.Len(t, testCatalogs(t).product("ucx").columns, 10)
	require.Len(t, testCatalogs(t).product("netop").columns, 14)
}

// listed is an entry without its class.
func listed(e Entry) Entry {
	e.Class = ""
	return e
}

// TestEveryListedEventIsFound sends one record for each entry, so that no entry is there that cannot be reached.
func TestEveryListedEventIsFound(t *testing.T) {
	n := testNormalizer(t, map[string]Source{
		"ucx": {Product: "ucx"}, "sofie": {Product: "sofie"}, "netop": {Product: "netop"},
	})
	for _, product := range []string{"netop", "sofie", "ucx"} {
		for _, e := range testCatalogs(t).Entries(product) {
			line := `{"type":"` + e.Class + `"}`
			first, second, _ := strings.Cut(e.Class, "/")
			switch product {
			case "netop":
				line = `{"Source":"` + e.Module + `","Entity Type":"` + strings.ToLower(first) +
					`","Action":"` + second + `","Result Code":1}`
			case "ucx":
				line = `{"application_id":"` + strings.ToUpper(first) + `","action":"` + strings.ToUpper(second) + `"}`
			}
			ev := &events(t, n, lineRecords(product, audit.FormatJSON, line))[0]
			require.True(t, ev.Known, line)
			require.Equal(t, e.Name, field(t, ev, "name"), line)
			require.Equal(t, e.ECSCategory[0], field(t, ev, "category"), line)
			if product != "sofie" && ev.Outcome == audit.OutcomeFailure {
				require.GreaterOrEqual(t, ev.Severity, audit.SeverityWarning, line)
			}
			require.Equal(t, e.Never, ev.Marks.Has(audit.MarkUnexpectedType), line)
			entry, known := testCatalogs(t).Entry(product, ev.Class)
			require.True(t, known)
			require.Equal(t, e.Name, entry.Name)
		}
	}
}

func TestFailuresByNameStayFailures(t *testing.T) {
	for _, action := range []string{
		"LOGIN_FAILED", "CONFIRM_ACCESS_DENIED", "ILLEGAL_PASSWORD_LIMIT_REACHED", "TIMEOUT_LIMIT_EXCEEDED_AUTHENTICATION",
		"TIMEOUT_LIMIT_EXCEEDED_CONFIRM_ACCESS", "WEB_UPDATE_FAILED",
	} {
		e, known := testCatalogs(t).Entry("netop", "DEVICE/"+action)
		require.True(t, known)
		require.Equal(t, "failure", e.Outcome, action)
	}
}

func TestCatalogAnswersAboutProducts(t *testing.T) {
	c := testCatalogs(t)
	require.Equal(t, []string{"generic", "netop", "sofie", "ucx"}, c.Products())
	names, ok := c.Product("netop")
	require.True(t, ok)
	require.Equal(t, ProductNames{Vendor: "Impero", Name: "Connect Portal", Version: "unknown"}, names)
	_, ok = c.Product("other")
	require.False(t, ok)
	require.NotEmpty(t, c.Docs("ucx"))
	require.Nil(t, c.Entries("other"))
	login, known := c.Entry("netop", "USER/LOGIN")
	require.True(t, known)
	require.Equal(t, []Technique{{ID: "T1078"}, {ID: "T1110", Note: "when it fails"}}, login.Attack)
	require.Equal(t, [2]int{3002, 1}, [2]int{login.OCSFClass, login.OCSFActivity})
	other, known := c.Entry("netop", "ROBOT/DANCE")
	require.False(t, known)
	require.Equal(t, audit.SeverityInfo, other.Severity)
}

func TestVersionsAreComparedNumberByNumber(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"1.6", "1.6.0", 0}, {"1.10", "1.9", 1}, {"1.3.2", "1.4", -1}, {"2.0", "2", 0}, {"", "1", -1}} {
		require.Equal(t, c.want, CompareVersions(c.a, c.b), c)
		require.Equal(t, -c.want, CompareVersions(c.b, c.a), c)
	}
}

const tinyCatalog = `catalog: 1
product: tiny
vendor: Acme
name: Tiny
class: {from: [[kind]]}
fields:
- {to: actor.name, from: [who]}
events:
  GO: {name: Went, severity: info, ecs: {category: [web], type: [access]}}
`

// anotherEvent is one more line under events of tinyCatalog.
func anotherEvent(class string) string {
	return "  " + class + ": {name: a, severity: info, ecs: {category: [web], type: [access]}}\n"
}

// site writes a site's catalogue directory.
func site(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

func TestSiteAddsAProductAndOverridesEntries(t *testing.T) {
	dir := site(t, map[string]string{
		"tiny.yaml": tinyCatalog,
		"netop.yaml": `catalog: 1
product: netop
name: Netop Portal
events:
  USER/LOGIN: {severity: notice}
  USER/LOGOUT: null
  ROBOT/DANCE: {name: Robot danced, severity: error, outcome: success, ecs: {category: [host], type: [info]}}
`,
		"ucx.yaml": `catalog: 1
product: ucx
events:
  Suite/User login: {severity: debug}
`,
		"notes.txt": "not a catalogue",
	})
	c, err := LoadCatalogs(dir)
	require.NoError(t, err)
	require.Contains(t, c.Products(), "tiny")
	names, _ := c.Product("netop")
	require.Equal(t, "Netop Portal", names.Name)
	login, known := c.Entry("netop", "USER/LOGIN")
	require.True(t, known)
	require.Equal(t, audit.SeverityNotice, login.Severity)
	require.Equal(t, "Portal login", login.Name, "keys that the site does not give stay")
	_, known = c.Entry("netop", "USER/LOGOUT")
	require.False(t, known)
	suite, _ := c.Entry("ucx", "Suite/User login")
	console, _ := c.Entry("ucx", "Attendant Console/User login")
	require.Equal(t, audit.SeverityDebug, suite.Severity)
	require.Equal(t, audit.SeverityInfo, console.Severity, "an entry that shares its text is another entry")

	n, err := New(Options{Catalogs: c, Salt: fixedSalt})
	require.NoError(t, err)
	src := lineRecords("s", audit.FormatJSON, `{"Entity Type":"robot","Action":"dance"}`, `{"kind":"GO","who":"ann"}`)
	src.List[0].Product, src.List[1].Product = "netop", "tiny"
	evs := events(t, n, src)
	require.Equal(t, "ROBOT/DANCE", evs[0].Class)
	require.True(t, evs[0].Known)
	require.Equal(t, "ann", field(t, &evs[1], "actor.name"))

	_, err = LoadCatalogs(filepath.Join(dir, "missing"))
	require.ErrorContains(t, err, "make the directory or take it out of normalize.catalogs")
}

func TestBadCatalogsAreRefusedWithFileAndLine(t *testing.T) {
	replace := func(old, new string) string { return strings.Replace(tinyCatalog, old, new, 1) }
	for name, c := range map[string]struct{ text, want string }{
		"unknown key": {
			replace("vendor:", "vendr:"),
			`bad.yaml:3: a catalogue has no key "vendr": use catalog, class,`,
		},
		"key twice": {
			replace("name: Tiny", "name: Tiny\nname: Twice"),
			`bad.yaml:5: "name" stands here a second time, first in line 4`,
		},
		"event twice": {
			tinyCatalog + anotherEvent("GO"),
			`bad.yaml:10: "GO" stands here a second time, first in line 9`,
		},
		"one when folded": {
			replace("from: [[kind]]", "from: [[kind]], fold: case") + anotherEvent("go"),
			`are one class when they are looked up`,
		},
		"format version": {replace("catalog: 1", "catalog: 2"), "bad.yaml:1: the key catalog must be 1"},
		"no field":       {replace("actor.name", "actor.nam"), `bad.yaml:7: there is no field "actor.nam"`},
		"no severity":    {replace("severity: info", "severity: INFO"), `bad.yaml:9: unknown severity "INFO"`},
		"no category":    {replace("[web]", "[www]"), `bad.yaml:9: ECS has no event.category "www"`},
		"type of another": {
			replace("[access]", "[start]"),
			`bad.yaml:9: ECS does not expect event.type "start" with event.category web`,
		},
		"outcome word": {
			replace("severity: info", "severity: info, outcome: ok"),
			`bad.yaml:9: unknown word "ok": use code, success`,
		},
		"outcome nothing": {
			replace("severity: info", "severity: info, outcome: code"),
			`bad.yaml:9: outcome code needs the catalogue's key outcome`,
		},
		"technique": {
			replace("severity: info", "severity: info, attack: [1078]"),
			`bad.yaml:9: "1078" is no ATT&CK technique`,
		},
		"ocsf": {
			replace("severity: info", "severity: info, ocsf: login"),
			`bad.yaml:9: "login" is no OCSF class and activity`,
		},
		"version": {
			replace("severity: info", "severity: info, since: 1.0"),
			`bad.yaml:9: "1.0" is no version: numbers with dots between, in quotes`,
		},
		"versions": {
			replace("severity: info", `severity: info, since: "1.10", until: "1.9"`),
			`bad.yaml:9: since 1.10 is later than until 1.9`,
		},
		"condition": {
			replace("from: [who]", "from: [who], when: {shape: login}"),
			`bad.yaml:7: no event has shape "login"`,
		},
		"module unsaid": {
			replace("from: [who]", "from: [who], when: {module: x}"),
			`bad.yaml:7: the catalogue has no key module`,
		},
		"rule without from": {
			replace("from: [who]", "when: {a: b}"),
			"bad.yaml:7: a field rule needs the key to, and either from or value",
		},
		"layout": {
			tinyCatalog + "time: {from: [{field: at, layouts: [\"yyyy-mm-dd\"]}]}\n",
			`bad.yaml:10: layout "yyyy-mm-dd" needs a year`,
		},
		"layout digits": {
			tinyCatalog + "time: {from: [{field: at, layouts: [\"1999-01-02 15:04\"]}]}\n",
			`is no part of the reference time`,
		},
		"zone": {
			tinyCatalog + "time: {from: [{field: at, layouts: [unix], zone: Prague}]}\n",
			`bad.yaml:10: unknown word "Prague": use utc, configured`,
		},
		"alias": {
			replace("from: [[kind]]", "from: [[kind]], aliases: {kind: {WENT: GONE}}"),
			`bad.yaml:5: alias "WENT" stands for "GONE", which no event has`,
		},
		"alias of nothing": {
			replace("from: [[kind]]", "from: [[kind]], aliases: {sort: {WENT: GO}}"),
			`bad.yaml:5: aliases for "sort", but the class is not made from it`,
		},
		"alias is an event": {
			replace("from: [[kind]]", "from: [[kind]], aliases: {kind: {GO: STAY}}") + anotherEvent("STAY"),
			`alias "GO" is the name of an event already`,
		},
		"class of three": {
			replace("[[kind]]", "[[a], [b], [c]]"),
			"bad.yaml:5: a class is made of one or two parts",
		},
		"class needs slash": {
			replace("[[kind]]", "[[a], [b]]"),
			`bad.yaml:9: class "GO" must be two names with a slash between them`,
		},
		"product": {
			replace("product: tiny", "product: Tiny One"),
			`product "Tiny One" must be small letters`,
		},
		"no product":    {replace("product: tiny\n", ""), "bad.yaml:1: the key product is missing"},
		"not a mapping": {"- a\n", "bad.yaml:1: a catalogue is a mapping"},
		"star": {
			replace("[who]", "[a.*.b.c]"),
			`a star stands for what is between the first and the last name`,
		},
		"not yaml": {"a: [", "bad.yaml: read catalogue: yaml:"},
		"empty":    {"", "bad.yaml: read catalogue: EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := LoadCatalogs(site(t, map[string]string{"bad.yaml": c.text}))
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestAllMistakesAreReportedAtOnce(t *testing.T) {
	text := strings.NewReplacer("vendor:", "vendr:", "actor.name", "actor.nam", "[web]", "[www]").Replace(tinyCatalog)
	_, err := LoadCatalogs(site(t, map[string]string{"bad.yaml": text}))
	for _, want := range []string{"bad.yaml:3:", "bad.yaml:7:", "bad.yaml:9:"} {
		require.ErrorContains(t, err, want)
	}
}

func FuzzLoadCatalog(f *testing.F) {
	f.Add(tinyCatalog)
	f.Add("catalog: 1\nproduct: netop\nevents: {USER/LOGIN: {severity: &x notice}}\n")
	f.Add("catalog: 1\nproduct: a\nclass: {from: [[a], [b]], aliases: {a: {x: y}}}\n" +
		"vendor: v\nname: n\nevents: {a/b: *c}\n")
	f.Fuzz(func(t *testing.T, text string) {
		r := newCatalogReader()
		r.add("fuzz.yaml", []byte(text))
		c, err := r.finish()
		require.True(t, (c == nil) != (err == nil))
	})
}
