package normalize

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

func TestLayouts(t *testing.T) {
	const none = "-"
	for _, c := range []struct{ layout, text, want string }{
		{"unix", "1735722000", "2025-01-01T09:00:00Z"},
		{"unix", "1735722000.123456", "2025-01-01T09:00:00.123Z"},
		{"unix", "1735722000123", "2025-01-01T09:00:00.123Z"},
		{"unix", "1735722000123456", "2025-01-01T09:00:00.123Z"},
		{"unix", "1735722000123456789", "2025-01-01T09:00:00.123Z"},
		{"unix", "99999999999", "5138-11-16T09:46:39Z"},
		{"unix", "0", "1970-01-01T00:00:00Z"},
		{"unix", "-1", none},
		{"unix", "", none},
		{"unix", "1e9", none},
		{"unix", "17357220001234567890", none},
		{"unix", "12x", none},
		{"unix_ms", "1735722000", "1970-01-21T02:08:42Z"},
		{"rfc3339", "2025-01-01T09:00:00Z", "2025-01-01T09:00:00Z"},
		{"rfc3339", "2025-01-01t09:00:00.5z", "2025-01-01T09:00:00.5Z"},
		{"rfc3339", "2025-01-01 10:00:00+01:00", "2025-01-01T09:00:00Z"},
		{"rfc3339", "2025-01-01T10:00:00.123456789+0100", "2025-01-01T09:00:00.123Z"},
		{"rfc3339", "2025-01-01T10:00:00-02", "2025-01-01T12:00:00Z"},
		{"rfc3339", "2025-01-01 10:00:00 +0000 UTC", "2025-01-01T10:00:00Z"},
		{"rfc3339", "2025-01-01 10:00:00", "2025-01-01T09:00:00Z"}, // no offset: the zone of the test, which is Prague
		{"rfc3339", "2025-01-01 10:00:00,25", "2025-01-01T09:00:00.25Z"},
		{"rfc3339", "2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"},
		{"rfc3339", "2025-02-29T10:00:00Z", none},
		{"rfc3339", "2025-13-01T10:00:00Z", none},
		{"rfc3339", "2025-01-01T24:00:00Z", none},
		{"rfc3339", "2025-01-01", none},
		{"rfc3339", "2025-01-01T10:00:00Zulu", none},
		{"rfc3339", "0000-01-01T10:00:00Z", none},
		{"rfc3339", "2025-01-01T10:00:00+99:00", none},
		{"2/1/2006 15:04:05", "26/10/2025 14:30:00", "2025-10-26T13:30:00Z"},
		{"2/1/2006 15:04:05", "6/1/2025 14:30:00.1", "2025-01-06T13:30:00.1Z"},
		{"02/01/2006 15:04", "26/10/2025 14:30", "2025-10-26T13:30:00Z"},
		{"02/01/2006 15:04", "6/10/2025 14:30", none},
		{"1/2/2006 3:04:05 PM", "7/4/2025 12:05:06 AM", "2025-07-03T22:05:06Z"},
		{"1/2/2006 3:04:05 PM", "7/4/2025 1:05:06 pm", "2025-07-04T11:05:06Z"},
		{"1/2/2006 3:04:05 PM", "7/4/2025 13:05:06 PM", none},
		{"Jan _2 2006 15:04:05", "Mar  4 2025 10:00:00", "2025-03-04T09:00:00Z"},
		{"20060102 15:04:05", "20250304 10:00:00 GMT", "2025-03-04T10:00:00Z"},
		{"20060102 15:04:05", "20250304 10:00:00 CET", none},
	} {
		l, err := parseLayout(c.layout)
		require.NoError(t, err)
		s := newScratch(testNormalizer(t, nil))
		rule := timeRule{layouts: []layout{l}, configured: true}
		got := none
		if at, _, _, ok := s.readTime(&rule, []byte(c.text), testLocation(t, "Europe/Prague")); ok {
			got = at.Format(time.RFC3339Nano)
		}
		require.Equal(t, c.want, got, "%s %s", c.layout, c.text)
	}
}

// TestZoneClockAgreesWithGo reads every quarter of an hour of a year in several zones and compares with Go, which turns
// UTC into a reading: the reading must lead back to a time that shows it.
func TestZoneClockAgreesWithGo(t *testing.T) {
	for _, name := range []string{
		"Europe/Prague", "Europe/Rome", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia", "UTC",
	} {
		location := testLocation(t, name)
		var clock zoneClock
		start := time.Date(2011, 1, 1, 0, 0, 0, 0, time.UTC)
		for at := start; at.Before(start.AddDate(1, 0, 1)); at = at.Add(15 * time.Minute) {
			local := at.In(location)
			_, offset := local.Zone()
			sec, ambiguous := clock.utc(at.Unix()+int64(offset), location)
			if !ambiguous && at.Unix() != sec {
				require.Equal(t, at.Unix(), sec, "%s %s", name, local)
			}
			if ambiguous {
				require.LessOrEqual(t, sec, at.Unix(), "of two the first: %s %s", name, local)
				require.Equal(t, local.Format(time.DateTime), time.Unix(sec, 0).In(location).Format(time.DateTime), name)
			}
		}
	}
}

