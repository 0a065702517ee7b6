package normalize

import (
	"encoding/json"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/auditrelay/auditrelay/audit"
)

// cefDictionary is the part of testdata/schema/cef-dictionary.json that the tests use.
type cefDictionary struct {
	Header     map[string]int `json:"header_lengths"`
	Extensions []cefDictionaryKey
}

type cefDictionaryKey struct {
	Key, Type, Audience, Since string
	Length                     int
}

func cefReadDictionary(t testing.TB) (map[string]cefDictionaryKey, cefDictionary) {
	t.Helper()
	text, err := os.ReadFile("testdata/schema/cef-dictionary.json")
	require.NoError(t, err)
	var dictionary cefDictionary
	require.NoError(t, json.Unmarshal(text, &dictionary))
	keys := make(map[string]cefDictionaryKey)
	for _, key := range dictionary.Extensions {
		keys[key.Key] = key
	}
	return keys, dictionary
}

// cefExpect is what must come back of a value under a key that takes limit characters.
func cefExpect(value string, limit int, header bool) string {
	value = strings.TrimFunc(value, func(r rune) bool { return r <= ' ' || r == 0x7f })
	runes := []rune(value) // a byte that is not UTF-8 becomes U+FFFD
	if len(runes) > limit {
		runes = runes[:limit]
	}
	for i, r := range runes {
		lineBreak := r == '\n' || r == '\r'
		if r < ' ' && (header || !lineBreak) || r >= 0x7f && r <= 0x9f || r == '\u2028' || r == '\u2029' {
			runes[i] = ' '
		}
	}
	return strings.Trim(string(runes), " ")
}

// cefExpectPairs says in plain words which pairs an event must come back as, labels left aside.
func cefExpectPairs(ev *audit.Event, keys map[string]cefDictionaryKey) map[string]string {
	values := make(map[string]string) // CEF key: value as in the event
	trimmed := func(key audit.FieldKey) string {
		return strings.TrimFunc(string(ev.Field(key)), func(r rune) bool { return r <= ' ' || r == 0x7f })
	}
	for _, info := range audit.Fields() {
		if info.CEF != "" {
			values[info.CEF] = trimmed(info.Key)
		}
	}
	for _, a := range [][3]string{{"src", "c6a2", "shost"}, {"dvc", "c6a1", "dvchost"}} {
		address, err := netip.ParseAddr(values[a[0]])
		switch {
		case err == nil && address.Is4():
			continue
		case err == nil && address.Zone() == "":
			values[a[1]] = values[a[0]]
		case values[a[2]] == "":
			values[a[2]] = values[a[0]]
		}
		delete(values, a[0])
	}
	if n, err := strconv.ParseInt(values["cn2"], 10, 64); err != nil || strconv.FormatInt(n, 10) != values["cn2"] {
		values["cs4"] = values["cn2"]
		delete(values, "cn2")
	}
	name, id := values["duser"], values["duid"]
	move := func(value, key, other string) {
		if values[key] != "" && values[key] != value && value != "" {
			key = other
		}
		if value != "" {
			values[key] = value
		}
	}
	if kind := values["cs3"]; kind != "" {
		delete(values, "duser")
		delete(values, "duid")
		to := map[string][2]string{
			"USER": {"duser", "duid"}, "DEVICE": {"dhost", "deviceExternalId"}, "device": {"dhost", "deviceExternalId"},
			"file": {"fname", "fileId"}, "package": {"flexString1", "fileId"}, "User Group": {"dpriv", "flexString2"},
			"application": {"destinationServiceName", "flexString2"},
		}
		place, ok := to[kind]
		if !ok {
			place = [2]string{"flexString1", "flexString2"}
		}
		move(name, place[0], "flexString1")
		move(id, place[1], "flexString2")
	}
	pairs := map[string]string{"rt": strconv.FormatInt(ev.Time.UnixMilli(), 10), "externalId": ev.ID.String()}
	if ev.Outcome != audit.OutcomeUnknown {
		pairs["outcome"] = ev.Outcome.String()
	}
	if ev.Number > 0 {
		pairs["cn1"] = strconv.FormatUint(uint64(ev.Number), 10)
	}
	for key, value := range values {
		limit := keys[key].Length
		if limit == 0 {
			limit = 1 << 30 // numbers and addresses have none
		}
		if value = cefExpect(value, limit, false); value != "" {
			pairs[key] = value
		}
	}
	return pairs
}

