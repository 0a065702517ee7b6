package normalize

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

const benchBatch = 200

const benchNetopHeader = "Source,Session,User Id,User Name,Account Id,Entity Type,Action,Entity Id,Entity Name," +
	"Result Code,Data,Action timestamp,Action date,Environment"

// benchNetop is a record with eight keys in Data.
const benchNetop = `HOST,rs-1,700,tom.baker@example.com,5001,DEVICE,PORTAL_CONNECTION_STARTED,d-7,LON-PC-07,0,` +
	`"{""logged_on_windows_user"": ""OFFICE-karen"", ""guest_access_method"": ""Portal"", ""nrc_id"": ""H-2001"", ` +
	`""computer_name"": ""LON-PC-07"", ""public_ip"": ""192.0.2.44"", ""private_ip"": ""10.1.7.7"", ` +
	`""operating_system"": ""Windows 11 Pro"", ""nrc_version"": ""12.90""}",1735722410,2025-01-01 09:06:50,live`

const benchSofie = `<133>Mar 10 10:01:00 sofie sofie: {"type":"USER_ADDED","severity":"NOTICE","source":"WEB_ADMIN",` +
	`"ipAddress":"192.0.2.90","sourceId":"1","sourceText":"admin","user":{"username":"jiri.kun"}}`

const benchUCXHeader = "Application Id;Timestamp (Server Time Zone);Username;First name;Last name;Tenant;Action;" +
	"Client IP;UCX Suite Node;Details"

const benchUCX = `Recording;2025-02-03 09:00:00;u301;Elena;Gallo;;Play recording;10.5.0.31;UCX01;` +
	`Recording Id {a0000000-0000-4000-8000-000000000001}, Recording PBX Call Id {28700001}, ` +
	`Recording duration {00:02:10.2500000}, Recording owner username {u300}, Recording group {Support}`

const benchSyslog = `<165>1 2025-03-10T09:00:05.003Z host1.example.org sshd 123 ID47 [x@32473 iut="3" ` +
	`eventSource="App"] Accepted publickey for root from 192.0.2.1`

// benchRecords returns a batch of one record again and again, as the collectors hand it over.
func benchRecords(raw, header string, comma byte, format audit.Format) *audit.Records {
	b := audit.GetRecords("bench")
	origin := &audit.Origin{Path: "/srv/bench", Format: format, Header: []byte(header), Comma: comma}
	for i := range benchBatch {
		rec := b.Add([]byte(raw))
		rec.Origin, rec.Received = origin, time.Date(2025, 3, 11, 0, 0, 0, 0, time.UTC)
		rec.Row, rec.Offset = int64(i+1), int64(i*len(raw))
	}
	return b
}

type benchCase struct {
	name    string
	source  Source
	records *audit.Records
}

func benchCases(t testing.TB) []benchCase {
	prague, rome := testLocation(t, "Europe/Prague"), testLocation(t, "Europe/Rome")
	netop := benchRecords(benchNetop, benchNetopHeader, ',', audit.FormatCSV)
	ucx := benchRecords(benchUCX, benchUCXHeader, ';', audit.FormatCSV)
	return []benchCase{
		{"netop", Source{Product: "netop"}, netop},
		{"sofie", Source{Product: "sofie", Location: prague}, benchRecords(benchSofie, "", 0, audit.FormatSyslog)},
		{"ucx", Source{Product: "ucx", Location: rome}, ucx},
		{"syslog", Source{Product: "generic"}, benchRecords(benchSyslog, "", 0, audit.FormatSyslog)},
		{"found", Source{}, benchRecords(benchSofie, "", 0, audit.FormatAuto)},
	}
}

func BenchmarkNormalize(b *testing.B) {
	for _, c := range benchCases(b) {
		b.Run(c.name, func(b *testing.B) {
			n, err := New(Options{Catalogs: testCatalogs(b), Sources: map[string]Source{"bench": c.source}})
			require.NoError(b, err)
			dst := audit.GetEvents()
			defer dst.Release()
			b.ReportAllocs()
			b.SetBytes(int64(len(c.records.List[0].Raw)))
			for i := 0; i < b.N; i += benchBatch {
				dst.Reset()
				n.Normalize(dst, c.records)
			}
		})
	}
}

func BenchmarkLoadCatalogs(b *testing.B) {
	for range b.N {
		_, err := LoadCatalogs()
		require.NoError(b, err)
	}
}

// TestNormalizeAllocatesNothing holds the promise that memory is a matter of batches, not of events.
func TestNormalizeAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	for _, c := range benchCases(t) {
		t.Run(c.name, func(t *testing.T) {
			n, err := New(Options{Catalogs: testCatalogs(t), Sources: map[string]Source{"bench": c.source}})
			require.NoError(t, err)
			dst := audit.GetEvents()
			defer dst.Release()
			run := func() {
				dst.Reset()
				n.Normalize(dst, c.records)
			}
			run()
			allocs := testing.AllocsPerRun(50, run)
			require.LessOrEqual(t, allocs, 4.0, fmt.Sprintf("for a batch of %d events", benchBatch))
		})
	}
}