func TestHourThatOccursTwiceAndHourThatDoesNot(t *testing.T) {
	rome := testLocation(t, "Europe/Rome")
	for text, want := range map[string]struct {
		utc   string
		marks audit.Marks
	}{
		"2025-10-26 01:59:59": {"2025-10-25T23:59:59Z", 0},
		"2025-10-26 02:00:00": {"2025-10-26T00:00:00Z", audit.MarkTimeAmbiguous},
		"2025-10-26 02:59:59": {"2025-10-26T00:59:59Z", audit.MarkTimeAmbiguous},
		"2025-10-26 03:00:00": {"2025-10-26T02:00:00Z", 0},
		"2025-03-30 01:59:59": {"2025-03-30T00:59:59Z", 0},
		"2025-03-30 02:00:00": {"2025-03-30T01:00:00Z", audit.MarkTimeAmbiguous},
		"2025-03-30 02:59:59": {"2025-03-30T01:59:59Z", audit.MarkTimeAmbiguous},
		"2025-03-30 03:00:00": {"2025-03-30T01:00:00Z", 0},
	} {
		s := newScratch(testNormalizer(t, nil))
		for range 2 { // the second time from the remembered period
			stamp, n := readISO([]byte(text))
			require.Positive(t, n)
			got, marks := s.resolve(&stamp, rome)
			require.Equal(t, want.utc, got.Format(time.RFC3339), text)
			require.Equal(t, want.marks, marks, text)
			warm, _ := readISO([]byte("2025-07-01 12:00:00"))
			s.resolve(&warm, rome)
		}
	}
}

func TestDayAndMonthAreToldApartByTheirNumbers(t *testing.T) {
	n := testNormalizer(t, map[string]Source{"ucx": {Product: "ucx", Location: testLocation(t, "Europe/Rome")}})
	for text, want := range map[string]struct {
		utc       string
		ambiguous bool
	}{
		"3/14/2025 2:30:00 PM":       {"2025-03-14T13:30:00Z", false},
		"3/14/2025 14:30:00":         {"2025-03-14T13:30:00Z", false},
		"14/03/2025 14:30:00":        {"2025-03-14T13:30:00Z", false},
		"14/03/2025 2:30:00 pm":      {"2025-03-14T13:30:00Z", false},
		"03/04/2025 14:30:00":        {"2025-04-03T12:30:00Z", true},
		"3/4/2025 12:30:00 AM":       {"2025-04-02T22:30:00Z", true},
		"3/4/2025 14:30:00.25+05:00": {"2025-04-03T09:30:00Z", true},
		"3/3/2025 14:30:00":          {"2025-03-03T13:30:00Z", false},
		"3.4.2025 14:30:00":          {"2025-04-03T12:30:00Z", false},
		"2025-03-04 14:30:00":        {"2025-03-04T13:30:00Z", false},
	} {
		ev := &events(t, n, lineRecords("ucx", audit.FormatJSON, `{"Timestamp":"`+text+`","Action":"User login"}`))[0]
		require.Equal(t, want.utc, ev.Time.Format(time.RFC3339), text)
		require.Equal(t, want.ambiguous, ev.Marks.Has(audit.MarkTimeAmbiguous), text)
		require.False(t, ev.Marks.Has(audit.MarkTimeMissing), text)
		require.Equal(t, text, field(t, ev, "time_original"))
	}
	never := lineRecords("ucx", audit.FormatJSON, `{"Timestamp":"14/13/2025 14:30:00","Action":"User login"}`)
	ev := &events(t, n, never)[0]
	require.True(t, ev.Marks.Has(audit.MarkTimeMissing), "no month has either number")
}

func TestYearIsTheLatestThatIsNotInTheFuture(t *testing.T) {
	for _, c := range []struct {
		month, day int
		received   string
		want       int
	}{
		{12, 31, "2025-01-01T00:00:05Z", 2024},
		{1, 1, "2024-12-31T23:59:55Z", 2025},
		{6, 1, "2025-06-02T00:00:00Z", 2025},
		{2, 29, "2025-03-01T00:00:00Z", 2024},
		{2, 29, "2026-12-01T00:00:00Z", 2024},
		{2, 29, "2103-01-01T00:00:00Z", 2096},
		{8, 1, "2025-01-15T00:00:00Z", 2024},
		{3, 10, "2026-11-22T00:00:00Z", 2026},
		{11, 28, "2026-11-22T00:00:00Z", 2026},
		{12, 1, "2026-11-22T00:00:00Z", 2025},
	} {
		at, err := time.Parse(time.RFC3339, c.received)
		require.NoError(t, err)
		s := stamp{month: c.month, day: c.day}
		s.guessYear(at)
		require.Equal(t, c.want, s.year, c)
	}
}

func FuzzTime(f *testing.F) {
	f.Add("2025-01-01T10:00:00.123+01:00", "2/1/2006 15:04:05")
	f.Add("1735722000.5", "unix")
	f.Add("Mar  4 2025 1:00:00 PM", "Jan _2 2006 3:04:05 PM")
	prague := testLocation(f, "Europe/Prague")
	s := newScratch(testNormalizer(f, nil))
	f.Fuzz(func(t *testing.T, text, pattern string) {
		l, err := parseLayout(pattern)
		if err != nil {
			return
		}
		rule := timeRule{layouts: []layout{l}, configured: true}
		at, _, _, ok := s.readTime(&rule, []byte(text), prague)
		if ok {
			require.LessOrEqual(t, at.Year(), 10000, text)
			require.GreaterOrEqual(t, at.Year(), 0, text)
		}
		if want, err := time.Parse(time.RFC3339Nano, text); err == nil && l.kind == 'i' && want.Year() > 0 {
			require.True(t, ok, text)
			require.Equal(t, want.UTC().Truncate(time.Millisecond), at, text)
		}
	})
}
