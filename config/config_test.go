package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const minimal = `version: 1
collect:
  logs: {type: file, paths: [/var/log/a]}
forward:
  archive: {type: file, path: /tmp/x}
`

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	cfg, err := parse("x", []byte(text), testKinds(), testMachine())
	require.NoError(t, err)
	return cfg
}

func TestMinimalFileGetsTheDefaults(t *testing.T) {
	require.Equal(t, &Config{
		Version: 1,
		Relay:   Relay{ID: "prg-01.example.org", MemoryLimit: 256 << 20},
		DataDir: "/var/lib/auditrelay",
		Collect: []Collector{{
			ID: "logs", Type: "file", Line: 3,
			Settings: &fileSettings{Paths: []string{"/var/log/a"}, MaxRecord: 1 << 20, Poll: Duration(time.Second), Comma: ","},
		}},
		Queue: Queue{MaxSize: 4 << 30, KeepDelivered: Duration(24 * time.Hour), WarnAt: 80, WhenFull: "block"},
		Admin: Admin{Socket: "/run/auditrelay/control.sock"},
		Forward: []Destination{{
			ID: "archive", Type: "file", Format: "cef", StartAt: "now", Line: 5, Settings: &writeSettings{Path: "/tmp/x"},
		}},
	}, mustParse(t, minimal))
}

const full = `version: 1
relay: {id: prg-01, memory_limit: 512MiB}
data_dir: /data
collect:
  net:
    type: syslog
    listen: ["udp://127.0.0.1:${env:PORT}", "unix:///run//x.sock"]
    product: sofie
    timezone: Europe/Prague
    max_connections: ${env:PORT}
    framing: newline
    tls: {cert_file: c, key_file: k, pins: [a, b]}
  idle: {type: nothing}
  a-file: &base {type: file, paths: ["/a b", "/${env:TOKEN}", '/$${env:TOKEN}'], comma: ";", from_start: "${env:ON}"}
  b-file: *base
normalize: {catalogs: [/etc/c, d]}
queue:
  max_size: 1TiB
  keep_delivered: 1d12h
  warn_at: 95%
  when_full: shed
admin: {socket: /run/audit/x.sock}
forward:
  soc:
    type: syslog
    endpoints: ["${env:URL}", "https://[::1]:8088/x?y=1"]
    format: json
    start_at: oldest
    token: Bearer ${file:/secrets/token}
    headers: {a: "${cred:hec}", b: "12"}
    labels: {X-Odd Key: v}
    rules: [{field: actor.name, is: [root]}, {field: host.name}]
    retry: 5s
    zone: UTC
    facility: 23
`

func TestFullFile(t *testing.T) {
	cfg := mustParse(t, full)
	require.Equal(t, Relay{ID: "prg-01", MemoryLimit: 512 * MiB}, cfg.Relay)
	require.Equal(t, Normalize{Catalogs: []string{"/etc/c", "d"}}, cfg.Normalize)
	require.Equal(t, Queue{MaxSize: TiB, KeepDelivered: 36 * hour, WarnAt: 95, WhenFull: "shed"}, cfg.Queue)
	require.Equal(t, Admin{Socket: "/run/audit/x.sock", SocketGiven: true}, cfg.Admin)

	ids := []string{cfg.Collect[0].ID, cfg.Collect[1].ID, cfg.Collect[2].ID, cfg.Collect[3].ID}
	require.Equal(t, []string{"a-file", "b-file", "idle", "net"}, ids, "sorted by id")
	a, b := cfg.Collect[0].Settings.(*fileSettings), cfg.Collect[1].Settings.(*fileSettings)
	require.Equal(t, []string{"/a b", "/tok-7f3a", "/${env:TOKEN}"}, a.Paths)
	require.True(t, a.FromStart)
	require.Equal(t, a, b, "an alias is read like what it stands for")
	require.NotSame(t, a, b)
	require.Nil(t, cfg.Collect[2].Settings)

	net := cfg.Collect[3]
	require.Equal(t, "sofie", net.Product)
	require.Equal(t, "Europe/Prague", net.Timezone.Location().String())
	require.Equal(t, &listenSettings{
		Listen: []URL{{Scheme: "udp", Host: "127.0.0.1", Port: 5514}, {Scheme: "unix", Path: "/run/x.sock"}},
		common: common{MaxConnections: 5514, Framing: "newline"},
		TLS:    &tlsSettings{CertFile: "c", KeyFile: "k", Pins: []string{"a", "b"}},
	}, net.Settings)

	soc := cfg.Forward[0]
	require.Equal(t, "json oldest", soc.Format+" "+soc.StartAt)
	s := soc.Settings.(*sendSettings)
	require.Equal(t, "tcp://siem.example.org:6514", s.Endpoints[0].String())
	require.Equal(t, URL{Scheme: "https", Host: "::1", Port: 8088, Path: "/x", Query: "y=1"}, s.Endpoints[1])
	require.Equal(t, "Bearer from-a-file", s.Token.Reveal())
	require.Equal(t, "from-systemd", s.Headers["a"].Reveal())
	require.Equal(t, "12", s.Headers["b"].Reveal())
	require.Equal(t, map[string]string{"X-Odd Key": "v"}, s.Labels)
	require.Equal(t, []rule{{Field: "actor.name", Is: []string{"root"}}, {Field: "host.name"}}, s.Rules)
	require.Equal(t, 5*time.Second, time.Duration(*s.Retry))
	require.Equal(t, time.UTC, s.Zone.Location())
	require.Equal(t, uint8(23), s.Facility)
}

