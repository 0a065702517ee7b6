package forward

import (
	"strings"
	"testing"
	"time"

	oracle "github.com/influxdata/go-syslog/v3/rfc5424"
	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/config"
)

func headerFor(set func(s *SyslogSettings), host string, change func(ev *audit.Event)) string {
	s := newSyslogSettings()
	if set != nil {
		set(s)
	}
	ev := audit.Event{
		ID: audit.ID{0x01, 0xAB}, Number: 42, Time: time.Date(2026, 3, 4, 5, 6, 7, 89e6, time.UTC), Class: "USER/LOGIN",
		Severity: audit.SeverityWarning,
	}
	if change != nil {
		change(&ev)
	}
	return string(newEnvelope(s, host).appendHeader(nil, &ev))
}

func TestHeaders(t *testing.T) {
	const sd = `[auditrelay@32473 id="01ab0000000000000000000000000000" number="42"] `
	rome := func(s *SyslogSettings) {
		s.Envelope = envelope3164
		if err := s.Timezone.UnmarshalText([]byte("Europe/Rome")); err != nil {
			panic(err)
		}
	}
	for name, c := range map[string]struct {
		want   string
		set    func(s *SyslogSettings)
		host   string
		change func(ev *audit.Event)
	}{
		"rfc5424": {want: "<132>1 2026-03-04T05:06:07.089Z prg-01.example.org auditrelay - USER/LOGIN " + sd},
		"facility and severity": {
			want: "<82>1 2026-03-04T05:06:07.089Z prg-01.example.org auditrelay - USER/LOGIN " + sd,
			set:  func(s *SyslogSettings) { s.Facility = 10 },
			change: func(ev *audit.Event) {
				ev.Severity = audit.SeverityCritical
			},
		},
		"smallest PRI has no leading zero": {
			want:   "<6>1 2026-03-04T05:06:07.089Z prg-01.example.org auditrelay - USER/LOGIN " + sd,
			set:    func(s *SyslogSettings) { s.Facility = 0 },
			change: func(ev *audit.Event) { ev.Severity = audit.SeverityInfo },
		},
		"byte order mark": {
			want: "<132>1 2026-03-04T05:06:07.089Z prg-01.example.org auditrelay - USER/LOGIN " + sd + "\ufeff",
			set:  func(s *SyslogSettings) { s.BOM = true },
		},
		"a class that is no MSGID": {
			want:   "<132>1 2026-03-04T05:06:07.089Z prg-01.example.org auditrelay - Při_hlášení__]\" " + sd,
			change: func(ev *audit.Event) { ev.Class = "Při hlášení\n\x00]\"" },
		},
		"a long class": {
			want:   "<132>1 2026-03-04T05:06:07.089Z prg-01.example.org auditrelay - " + strings.Repeat("a", 32) + " " + sd,
			change: func(ev *audit.Event) { ev.Class = strings.Repeat("a", 40) },
		},
		"no class, no host": {
			want: "<132>1 2026-03-04T05:06:07.089Z - auditrelay - - " + sd, host: "none",
			change: func(ev *audit.Event) { ev.Class = "" },
		},
		"a time that RFC 3339 cannot write": {
			want:   "<132>1 - prg-01.example.org auditrelay - USER/LOGIN " + sd,
			change: func(ev *audit.Event) { ev.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		},
		"rfc3164 in the zone that is set": {want: "<132>Mar  4 06:06:07 prg-01 ", set: rome},
		"rfc3164 with a tag": {want: "<132>Mar  4 06:06:07 prg-01 relay: ", set: func(s *SyslogSettings) {
			rome(s)
			s.Tag = "relay"
		}},
		"rfc3164 with an address as host": {want: "<132>Mar  4 06:06:07 192.0.2.7 ", set: rome, host: "192.0.2.7"},
		"none":                            {want: "", set: func(s *SyslogSettings) { s.Envelope = envelopeNone }},
	} {
		host := "prg-01.example.org"
		if c.host != "" {
			host = strings.TrimPrefix(c.host, "none")
		}
		want := strings.NewReplacer("Při_hlášení", "P_i_hl__en_").Replace(c.want)
		require.Equal(t, want, headerFor(c.set, host, c.change), name)
	}
}

func TestTheKeptSecondFollowsTheTime(t *testing.T) {
	s := secondText{layout: time.DateTime, zone: time.UTC}
	for _, unix := range []int64{0, 0, 1, 1, 0, -1, 1772600767, 0} {
		at := time.Unix(unix, 999e6)
		require.Equal(t, at.UTC().Format(time.DateTime), string(s.append(nil, at)))
	}
}

// FuzzRFC5424 compares what we write with what a strict parser of another project reads.
func FuzzRFC5424(f *testing.F) {
	f.Add("USER/LOGIN", "prg-01", int64(1772600767089), uint64(7), byte(16), "CEF:0|a|b")
	f.Add("", "", int64(-62135596800000), uint64(0), byte(0), "")
	f.Add("Při hlášení", "host name", int64(253402300799999), uint64(1<<63), byte(23), "\xff\x00\n")
	f.Fuzz(func(t *testing.T, class, host string, ms int64, number uint64, facility byte, message string) {
		s := newSyslogSettings()
		s.Facility = Facility(facility % 24)
		ev := audit.Event{
			ID: audit.KeyID("p", []byte(class)), Number: audit.Number(number), Time: time.UnixMilli(ms).UTC(), Class: class,
			Severity: audit.SeverityError,
		}
		if year := ev.Time.Year(); year < 1 || year > 9999 {
			ev.Time = time.Time{}.UTC()
		}
		line := newEnvelope(s, host).appendHeader(nil, &ev)
		line = append(line, "m"+strings.ToValidUTF8(message, "?")...)
		parsed, err := oracle.NewParser().Parse(line)
		require.NoError(t, err, "%q", line)
		m := parsed.(*oracle.SyslogMessage)
		require.EqualValues(t, facility%24, *m.Facility)
		require.EqualValues(t, 3, *m.Severity)
		require.True(t, ev.Time.Equal(*m.Timestamp), "%v %v", ev.Time, m.Timestamp)
		require.Equal(t, "auditrelay", *m.Appname)
		element := (*m.StructuredData)["auditrelay@32473"]
		require.Equal(t, ev.ID.String(), element["id"])
		require.NotNil(t, m.Message)
	})
}

func TestFacility(t *testing.T) {
	for text, want := range map[string]Facility{"kern": 0, "authpriv": 10, "local0": 16, "local7": 23, "0": 0, "16": 16} {
		var f Facility
		require.NoError(t, f.UnmarshalText([]byte(text)))
		require.Equal(t, want, f)
		var again Facility
		require.NoError(t, again.UnmarshalText([]byte(f.String())))
		require.Equal(t, f, again)
	}
	for _, text := range []string{"", "24", "-1", "local8", "LOCAL0", "1.5"} {
		require.ErrorContains(t, new(Facility).UnmarshalText([]byte(text)), "use a number from 0 to 23", text)
	}
}

var _ config.Validator = (*SyslogSettings)(nil)
