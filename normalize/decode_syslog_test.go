package normalize

import (
	"fmt"
	"strings"
	"testing"

	syslog "github.com/influxdata/go-syslog/v3"
	"github.com/influxdata/go-syslog/v3/rfc3164"
	"github.com/influxdata/go-syslog/v3/rfc5424"
	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

// headerText puts a header on one line: form, priority, time, host, app, process, message id, data, message.
func headerText(h *syslogHeader) string {
	return fmt.Sprintf("%s %d [%s] %s %s %s %s %s|%s", h.form[4:], h.priority, h.timeText, dash(h.host),
		dash(h.app), dash(h.procID), dash(h.msgID), dash(h.data), h.message)
}

func dash(b []byte) string {
	if len(b) == 0 {
		return "-"
	}
	return string(b)
}

// TestSyslogHeaders reads what real devices send.
func TestSyslogHeaders(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		// RFC 3164.
		{
			"<34>Oct 11 22:14:15 mymachine su: 'su root' failed",
			"3164 34 [Oct 11 22:14:15] mymachine su - - -|'su root' failed",
		},
		{"<34>Oct  1 22:14:15 h sshd[123]: x", "3164 34 [Oct  1 22:14:15] h sshd 123 - -|x"},
		{"<34>Oct 01 22:14:15 h app: x", "3164 34 [Oct 01 22:14:15] h app - - -|x"},
		{"<34>oct 11 22:14:15 h app: x", "3164 34 [oct 11 22:14:15] h app - - -|x"},
		{"<34>Oct 11 22:14:15\th\tapp: x\ty", "3164 34 [Oct 11 22:14:15] h app - - -|x\ty"},
		{"<34>Oct 11 22:14:15  h  app:  x", "3164 34 [Oct 11 22:14:15] h app - - -| x"},
		{"<34>Oct 11 22:14:15.123 h app: x", "3164 34 [Oct 11 22:14:15.123] h app - - -|x"},
		{"<34>Oct 11 22:14:15 h app: two\nlines", "3164 34 [Oct 11 22:14:15] h app - - -|two\nlines"},
		{"<34>Oct 11 22:14:15 sshd[123]: x", "3164 34 [Oct 11 22:14:15] - sshd 123 - -|x"},
		{"<34>Oct 11 22:14:15 app: x", "3164 34 [Oct 11 22:14:15] - app - - -|x"},
		{"<34>Oct 11 22:14:15 fe80::1 app: x", "3164 34 [Oct 11 22:14:15] fe80::1 app - - -|x"},
		{"<34>Oct 11 22:14:15 10.0.0.1 app: x", "3164 34 [Oct 11 22:14:15] 10.0.0.1 app - - -|x"},
		{
			"<34>Oct 11 22:14:15 h " + strings.Repeat("t", 40) + ": x",
			"3164 34 [Oct 11 22:14:15] h " + strings.Repeat("t", 40) + " - - -|x",
		},
		{"<34>Oct 11 22:14:15 h no tag here", "3164 34 [Oct 11 22:14:15] h - - - -|no tag here"},
		{"<34>Oct 11 22:14:15 h", "3164 34 [Oct 11 22:14:15] h - - - -|"},
		{"<34>Oct 11 2023 22:14:15 h app: x", "3164 34 [Oct 11 2023 22:14:15] h app - - -|x"},
		{"<34>2023 Oct 11 22:14:15 h app: x", "3164 34 [2023 Oct 11 22:14:15] h app - - -|x"},
		{"<34>2023-10-11T22:14:15.003Z h app[7]: x", "3164 34 [2023-10-11T22:14:15.003Z] h app 7 - -|x"},
		{
			"<34>2023-10-11T22:14:15.123456789+02:00 h app: x",
			"3164 34 [2023-10-11T22:14:15.123456789+02:00] h app - - -|x",
		},
		{"<34>2023-10-11 22:14:15 h app: x", "3164 34 [2023-10-11 22:14:15] h app - - -|x"},
		{"<34>app: no time", "3164 34 [] - app - - -|no time"},
		{"<34>just words", "3164 34 [] - - - - -|just words"},
		{"<34>http://host/path", "3164 34 [] - - - - -|http://host/path"},
		{"<34>", "3164 34 [] - - - - -|"},
		{"<34>Oct 32 22:14:15 h app: x", "3164 34 [] - - - - -|Oct 32 22:14:15 h app: x"},
		{"<34>Oct 11 22:14:15 h {\"a\":1}", "3164 34 [Oct 11 22:14:15] h - - - -|{\"a\":1}"},
		{"<34>Oct 11 22:14:15 {\"a\":1}", "3164 34 [Oct 11 22:14:15] - - - - -|{\"a\":1}"},
		{"<34>Oct 11 22:14:15 h app:{\"a\":1}", "3164 34 [Oct 11 22:14:15] h app - - -|{\"a\":1}"},
		{"<34>Oct 11 22:14:15 h CEF:0|a|b|c|d|e|5|", "3164 34 [Oct 11 22:14:15] h - - - -|CEF:0|a|b|c|d|e|5|"},
		{"<34>Oct 11 22:14:15 CEF:0|a|b|c|d|e|5|", "3164 34 [Oct 11 22:14:15] - - - - -|CEF:0|a|b|c|d|e|5|"},
		{"<34>Oct 11 22:14:15 h LEEF:1.0|a", "3164 34 [Oct 11 22:14:15] h - - - -|LEEF:1.0|a"},
		{"Oct 11 22:14:15 h app: x", "3164 -1 [Oct 11 22:14:15] h app - - -|x"},
		{"no header", "eader -1 [] - - - - -|no header"},
		{"<192>Oct 11 22:14:15 h app: x", "3164 -1 [Oct 11 22:14:15] h app - - -|x"},
		{"<999>x", "3164 -1 [] - - - - -|x"},
		{"<0>Oct 11 22:14:15 h app: x", "3164 0 [Oct 11 22:14:15] h app - - -|x"},
		{"<>x", "eader -1 [] - - - - -|<>x"},
		{"<1234>x", "eader -1 [] - - - - -|<1234>x"},
		{
			"<189>45: *Oct 11 22:14:15.123: %SYS-5-CONFIG_I: Configured",
			"3164 189 [Oct 11 22:14:15.123] - SYS-5-CONFIG_I - - -|Configured",
		},
		{
			"<189>000045: Oct 11 22:14:15.123 UTC: %SYS-5-CONFIG_I: Conf",
			"3164 189 [Oct 11 22:14:15.123] - SYS-5-CONFIG_I - - -|Conf",
		},
		{
			"<166>Oct 11 2023 22:14:15: %ASA-6-302013: Built",
			"3164 166 [Oct 11 2023 22:14:15] - ASA-6-302013 - - -|Built",
		},
		{
			"<166>Oct 11 2023 22:14:15 fw1 : %ASA-6-302013: Built",
			"3164 166 [Oct 11 2023 22:14:15] fw1 ASA-6-302013 - - -|Built",
		},
		{
			"<134>1 1563249630.774247316 MX84 flows allow src=1.2.3.4",
			"3164 134 [1563249630.774247316] MX84 - - - -|flows allow src=1.2.3.4",
		},
		{
			"<189>date=2023-10-11 time=22:14:15 devname=\"F\"",
			"3164 189 [] - - - - -|date=2023-10-11 time=22:14:15 devname=\"F\"",
		},
		{
			"<14>Oct 11 22:14:15 PA-220 1,2023/10/11 22:14:15,0123,TRAFFIC",
			"3164 14 [Oct 11 22:14:15] PA-220 - - - -|1,2023/10/11 22:14:15,0123,TRAFFIC",
		},
		// RFC 5424.
		{
			"<165>1 2003-10-11T22:14:15.003Z h app 8710 ID47 - \xef\xbb\xbfmsg",
			"5424 165 [2003-10-11T22:14:15.003Z] h app 8710 ID47 -|msg",
		},
		{
			"<165>1 2003-10-11T22:14:15.003Z h app 8710 ID47 [a@1 b=\"c\"][d] x y",
			"5424 165 [2003-10-11T22:14:15.003Z] h app 8710 ID47 [a@1 b=\"c\"][d]|x y",
		},
		{
			"<165>1 2003-10-11T22:14:15.003Z h app 8710 ID47 [a@1 b=\"c\\\"]\\]\"]",
			"5424 165 [2003-10-11T22:14:15.003Z] h app 8710 ID47 [a@1 b=\"c\\\"]\\]\"]|",
		},
		{"<165>1 - - - - - -", "5424 165 [] - - - - -|"},
		{"<165>1 - - - - - - m", "5424 165 [] - - - - -|m"},
		{
			"<165>1 2003-10-11T22:14:15.123456789+0200 h app - - no data here",
			"5424 165 [2003-10-11T22:14:15.123456789+0200] h app - - -|no data here",
		},
		{
			"<165>1 2003-10-11t22:14:60z h app - - [broken x=1] m",
			"5424 165 [2003-10-11t22:14:60z] h app - - -|[broken x=1] m",
		},
		{"<165>1 2003-13-11T22:14:15Z h app - - - m", "5424 165 [2003-13-11T22:14:15Z] h app - - -|m"},
		{
			"<165>1 2003-10-11T22:14:15Z " + strings.Repeat("h", 300) + " a p m - x",
			"5424 165 [2003-10-11T22:14:15Z] " + strings.Repeat("h", 300) + " a p m -|x",
		},
		{"<165>1 2003-10-11T22:14:15Z h", "5424 165 [2003-10-11T22:14:15Z] h - - - -|"},
		{"<165>1 file was deleted", "3164 165 [] - - - - -|1 file was deleted"},
		{
			"<165>1 2003-10-11T22:14:15Z h app - - [a@1 b=\"x\ny\"][c@2 d=\"\"] m\xff\xfe",
			"5424 165 [2003-10-11T22:14:15Z] h app - - [a@1 b=\"x\ny\"][c@2 d=\"\"]|m\xff\xfe",
		},
	} {
		var h syslogHeader
		h.parse([]byte(c.text))
		require.Equal(t, c.want, headerText(&h), c.text)
	}
}