// cefLabels are the labels of all custom keys, the same for all products.
var cefLabels = map[string]string{
	"cs1": "Session", "cs2": "Account", "cs3": "Entity", "cs4": "ResultCode", "cs5": "Tenant",
	"cs6": "AuthenticationMethod",
	"cn1": "Number", "cn2": "ResultCode", "c6a1": "Device IPv6 Address", "c6a2": "Source IPv6 Address",
	"flexString1": "EntityName", "flexString2": "EntityId",
}

// cefCheckKeys checks a message against the dictionary: only keys that a producer of CEF 0 may send, of the right type
// and no longer than allowed, each custom key with its label and each label with its key.
func cefCheckKeys(t require.TestingT, m *cefMessage, keys map[string]cefDictionaryKey) {
	for key, value := range m.pairs {
		entry, ok := keys[key]
		require.True(t, ok, "%s is not in the dictionary", key)
		require.Equal(t, "producer", entry.Audience, key)
		require.Equal(t, "0.1", entry.Since, key)
		if entry.Length > 0 {
			require.LessOrEqual(t, utf8.RuneCountInString(value), entry.Length, key)
		}
		address, _ := netip.ParseAddr(value)
		switch entry.Type {
		case "string":
		case "long", "timestamp":
			n, err := strconv.ParseInt(value, 10, 64)
			require.NoError(t, err, key)
			require.Equal(t, value, strconv.FormatInt(n, 10), key)
		case "ipv4_address":
			require.True(t, address.Is4(), "%s=%s", key, value)
		case "ipv6_address":
			require.True(t, address.Is6() && address.Zone() == "", "%s=%s", key, value)
		default:
			require.Fail(t, "no rule for this type", "%s %s", key, entry.Type)
		}
		if custom, isLabel := strings.CutSuffix(key, "Label"); isLabel {
			require.Contains(t, m.pairs, custom)
			require.Equal(t, cefLabels[custom], value)
		} else if _, custom := keys[key+"Label"]; custom {
			require.Contains(t, m.pairs, key+"Label")
		}
	}
}

func TestCEFReadsAsWeMeantIt(t *testing.T) {
	line := string(encNew(t, "cef").Append(nil, encNetop()))
	require.Equal(t, "CEF:0|Impero|Connect Portal|1|DEVICE/NRC_SESSION_STARTED|Remote session started|4|"+
		"rt=1735722510000 externalId="+encNetop().ID.String()+" cat=session act=NRC_SESSION_STARTED "+
		"outcome=success suid=700 suser=tom.baker@example.com src=198.51.100.8 dvchost=LON-PC-07 deviceExternalId=d-7 "+
		"deviceFacility=HOST dhost=LON-PC-07 cs1Label=Session cs1=rs-1 cs2Label=Account cs2=5001 cs3Label=Entity cs3=DEVICE "+
		"cn1Label=Number cn1=4711 cn2Label=ResultCode cn2=0", line)
}

// TestCEFComesBackThroughAnIndependentReader compares all of a message: a value that forged a pair, a header field or a
// line would be one too many.
func TestCEFComesBackThroughAnIndependentReader(t *testing.T) {
	keys, dictionary := cefReadDictionary(t)
	encoder := encNew(t, "cef")
	rapid.Check(t, func(t *rapid.T) {
		ev := encEvent().Draw(t, "event")
		line := string(encoder.Append(nil, ev))
		require.Equal(t, line, string(encoder.Append(nil, ev)))
		m, err := cefRead(line)
		require.NoError(t, err, "%q", line)

		names := encNames(ev.Product)
		field := func(value, length string) string {
			if value = cefExpect(value, dictionary.Header[length], true); value == "" {
				return "Unknown"
			}
			return value
		}
		require.Equal(t, field(names.Vendor, "deviceVendor"), m.vendor)
		require.Equal(t, field(ev.Product, "deviceProduct"), m.product)
		require.Equal(t, "Unknown", m.version)
		require.Equal(t, field(ev.Class, "deviceEventClassId"), m.class)
		name := string(ev.Field(audit.KeyName))
		if strings.TrimFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) == "" {
			name = ev.Class
		}
		require.Equal(t, field(name, "name"), m.name)
		require.Equal(t, ev.Severity.CEF(), m.severity)

		cefCheckKeys(t, m, keys)
		got := make(map[string]string)
		for key, value := range m.pairs {
			if !strings.HasSuffix(key, "Label") {
				got[key] = value
			}
		}
		require.Equal(t, cefExpectPairs(ev, keys), got, "%q", line)
	})
}

