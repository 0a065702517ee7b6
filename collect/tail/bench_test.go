package tail

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

const (
	benchLine = "Nov  5 09:12:33 host1 sshd[4711]: Accepted publickey for root from 192.0.2.80 port 50222 ssh2\n"
	benchRow  = `portal,ps-100,700,tom.baker@example.com,5001,USER,LOGIN,700,Tom Baker,0,"{""user"": {""id"": 700, ` +
		`""email"": ""tom.baker@example.com""}, ""public_ip"": ""198.51.100.8"", ""user_agent"": ""Mozilla/5.0""}",` +
		"1735722000,2025-01-01 09:00:00,live\r\n"
	benchHeader = "Source,Session,User Id,User Name,Account Id,Entity Type,Action,Entity Id," +
		"Entity Name,Result Code,Data,Action timestamp,Action date,Environment\r\n"
	benchRows = 200_000
)

func BenchmarkTailLines(b *testing.B) { benchmarkTail(b, "a.log", "", benchLine) }

func BenchmarkTailCSV(b *testing.B) { benchmarkTail(b, "a.csv", benchHeader, benchRow) }

func benchmarkTail(b *testing.B, name, header, line string) {
	path := benchFile(b, name, header, line)
	b.ReportAllocs()
	for b.Loop() {
		records := 0
		f, err := New(Options{Paths: []string{path}, Once: true})
		require.NoError(b, err)
		err = f.Run(b.Context(), func(_ context.Context, batch *audit.Records) (audit.Number, error) {
			records += len(batch.List)
			return 0, nil
		})
		require.NoError(b, err)
		require.Equal(b, benchRows, records)
	}
	b.ReportMetric(benchRows*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkPlainRead is what the two are measured against: the same file read in the same blocks, and line ends
// counted.
func BenchmarkPlainRead(b *testing.B) {
	path := benchFile(b, "a.log", "", benchLine)
	buf := make([]byte, blockBytes)
	for b.Loop() {
		file, err := os.Open(path)
		require.NoError(b, err)
		lines := 0
		for {
			n, err := file.Read(buf)
			if err != nil {
				break
			}
			for p := buf[:n]; ; {
				i := bytes.IndexByte(p, '\n')
				if i < 0 {
					break
				}
				lines++
				p = p[i+1:]
			}
		}
		require.Equal(b, benchRows, lines)
		require.NoError(b, file.Close())
	}
	b.ReportMetric(benchRows*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

func benchFile(b *testing.B, name, header, line string) string {
	path := filepath.Join(b.TempDir(), name)
	require.NoError(b, os.WriteFile(path, append([]byte(header), bytes.Repeat([]byte(line), benchRows)...), 0o600))
	return path
}

// TestReadingAllocatesNothingPerRecord: what is allocated does not grow with the records.
func TestReadingAllocatesNothingPerRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.csv")
	write(t, path, benchHeader+string(bytes.Repeat([]byte(benchRow), 20_000)))
	take := func(context.Context, *audit.Records) (audit.Number, error) { return 0, nil }
	allocs := testing.AllocsPerRun(3, func() {
		f, err := New(Options{Paths: []string{path}, Once: true})
		require.NoError(t, err)
		require.NoError(t, f.Run(t.Context(), take))
	})
	require.Less(t, allocs, 1000.0)
}