func TestSyslogMessageIsNeverLost(t *testing.T) {
	n := testNormalizer(t, nil)
	evs := events(t, n, lineRecords("s", audit.FormatSyslog, "<34>Oct 11 22:14:15 h app: tail\x00",
		"<34>Oct 11 22:14:15 h app: tail\n", "<34>Oct 11 22:14:15 h app: tail\r\n\x00"))
	for i := range evs {
		require.Equal(t, "tail", field(t, &evs[i], "message"))
		require.False(t, evs[i].Marks.Has(audit.MarkPriorityMissing))
	}
	evs = events(t, n, lineRecords("s", audit.FormatSyslog, "hello", "<999>hello"))
	for i := range evs {
		require.True(t, evs[i].Marks.Has(audit.MarkPriorityMissing))
		require.Equal(t, "hello", field(t, &evs[i], "message"))
	}
	// A file's lines have no priority by nature.
	ev := &events(t, n, lineRecords("s", audit.FormatAuto, "Oct 11 22:14:15 h app: x"))[0]
	require.Equal(t, "h", field(t, ev, "host.name"))
	require.False(t, ev.Marks.Has(audit.MarkPriorityMissing))
}

func TestManyParametersAreCutAndMarked(t *testing.T) {
	n := testNormalizer(t, nil)
	text := "<34>1 - - - - - [x@1" + strings.Repeat(` p="v"`, 2000) + "] the message"
	ev := &events(t, n, lineRecords("s", audit.FormatSyslog, text))[0]
	require.True(t, ev.Marks.Has(audit.MarkFieldsCut))
	require.Equal(t, "v", string(ev.Attribute("syslog.sd.x@1.p.900")))
}

