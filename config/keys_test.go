package config

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKeysDescribeTheStructs(t *testing.T) {
	byPath := make(map[string]Key)
	var order []string
	for _, k := range Keys(testKinds()) {
		require.NotContains(t, byPath, k.Path)
		byPath[k.Path] = k
		order = append(order, k.Path)
	}
	require.Equal(t, []string{
		"version", "relay", "relay.id", "relay.memory_limit", "data_dir", "collect", "collect.file", "collect.file.type",
		"collect.file.product", "collect.file.timezone", "collect.file.paths",
	}, order[:11])
	for _, want := range []Key{
		{Path: "version", Type: "number", Required: true, Doc: "Format of this file, always 1."},
		{Path: "relay", Type: "section", Doc: "This relay itself."},
		{Path: "relay.id", Type: "string", Default: "the host name", Doc: "Name of this relay in every event."},
		{Path: "queue.max_size", Type: "size", Default: "4GiB", Doc: "Disk space that the queue may take."},
		{
			Path: "queue.keep_delivered", Type: "duration", Default: "24h",
			Doc: "How long delivered events are kept for a replay.",
		},
		{
			Path: "queue.warn_at", Type: "share", Default: "80%",
			Doc: "Share of max_size, in events not delivered, from which on health is yellow.",
		},
		{Path: "collect.nothing", Type: "section", Doc: "Has no settings."},
		{Path: "collect.nothing.type", Type: "string", Required: true, Doc: "Kind of collector."},
		{Path: "collect.file.paths", Type: "list of strings", Required: true, Doc: "Globs of the files to follow."},
		{Path: "collect.file.comma", Type: "string", Default: ",", Doc: "Separator of a CSV file."},
		{Path: "collect.file.from_start", Type: "bool", Default: "false", Doc: "Read what is there already."},
		{Path: "collect.syslog.listen", Type: "list of URLs", Required: true, OneOf: []string{"udp", "tcp", "tls", "unix"}},
		{Path: "collect.syslog.max_connections", Type: "number", Default: "100", Doc: "Connections at a time."},
		{
			Path: "collect.syslog.framing", Type: "string", Default: "auto",
			OneOf: []string{"newline", "octet_counting", "auto"},
		},
		{Path: "collect.syslog.tls", Type: "section", Doc: "Certificates."},
		{Path: "collect.syslog.tls.cert_file", Type: "string", Required: true},
		{
			Path: "forward.file.format", Type: "string", Default: "cef", OneOf: []string{"cef", "json"},
			Doc: "Format of the events: cef or json.",
		},
		{Path: "forward.syslog.token", Type: "secret"},
		{Path: "forward.syslog.headers", Type: "map of secrets"},
		{Path: "forward.syslog.rules", Type: "list of sections"},
		{Path: "forward.syslog.rules[].field", Type: "string", Required: true},
		{Path: "forward.syslog.retry", Type: "duration"},
		{Path: "forward.syslog.zone", Type: "time zone"},
	} {
		require.Equal(t, want, byPath[want.Path])
	}
}

func TestKeysInFile(t *testing.T) {
	keys, err := KeysInFile([]byte(minimal + "normalize:\n  rules: [{a: 1}, {b: 1}]\n# queue: 1\n"))
	require.NoError(t, err)
	require.Equal(t, []string{
		"collect", "collect.file", "collect.file.paths", "collect.file.type", "forward", "forward.file", "forward.file.path",
		"forward.file.type", "normalize", "normalize.rules", "normalize.rules[].a", "normalize.rules[].b", "version",
	}, keys)

	_, err = KeysInFile([]byte("collect:\n  a: {}\n"))
	require.EqualError(t, err, "list the keys: line 2: collect.a has no type")
	_, err = KeysInFile([]byte("a: b: c"))
	require.ErrorContains(t, err, "list the keys: file:1:1: ")
}

const referenceFile = `
version: 1
relay: {id: prg-01, memory_limit: 256MiB}
data_dir: /var/lib/auditrelay
collect:
  a: {type: file, product: x, timezone: UTC, paths: [], max_record: 1MiB, poll: 1s, comma: ",", from_start: false}
  b:
    {type: syslog, product: x, timezone: UTC, listen: [], max_connections: 1, framing: auto,
     tls: {cert_file: a, key_file: b, pins: []}}
  c: {type: nothing, product: x, timezone: UTC}
normalize: {catalogs: []}
queue: {max_size: 4GiB, keep_delivered: 24h, warn_at: 80%, when_full: block}
admin: {socket: /run/x}
forward:
  d: {type: file, format: cef, start_at: now, path: x}
  e: {type: syslog, format: cef, start_at: now, endpoints: [], token: "", headers: {x: y}, labels: {a: b},
    retry: 1s, zone: UTC, rules: [{field: x}, {is: y}], facility: 1}
`

func TestCompareKeys(t *testing.T) {
	require.NoError(t, CompareKeys([]byte(referenceFile), testKinds()))
	err := CompareKeys([]byte(referenceFile+"control: {listen: x}\n"), testKinds())
	require.EqualError(t, err, "the file has the key control, which no struct has\n"+
		"the file has the key control.listen, which no struct has")

	kinds := testKinds()
	kinds.Forward[1].Settings = func() any {
		return &struct {
			writeSettings `yaml:"-"`
			Mode          string `yaml:"mode"`
		}{}
	}
	err = CompareKeys([]byte(referenceFile), kinds)
	require.EqualError(t, err, "the file lacks the key forward.file.mode (string)\n"+
		"the file has the key forward.file.path, which no struct has")
}
