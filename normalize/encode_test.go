package normalize

import (
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/auditrelay/auditrelay/audit"
)

// encNasty are pieces that some reader of CEF or JSON has been fooled by.
var encNasty = []string{
	"a", "Z", "9", " ", "  ", "\n", "\r", "\r\n", "|", "=", "\\", "\"", "'", "\x00", "\t", "\x1b[31m", "\x7f",
	"\u0085", "\u00a0",
	"\u2028", "\u2029", "\u202e", "\u2066", "\ufeff", "\ufffd", "\xff", "\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80",
	"č", "漢", "😀",
	" suser=root", " act=x", "|10|", "CEF:0|", `\n`, `\=`, `\\`, `","actor":{"name":"root"}`,
	"</script>", "\v", "\f", "\x1e",
}

// encText draws texts made of nasty pieces.
func encText(most int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		var text string
		for _, piece := range rapid.SliceOfN(rapid.SampledFrom(encNasty), 0, most).Draw(t, "pieces") {
			text += piece
		}
		return text
	})
}

// encValue draws a value for a field: nasty, long, or one that the field expects.
func encValue(info *audit.FieldInfo) *rapid.Generator[string] {
	expected := []string{"0", "-7", "12", "012", "+1", "9223372036854775807", "9223372036854775808", "USER", "device"}
	if info != nil && info.Type == audit.TypeIP {
		expected = []string{
			"192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "fe80::1%eth0", "unknown", "1.2.3.4:80", "01.2.3.4", " 192.0.2.9 ",
		}
	}
	if info != nil && info.Key == audit.KeyTargetType {
		expected = []string{"USER", "DEVICE", "file", "package", "User Group", "ROLE_ASSIGNMENT", "application", "x"}
	}
	return rapid.OneOf(
		encText(12),
		rapid.SampledFrom(expected),
		rapid.Custom(func(t *rapid.T) string {
			unit := rapid.SampledFrom([]string{"x", "=", "\\", "č", "\xff", " ", "😀"}).Draw(t, "unit")
			return encRepeat(unit, rapid.IntRange(60, 1100).Draw(t, "count"))
		}),
	)
}

func encRepeat(unit string, n int) string {
	b := make([]byte, 0, n*len(unit))
	for range n {
		b = append(b, unit...)
	}
	return string(b)
}

// encEvent draws an event that keeps the rules of audit.Event.
func encEvent() *rapid.Generator[*audit.Event] {
	return rapid.Custom(func(t *rapid.T) *audit.Event {
		ev := &audit.Event{
			ID:             audit.KeyID("p", []byte(rapid.String().Draw(t, "id"))),
			Number:         audit.Number(rapid.Int64Range(0, 1<<62).Draw(t, "number")),
			Time:           time.UnixMilli(rapid.Int64Range(0, 253402300799999).Draw(t, "time")).UTC(),
			Received:       time.UnixMilli(rapid.Int64Range(0, 253402300799999).Draw(t, "received")).UTC(),
			Source:         encText(3).Draw(t, "source"),
			Product:        encText(3).Draw(t, "product"),
			Class:          encText(5).Draw(t, "class"),
			Severity:       audit.Severity(rapid.IntRange(0, 6).Draw(t, "severity")),
			SeveritySource: audit.SeveritySource(rapid.IntRange(0, 2).Draw(t, "severity source")),
			Outcome:        audit.Outcome(rapid.IntRange(0, 2).Draw(t, "outcome")),
			Known:          rapid.Bool().Draw(t, "known"),
			Marks:          audit.Marks(rapid.Uint64().Draw(t, "marks")),
			Raw:            []byte(encText(8).Draw(t, "raw")),
		}
		for _, info := range audit.Fields() {
			if rapid.IntRange(0, 2).Draw(t, "has "+info.Name) > 0 {
				value := encValue(&info).Draw(t, info.Name)
				ev.Fields = append(ev.Fields, audit.Field{Key: info.Key, Value: []byte(value)})
			}
		}
		for range rapid.IntRange(0, 4).Draw(t, "attributes") {
			ev.Fields = append(ev.Fields, audit.Field{
				Key:   audit.KeyAttribute,
				Name:  []byte(encText(3).Draw(t, "attribute name")),
				Value: []byte(encText(5).Draw(t, "attribute")),
			})
		}
		ev.SortFields()
		return ev
	})
}

// encNames are names with everything that must be escaped or cut in them.
func encNames(product string) ProductNames {
	if product == "netop" {
		return ProductNames{Vendor: "Impero", Name: "Connect Portal", Version: "1"}
	}
	return ProductNames{Vendor: "A|B\\C=D\n" + encRepeat("v", 80), Name: "", Version: " \t"}
}