// FuzzSyslog compares with influxdata/go-syslog: what that reads strictly, ours reads the same.
func FuzzSyslog(f *testing.F) {
	for _, seed := range []string{
		"<34>Oct 11 22:14:15 mymachine su: 'su root' failed", "<34>Oct  1 22:14:15 h sshd[123]: x",
		"<165>1 2003-10-11T22:14:15.003Z h app 8710 ID47 [a@1 b=\"c\\\"\"] msg", "<165>1 - - - - - -",
		"<0>1 2003-10-11T22:14:15+02:00 h - - - [a][b] x",
		"<34>Oct 11 22:14:15 h app[]: x", "<34>Oct 11 22:14:15 h : x", "<13>Feb 29 00:00:00 a b: c",
	} {
		f.Add([]byte(seed))
	}
	strict5424, strict3164 := rfc5424.NewParser(), rfc3164.NewParser()
	f.Fuzz(func(t *testing.T, text []byte) {
		var h syslogHeader
		h.parse(text)
		require.Contains(t, string(text), string(h.message))
		if m, err := strict5424.Parse(text); err == nil && m != nil {
			compare5424(t, text, &h, m.(*rfc5424.SyslogMessage))
			return
		}
		if m, err := strict3164.Parse(text); err == nil && m != nil {
			compare3164(t, text, &h, m.(*rfc3164.SyslogMessage))
		}
	})
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

func compare5424(t *testing.T, raw []byte, h *syslogHeader, m *rfc5424.SyslogMessage) {
	if m.Version != 1 || m.Timestamp != nil && m.Timestamp.Year() == 0 {
		return // RFC 5424 has version 1 only; and nothing happened in the year 0
	}
	compareBase(t, raw, h, &m.Base)
	require.Equal(t, "RFC 5424", h.form, "%q", raw)
	require.Equal(t, text(m.MsgID), string(h.msgID), "%q", raw)
	require.Equal(t, strings.TrimPrefix(text(m.Message), "\xef\xbb\xbf"), string(h.message), "%q", raw)
	if m.Timestamp != nil {
		require.True(t, h.timeOK, "%q", raw)
		require.Equal(t, m.Timestamp.Unix(), h.time.wall()-int64(h.time.offset), "%q", raw)
		require.Equal(t, m.Timestamp.Nanosecond(), h.time.nanos, "%q", raw)
	}
	if m.StructuredData == nil {
		return
	}
	got := map[string]map[string]string{}
	structuredData(h.data, func(id, name, value []byte, escaped bool) {
		if got[string(id)] == nil {
			got[string(id)] = map[string]string{}
		}
		if escaped {
			value = unquote(nil, value)
		}
		got[string(id)][string(name)] = string(value) // the library keeps the last of two
	})
	for id, params := range *m.StructuredData {
		if len(params) > 0 {
			require.Equal(t, params, got[id], "%q", raw)
		}
	}
}

func compare3164(t *testing.T, raw []byte, h *syslogHeader, m *rfc3164.SyslogMessage) {
	// The library takes a tag for a host name and cuts odd tags; both are known (reliability notes of the project).
	host := text(m.Hostname)
	if host == "" || strings.ContainsAny(host, ":[]{}=|\"%<") || text(m.Appname) == "" ||
		strings.ContainsAny(text(m.Appname), ":{=\"%") ||
		strings.ContainsAny(string(raw), "\t\r\n\x00") || m.Timestamp == nil || text(m.Message) == "" ||
		strings.HasPrefix(text(m.Appname), "CEF") || strings.HasPrefix(text(m.Appname), "LEEF") || len(host) > hostLengthMax {
		return
	}
	if m.ProcID == nil && !strings.Contains(string(raw), text(m.Appname)+": ") {
		return
	}
	if m.ProcID != nil && !strings.Contains(string(raw), "["+*m.ProcID+"]: ") || strings.Contains(text(m.ProcID), " ") {
		return
	}
	if strings.HasSuffix(strings.TrimSpace(string(raw)), ":") {
		return // a tag and nothing behind it: the library takes the tag for the message as well
	}
	compareBase(t, raw, h, &m.Base)
	require.Equal(t, strings.TrimSpace(text(m.Message)), strings.TrimSpace(string(h.message)), "%q", raw)
	require.Equal(t, [5]int{int(m.Timestamp.Month()), m.Timestamp.Hour(), m.Timestamp.Minute(), m.Timestamp.Second()},
		[5]int{h.time.month, h.time.hour, h.time.minute, h.time.sec}, "%q", raw)
}

func compareBase(t *testing.T, raw []byte, h *syslogHeader, m *syslog.Base) {
	require.Equal(t, int(*m.Priority), h.priority, "%q", raw)
	require.Equal(t, text(m.Hostname), string(h.host), "%q", raw)
	require.Equal(t, text(m.Appname), string(h.app), "%q", raw)
	require.Equal(t, text(m.ProcID), string(h.procID), "%q", raw)
}