// TestCEFKeysStandInOneOrder draws events and looks whether two keys are ever seen both ways round.
func TestCEFKeysStandInOneOrder(t *testing.T) {
	encoder := encNew(t, "cef")
	before := make(map[[2]string]bool)
	rapid.Check(t, func(t *rapid.T) {
		m, err := cefRead(string(encoder.Append(nil, encEvent().Draw(t, "event"))))
		require.NoError(t, err)
		for i, first := range m.keys {
			for _, second := range m.keys[i+1:] {
				require.False(t, before[[2]string{second, first}], "%s and %s", first, second)
				before[[2]string{first, second}] = true
			}
		}
	})
	for _, pair := range [][2]string{{"rt", "externalId"}, {"outcome", "suser"}, {"cs6", "cn1"}} {
		require.True(t, before[pair], pair)
	}
}

// TestCEFTableFitsTheDictionary checks the field table and the encoder's own rows without any event.
func TestCEFTableFitsTheDictionary(t *testing.T) {
	keys, dictionary := cefReadDictionary(t)
	require.Equal(t, map[string]int{
		"deviceVendor": cefVendorLimit, "deviceProduct": cefProductLimit, "deviceVersion": cefVersionLimit,
		"deviceEventClassId": cefClassLimit, "name": cefNameLimit,
	}, dictionary.Header)
	seen := make(map[string]bool)
	for _, row := range cefRows() {
		entry, ok := keys[row.key]
		require.True(t, ok, row.key)
		require.False(t, seen[row.key], "%s twice", row.key)
		seen[row.key] = true
		require.Equal(t, "producer", entry.Audience, row.key)
		if entry.Type == "string" {
			require.Equal(t, entry.Length, row.limit, row.key)
		}
		label, custom := keys[row.key+"Label"]
		require.Equal(t, custom, row.label != "", row.key)
		if custom {
			require.Equal(t, cefLabels[row.key], row.label)
			require.LessOrEqual(t, len(row.label), label.Length)
			require.NotContains(t, row.label, "=")
		}
	}
	for _, info := range audit.Fields() {
		if info.CEF != "" && info.Type != audit.TypeText {
			require.Contains(t, []audit.FieldKey{audit.KeyResultCode, audit.KeyClientIP, audit.KeyHostIP}, info.Key,
				"%s needs a rule for values that are not of its type", info.Name)
		}
	}
}

