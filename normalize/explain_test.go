package normalize

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

func explain(t *testing.T, n *Normalizer, src *audit.Records) []Explanation {
	t.Helper()
	dst := audit.GetEvents()
	got := n.Explain(dst, src)
	require.Len(t, got, len(src.List))
	// The same code: the events are the same, explained or not.
	plain := events(t, n, src)
	for i := range plain {
		require.Equal(t, string(plain[i].AppendBinary(nil)), string(dst.List[i].AppendBinary(nil)))
	}
	return got
}

func TestExplainSaysHowAnEventCameAbout(t *testing.T) {
	n := testNormalizer(t, nil)
	x := explain(t, n, csvRecords(t, "s", ',', []byte(benchNetopHeader+"\n"+
		`HOST,,,,5001,DEVICE,GATEWAY LOGIN,d-9,GW,2,"{""gateway_login_user"": ""tom""}",1735722910,`+
		"2025-01-01 09:15:20,live\n")))[0]
	require.Equal(t, "netop", x.Product)
	require.Equal(t, "found by its columns", x.By)
	require.Equal(t, "csv", x.Format)
	require.Equal(t, "DEVICE/GATEWAY_LOGIN", x.Class)
	require.Equal(t, "DEVICE/GATEWAY_LOGIN", x.Entry)
	require.True(t, x.Known)
	require.Equal(t, []string{"catalog: info", "result code raises to error"}, x.Severity)
	require.Equal(t, "failure by result code 2 of this event", x.Outcome)
	require.Equal(t, []string{
		`Action timestamp: "1735722910" by layout unix, zone UTC`,
		"Action date says 2025-01-01T09:15:20Z: they contradict each other",
		"2025-01-01T09:15:10Z",
	}, x.Time)
	require.Contains(t, x.Marks, "time_mismatch")
	require.Contains(t, x.Facts, "JSON in Data was taken apart")
	require.Contains(t, x.Fields, FieldTrace{From: "data.gateway_login_user", Value: "tom", To: "actor.name"})
	require.Contains(t, x.Fields, FieldTrace{From: "(catalogue)", Value: "guest", To: "actor.type"})
	require.Contains(t, x.Fields, FieldTrace{
		From: "Action date", Value: "2025-01-01 09:15:20", To: "attributes.Action date",
	})
}

func TestExplainSaysWhatWasGuessed(t *testing.T) {
	n := testNormalizer(t, map[string]Source{"sofie": {Product: "sofie", Location: testLocation(t, "Europe/Prague")}})
	x := explain(t, n, lineRecords("sofie", audit.FormatSyslog,
		`<134>Mar 10 10:00:05 h sofie: {"type":"EMAIL_SENT","severity":"ERROR","source":"WORKER"}`,
		`<134>Mar 10 10:00:05 h sofie: {"type":"EMAIL_SENT","level":"odd","source":"WOR`,
		`no header`,
		`<134>Mar 10 10:00:05 h sofie: {"type":"EMAIL_SENT","type":"EMAIL_QUEUED","source":"WORKER"}`))
	require.Equal(t, "the collector's setting", x[0].By)
	require.Equal(t, []string{"record: error", "catalog has info: the record's holds"}, x[0].Severity)
	require.Equal(t, []string{`syslog header: RFC 3164, priority 134, host "h", app "sofie"`}, x[0].Facts)
	require.Equal(t, []string{
		`syslog header: "Mar 10 10:00:05", zone Europe/Prague if it has none`, "2025-03-10T09:00:05Z",
	}, x[0].Time)
	require.Equal(t, "success by the catalogue's entry", x[0].Outcome)

	require.Contains(t, x[1].Facts, "broken JSON: a text does not end")
	require.Equal(t, []string{`record: "odd" is no severity`, "catalog: info"}, x[1].Severity)
	require.Subset(t, x[1].Marks, []string{"truncated", "unreadable", "severity_differs"})
	require.NotContains(t, x[1].Marks, "severity_filled", "the record has one")

	require.Equal(t, "unreadable", x[2].Class)
	require.Empty(t, x[2].Entry)
	require.Equal(t, []string{"none in the record: the receive time was taken", "2025-07-02T12:00:00Z"}, x[2].Time)

	require.Contains(t, x[3].Facts, "a name stands there twice: its first value holds")
	require.Contains(t, x[3].Marks, "severity_filled")
}
