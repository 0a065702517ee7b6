package relay

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSectionsAreCheckedAgainstEachOther: all that is wrong comes at once, with its line.
func TestSectionsAreCheckedAgainstEachOther(t *testing.T) {
	cfg := parse(t, `
version: 1
collect:
  a: {type: file, paths: ["/logs/*.json"], product: netopp}
  b: {type: syslog, listen: ["tcp://127.0.0.1:5514"], max_message: 8MiB, product: sofiee}
queue: {max_size: 16MiB}
forward:
  one: {type: file, path: /logs/out.json}
  two: {type: file, path: /logs/out.json}
  three: {type: syslog, endpoints: ["tcp://127.0.0.1:5514"]}
`)
	_, err := New(cfg, Options{Logger: slog.New(slog.DiscardHandler)})
	for _, want := range []string{
		`line 4: collect.a.product: "netopp" has no catalogue: use`,
		`line 5: collect.b.product: "sofiee" has no catalogue: use`,
		`line 5: collect.b.max_message: records of 8MiB need a queue.max_size of 32MiB or more, it is 16MiB`,
		`line 8: forward.one.path: collector a reads this file`,
		`line 9: forward.two.path: destination one writes the same file`,
		`line 10: forward.three.endpoints: collector b listens on tcp://127.0.0.1:5514`,
	} {
		require.ErrorContains(t, err, want)
	}

	cfg = parse(t, `
version: 1
collect:
  a: {type: file, paths: ["/logs/*.json"], exclude: ["out.json"]}
  b: {type: syslog, listen: ["tcp://127.0.0.1:5514"]}
forward:
  one: {type: file, path: /logs/out.json}
  two: {type: syslog, endpoints: ["tcp://127.0.0.1:5515", "udp://127.0.0.1:5514"]}
`)
	_, err = New(cfg, Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
}