func TestCEFTargetsGoWhereTheirKindBelongs(t *testing.T) {
	for _, test := range []struct {
		name   string
		fields map[audit.FieldKey]string
		want   map[string]string // less rt and the labels
	}{
		{
			"user",
			map[audit.FieldKey]string{audit.KeyTargetType: "USER", audit.KeyTargetName: "Ann", audit.KeyTargetID: "7"},
			map[string]string{"cs3": "USER", "duser": "Ann", "duid": "7"},
		},
		{
			"no type",
			map[audit.FieldKey]string{audit.KeyTargetName: "Ann", audit.KeyTargetID: "7"},
			map[string]string{"duser": "Ann", "duid": "7"},
		},
		{
			"device beside the host",
			map[audit.FieldKey]string{
				audit.KeyTargetType: "Host-Device", audit.KeyTargetName: "pc", audit.KeyTargetID: "d-1", audit.KeyHostID: "d-2",
			},
			map[string]string{"cs3": "Host-Device", "dhost": "pc", "deviceExternalId": "d-2", "flexString2": "d-1"},
		},
		{
			"the same device",
			map[audit.FieldKey]string{
				audit.KeyTargetType: "device", audit.KeyTargetID: "d-1 ", audit.KeyHostID: "d-1",
			},
			map[string]string{"cs3": "device", "deviceExternalId": "d-1"},
		},
		{
			"file",
			map[audit.FieldKey]string{
				audit.KeyTargetType: "file", audit.KeyTargetName: "a=b.txt", audit.KeyTargetID: "f1",
			},
			map[string]string{"cs3": "file", "fname": "a=b.txt", "fileId": "f1"},
		},
		{
			"file of another name",
			map[audit.FieldKey]string{
				audit.KeyTargetType: "file", audit.KeyTargetName: "a", audit.KeyFileName: "b", audit.KeyPackageID: "p",
			},
			map[string]string{"cs3": "file", "fname": "b", "flexString1": "a", "fileId": "p"},
		},
		{
			"file with a blank name",
			map[audit.FieldKey]string{
				audit.KeyTargetType: "file", audit.KeyTargetName: "a", audit.KeyFileName: " \t",
			},
			map[string]string{"cs3": "file", "fname": "a"},
		},
		{
			"group",
			map[audit.FieldKey]string{
				audit.KeyTargetType: "USER_GROUP", audit.KeyTargetName: "Helpdesk", audit.KeyTargetID: "12",
			},
			map[string]string{"cs3": "USER_GROUP", "dpriv": "Helpdesk", "flexString2": "12"},
		},
		{
			"a kind that nobody listed",
			map[audit.FieldKey]string{
				audit.KeyTargetType: "ROLE_ASSIGNMENT", audit.KeyTargetName: "root", audit.KeyTargetID: "31",
			},
			map[string]string{"cs3": "ROLE_ASSIGNMENT", "flexString1": "root", "flexString2": "31"},
		},
		{
			"a kind longer than any",
			map[audit.FieldKey]string{
				audit.KeyTargetType: encRepeat("user", 20), audit.KeyTargetName: "x",
			},
			map[string]string{"cs3": encRepeat("user", 20), "flexString1": "x"},
		},
		{
			"two kinds at once",
			map[audit.FieldKey]string{audit.KeyTargetType: "user users", audit.KeyTargetName: "x"},
			map[string]string{"cs3": "user users", "flexString1": "x"},
		},
		{
			"IPv6",
			map[audit.FieldKey]string{audit.KeyClientIP: "2001:db8::7", audit.KeyHostIP: "::1"},
			map[string]string{"c6a2": "2001:db8::7", "c6a1": "::1"},
		},
		{
			"no address",
			map[audit.FieldKey]string{
				audit.KeyClientIP: "fe80::1%eth0", audit.KeyHostIP: "unknown", audit.KeyHostName: "h",
			},
			map[string]string{"shost": "fe80::1%eth0", "dvchost": "h"},
		},
		{"result code with a leading zero", map[audit.FieldKey]string{
			audit.KeyResultCode: "012",
		}, map[string]string{"cs4": "012"}},
	} {
		m, err := cefRead(string(encNew(t, "cef").Append(nil, encWith(test.fields))))
		require.NoError(t, err, test.name)
		delete(m.pairs, "rt")
		for key := range m.pairs {
			if strings.HasSuffix(key, "Label") {
				delete(m.pairs, key)
			}
		}
		require.Equal(t, test.want, m.pairs, test.name)
	}
}

func TestCEFKindsAreShortEnoughToBeFound(t *testing.T) {
	encoder := newCEFEncoder(EncoderOptions{})
	total := 0
	for _, row := range cefTargets {
		for kind := range strings.FieldsSeq(row.kinds) {
			total++
			require.LessOrEqual(t, len(kind), cefKindMax)
			require.Equal(t, cefTarget{row.name, row.id}, encoder.target([]byte(strings.ToUpper(kind))))
		}
	}
	require.Len(t, encoder.targets, total, "a kind stands in two rows")
}

func TestCEFCountsWhatItCutsAndLeavesOut(t *testing.T) {
	encoder := encNew(t, "cef")
	count := func(fields map[audit.FieldKey]string) uint64 {
		before := encoder.Cut()
		encoder.Append(nil, encWith(fields))
		return encoder.Cut() - before
	}
	require.Zero(t, count(map[audit.FieldKey]string{audit.KeyAction: encRepeat("č", 63) + "   "}))
	require.EqualValues(t, 1, count(map[audit.FieldKey]string{audit.KeyAction: encRepeat("č", 64)}))
	require.EqualValues(t, 2, count(map[audit.FieldKey]string{
		audit.KeyAction: encRepeat("=", 64), audit.KeyName: encRepeat("|", 513),
	}))
	require.Zero(t, count(map[audit.FieldKey]string{audit.KeyClientIP: "unknown"}))
	require.EqualValues(t, 1, count(map[audit.FieldKey]string{audit.KeyClientIP: "unknown", audit.KeyClientHost: "pc"}))

	before := encoder.Cut()
	line := string(encoder.Append(nil, &audit.Event{Time: time.Time{}, Class: "C"}))
	require.EqualValues(t, before+2, encoder.Cut(), "the vendor's name, and a time that is none")
	require.True(t, strings.HasSuffix(line, "|C|C|2|"), line)
}