func encNew(t testing.TB, format string) Encoder {
	t.Helper()
	encoder, err := NewEncoder(format, EncoderOptions{Names: encNames, RelayID: "prg-01", Log: 1234567})
	require.NoError(t, err)
	return encoder
}

// encNetop is an event as the normalizer makes it of a Netop record: 20 fields, of which 6 are the vendor's own.
func encNetop() *audit.Event {
	ev := &audit.Event{
		ID:       audit.KeyID("netop", []byte("row 11")),
		Number:   4711,
		Time:     time.Date(2025, 1, 1, 9, 8, 30, 0, time.UTC),
		Received: time.Date(2025, 1, 1, 12, 0, 0, 45_000_000, time.UTC),
		Source:   "portal", Product: "netop", Class: "DEVICE/NRC_SESSION_STARTED",
		Severity: audit.SeverityNotice, Outcome: audit.OutcomeSuccess, Known: true, Marks: audit.MarkLate,
		Raw: []byte(`HOST,rs-1,700,tom.baker@example.com,5001,DEVICE,NRC_SESSION_STARTED,d-7,LON-PC-07,0,` +
			`"{""host"": {""nrc_id"": ""H-2001"", ""computer_name"": ""LON-PC-07""}, ""guest"": {` +
			`""public_ip"": ""198.51.100.8""}}",1735722510,2025-01-01 09:08:30,live`),
	}
	for _, f := range []struct {
		key         audit.FieldKey
		name, value string
	}{
		{audit.KeyAttribute, "guest.computer_name", "SUP-04"},
		{audit.KeyAttribute, "guest.gam_username", "tom.baker@example.com"},
		{audit.KeyAttribute, "guest.nrc_id", "G-11"},
		{audit.KeyAttribute, "host.logged_on_windows_user", `OFFICE\karen`},
		{audit.KeyAttribute, "host.nrc_version", "12.90"},
		{audit.KeyAttribute, "host.operating_system", "Windows 11 Pro"},
		{audit.KeyName, "", "Remote session started"},
		{audit.KeyCategory, "", "session"},
		{audit.KeyResultCode, "", "0"},
		{audit.KeyAction, "", "NRC_SESSION_STARTED"},
		{audit.KeyActorID, "", "700"},
		{audit.KeyActorName, "", "tom.baker@example.com"},
		{audit.KeyTargetType, "", "DEVICE"},
		{audit.KeyTargetID, "", "d-7"},
		{audit.KeyTargetName, "", "LON-PC-07"},
		{audit.KeyClientIP, "", "198.51.100.8"},
		{audit.KeyHostName, "", "LON-PC-07"},
		{audit.KeySessionID, "", "rs-1"},
		{audit.KeyAccountID, "", "5001"},
		{audit.KeyModule, "", "HOST"},
	} {
		ev.Fields = append(ev.Fields, audit.Field{Key: f.key, Name: []byte(f.name), Value: []byte(f.value)})
	}
	return ev
}

// encWith returns an event with these fields of the table and nothing else that is variable.
func encWith(values map[audit.FieldKey]string) *audit.Event {
	ev := &audit.Event{Class: "C", Product: "netop", Time: time.UnixMilli(1), Received: time.UnixMilli(1)}
	for key, value := range values {
		ev.Fields = append(ev.Fields, audit.Field{Key: key, Value: []byte(value)})
	}
	ev.SortFields()
	return ev
}

func TestNewEncoderNamesTheFormatsThatExist(t *testing.T) {
	for _, format := range Formats() {
		encoder, err := NewEncoder(format, EncoderOptions{})
		require.NoError(t, err)
		require.NotEmpty(t, encoder.Append(nil, &audit.Event{}), "without names and without an event")
	}
	_, err := NewEncoder("CEF", EncoderOptions{})
	require.EqualError(t, err, `unknown format "CEF": use cef or json`)
}

func TestEncodersGiveTheSameBytesFromManyGoroutines(t *testing.T) {
	for _, format := range Formats() {
		encoder, ev := encNew(t, format), encNetop()
		want := string(encoder.Append(nil, ev))
		var group sync.WaitGroup
		got := make([]string, 4)
		for i := range got {
			group.Go(func() {
				for range 100 {
					got[i] = string(encoder.Append([]byte("before "), ev))
				}
			})
		}
		group.Wait()
		for i := range got {
			require.Equal(t, "before "+want, got[i])
		}
		require.Zero(t, encoder.Cut())
	}
}