func TestUnsetTimezoneIsLeftToTheMachine(t *testing.T) {
	zone := mustParse(t, minimal).Collect[0].Timezone
	require.True(t, zone.IsZero())
	require.Nil(t, zone.Location())
}

func TestByteOrderMarkAndCRLF(t *testing.T) {
	cfg := mustParse(t, "\ufeff"+strings.ReplaceAll(minimal, "\n", "\r\n"))
	require.Equal(t, 3, cfg.Collect[0].Line)
	require.Equal(t, "/tmp/x", cfg.Forward[0].Settings.(*writeSettings).Path)
}

func TestLoadReadsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auditrelay.yaml")
	require.NoError(t, os.WriteFile(path, []byte(minimal), 0o600))
	cfg, err := Load(path, testKinds())
	require.NoError(t, err)
	require.NotEmpty(t, cfg.Relay.ID, "the machine's host name")

	require.NoError(t, os.WriteFile(path, []byte(minimal+"x: 1\n"), 0o600))
	_, err = Load(path, testKinds())
	require.ErrorContains(t, err, path+`:6:1: unknown key "x": `)
}

func TestHostNameThatCannotBeAnID(t *testing.T) {
	for name, want := range map[string]string{
		"my host": `x:1:1: relay.id: the host name "my host" cannot be a relay's id: set relay.id`,
		"":        `x:1:1: relay.id: the host name "" cannot be a relay's id: set relay.id`,
	} {
		env := testMachine()
		env.hostname = func() (string, error) { return name, nil }
		_, err := parse("x", []byte(minimal), testKinds(), env)
		require.EqualError(t, err, want)
	}
	env := testMachine()
	env.hostname = func() (string, error) { return "", os.ErrPermission }
	_, err := parse("x", []byte(minimal), testKinds(), env)
	require.EqualError(t, err, "x:1:1: relay.id: the host name is not known (permission denied): set relay.id")
}

func TestBrokenSettingsStructEndsTheProgram(t *testing.T) {
	for name, settings := range map[string]any{
		"no tag": &struct{ X int }{},
		"unexported": &struct {
			x int `yaml:"x"`
		}{},
		"no pointer": struct{}{},
		"key taken": &struct {
			Type int `yaml:"type"`
		}{},
		"type not read": &struct {
			X chan int `yaml:"x"`
		}{},
		"bound not read": &struct {
			X Bytes `yaml:"x" min:"much"`
		}{},
	} {
		kinds := testKinds()
		kinds.Collect[0].Settings = func() any { return settings }
		text := "version: 1\ncollect: {a: {type: file, x: 1B}}\nforward: {b: {type: file, path: x}}\n"
		require.Panics(t, func() { _, _ = parse("x", []byte(text), kinds, testMachine()) }, name)
	}
}