func TestCEFCutsBeforeEscaping(t *testing.T) {
	encoder := encNew(t, "cef")
	for _, unit := range []string{"=", "\\", "\n", "č", "\xff", "😀", "a "} {
		text := "x" + encRepeat(unit, 200) + "x"
		line := string(encoder.Append(nil, encWith(map[audit.FieldKey]string{audit.KeyAction: text})))
		m, err := cefRead(line)
		require.NoError(t, err)
		want := cefExpect(text, 63, false)
		require.Equal(t, want, m.pairs["act"])
		require.GreaterOrEqual(t, utf8.RuneCountInString(want), 62, "but for a space at the cut")
	}
}

func TestCEFReaderRefusesWhatReadersStumbleOver(t *testing.T) {
	const good = `CEF:0|v|p|1|c\|\\|n|5|act=a\=b\\\n x msg=m`
	m, err := cefRead(good)
	require.NoError(t, err)
	require.Equal(t, "c|\\", m.class)
	require.Equal(t, map[string]string{"act": "a=b\\\n x", "msg": "m"}, m.pairs)
	for _, bad := range []string{
		"CEF:1|v|p|1|c|n|5|", "CEF:0|v|p|1|c|n|5", "CEF:0|v||1|c|n|5|", "CEF:0|v|p|1|c|n|11|", "CEF:0|v|p|1|c|n|05|",
		`CEF:0|v\=|p|1|c|n|5|`, `CEF:0|v|p|1|c|n|5|act=a\d`, `CEF:0|v|p|1|c|n|5|act=a\`, "CEF:0|v|p|1|c|n|5|act=a  msg=b",
		"CEF:0|v|p|1|c|n|5|act= msg=b", "CEF:0|v|p|1|c|n|5|x",
		"CEF:0|v|p|1|c|n|5|act=a=b", "CEF:0|v|p|1|c|n|5|act=a act=b", "CEF:0|v|p|1|c|n|5| act=a",
		"CEF:0|v|p|1|c|n|5|act=a ", "CEF:0|v|p|1|c|n|5|act=a\nb", "CEF:0|v|p|1|c|n|5|act=\u2028b",
		"CEF:0|v|p|1|c|n|5|act=\xff",
	} {
		_, err := cefRead(bad)
		require.Error(t, err, "%q", bad)
	}
}

func FuzzCEF(f *testing.F) {
	for i, piece := range encNasty {
		f.Add(piece, encNasty[len(encNasty)-1-i], "DEVICE", "value "+piece+" msg=x")
	}
	f.Add("c", encRepeat("\\", 600), "file", encRepeat("=", 5000))
	keys, _ := cefReadDictionary(f)
	encoder := encNew(f, "cef")
	f.Fuzz(func(t *testing.T, class, name, kind, value string) {
		ev := encWith(nil)
		ev.Class = class
		for _, info := range audit.Fields() {
			text := value
			if info.Key == audit.KeyName {
				text = name
			} else if info.Key == audit.KeyTargetType {
				text = kind
			}
			ev.Fields = append(ev.Fields, audit.Field{Key: info.Key, Value: []byte(text)})
		}
		line := string(encoder.Append(nil, ev))
		m, err := cefRead(line)
		require.NoError(t, err, "%q", line)
		cefCheckKeys(t, m, keys)
		if want := cefExpect(value, 1023, false); want == "" {
			require.NotContains(t, m.pairs, "msg")
		} else {
			require.Equal(t, want, m.pairs["msg"])
		}
		require.Equal(t, "rt", m.keys[0])
	})
}

func BenchmarkCEF(b *testing.B) { encBenchmark(b, "cef") }

// encBenchmark measures one event with 20 fields.
func encBenchmark(b *testing.B, format string) {
	encoder, ev := encNew(b, format), encNetop()
	buf := encoder.Append(nil, ev)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = encoder.Append(buf[:0], ev)
	}
}