func TestEncodersAllocateNothing(t *testing.T) {
	hostile := encWith(map[audit.FieldKey]string{
		audit.KeyClientIP: "2001:db8::1", audit.KeyHostIP: "no address", audit.KeyHostName: "h",
		audit.KeyResultCode: "E\x00=|\\\n5", audit.KeyTargetType: "user group",
		audit.KeyTargetName: encRepeat("\xff č", 3000), audit.KeySourceOffset: "x",
	})
	hostile.Marks = ^audit.Marks(0)
	hostile.Raw = []byte("\xff")
	hostile.Class = encRepeat("ž|\n", 500)
	for _, format := range Formats() {
		encoder := encNew(t, format)
		for _, ev := range []*audit.Event{encNetop(), hostile} {
			buf := make([]byte, 0, 1<<16)
			require.Zero(t, testing.AllocsPerRun(100, func() { buf = encoder.Append(buf[:0], ev) }), format)
		}
	}
}

func TestEveryFieldKeyHasASlot(t *testing.T) {
	for _, info := range audit.Fields() {
		require.Less(t, encSlot(info.Key), encKeys, info.Name)
	}
}

func TestFillTakesTheFirstOfTwoEqualKeysAndNoEmptyValue(t *testing.T) {
	fields := []audit.Field{
		{Key: audit.KeyReason, Value: nil},
		{Key: audit.KeyReason, Value: []byte("first")},
		{Key: audit.KeyReason, Value: []byte("second")},
		{Key: 60000, Value: []byte("key of a later version")},
	}
	var x encIndex
	x.fill(fields)
	require.Equal(t, "first", string(x.value(fields, encSlot(audit.KeyReason))))
}

func TestIsIntegerAgreesWithTheStandardLibrary(t *testing.T) {
	text := rapid.OneOf(
		rapid.StringMatching(`[-+]?[0-9]{0,21}`),
		rapid.Map(rapid.Int64(), func(n int64) string { return strconv.FormatInt(n, 10) }),
		rapid.SampledFrom([]string{
			"9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "-0", "-",
		}),
		rapid.String(),
	)
	rapid.Check(t, func(t *rapid.T) {
		s := text.Draw(t, "s")
		n, err := strconv.ParseInt(s, 10, 64)
		want := err == nil && strconv.FormatInt(n, 10) == s
		require.Equal(t, want, encIsInteger([]byte(s)), s)
	})
}

func TestIsIPAgreesWithTheStandardLibrary(t *testing.T) {
	address := rapid.Custom(func(t *rapid.T) string {
		b := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 0, 0, 1, 0xff}), 16, 16).Draw(t, "bytes")
		return netip.AddrFrom16([16]byte(b)).String()
	})
	text := rapid.OneOf(
		address,
		rapid.StringMatching(`[0-9]{1,3}(\.[0-9]{1,3}){2,4}`),
		rapid.StringMatching(`[0-2]?[0-5]?[0-9](\.[0-2]?[0-5]?[0-9]){3}`),
		rapid.StringMatching(`:{0,2}([0-9a-fA-F]{1,5}:{1,2}){0,8}[0-9a-f]{0,4}`),
		rapid.StringMatching(`([0-9a-f]{1,4}:){0,7}:?([0-9a-f]{1,4}:){0,3}[0-9]{1,2}(\.[0-9]{1,2}){3}`),
		rapid.StringMatching(`[0-9a-f:.%]{0,20}`),
	)
	rapid.Check(t, func(t *rapid.T) {
		s := text.Draw(t, "s")
		a, err := netip.ParseAddr(s)
		require.Equal(t, err == nil && a.Is4(), encIsIPv4([]byte(s)), s)
		require.Equal(t, err == nil && a.Is6() && a.Zone() == "", encIsIPv6([]byte(s)), s)
	})
}

func TestAppendTimeAgreesWithTheStandardLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.UnixMilli(rapid.Int64Range(-62167219200000, 253402300799999).Draw(t, "ms")).
			Add(time.Duration(rapid.Int64Range(0, 999_999).Draw(t, "ns")))
		at = at.In(time.FixedZone("x", rapid.IntRange(-40000, 40000).Draw(t, "zone")))
		require.Equal(t, at.UTC().Format("2006-01-02T15:04:05.000Z"), string(encAppendTime(nil, at)))
	})
	require.Equal(t, "9999-12-31T23:59:59.999Z", string(encAppendTime(nil, time.UnixMilli(1<<62))))
	require.Equal(t, "0000-01-01T00:00:00.000Z", string(encAppendTime(nil, time.UnixMilli(-1<<62))))
}
