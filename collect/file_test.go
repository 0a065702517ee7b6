package collect

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/config"
)

func TestFileCollector(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.csv")
	require.NoError(t, os.WriteFile(path, []byte("A;B\n1;\"x\ny\"\n\n2;z\n"), 0o600))
	settings := NewFileSettings()
	settings.Paths = []string{path, filepath.Join(dir, "missing.log"), filepath.Join(dir, "*.json")}
	settings.PollInterval = config.Duration(5 * time.Millisecond)
	c, err := NewFile(Env{ID: "portal", Product: "netop"}, settings)
	require.NoError(t, err)
	s := &store{}
	stop := run(t, c, s.put)
	s.wait(t, "1;\"x\ny\"", "2;z")
	require.Equal(t, "netop", s.all()[0].Product)
	require.Equal(t, audit.FormatCSV, s.all()[0].Format)
	require.False(t, s.all()[0].Peer.IsValid())

	byName := func() map[string]Input {
		m := make(map[string]Input)
		for _, in := range c.Inputs() {
			m[in.Name] = in
		}
		return m
	}
	eventually(t, func() bool { return byName()[path].Records == 2 }, "counted when durable")
	in := byName()
	require.Equal(t, Input{Name: path, Records: 2, Bytes: 10, Offset: 17, Size: 17, Skipped: 1}, in[path])
	require.Equal(t, StateDegraded, in[filepath.Join(dir, "missing.log")].State)
	require.Contains(t, in[filepath.Join(dir, "missing.log")].Reason, "no such file")
	require.Equal(t, StateWaiting, in[filepath.Join(dir, "*.json")].State)
	stop()
}

func TestFileCollectorGoesOnWhereItWas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	require.NoError(t, os.WriteFile(path, []byte("one\n"), 0o600))
	settings := NewFileSettings()
	settings.Paths = []string{path}
	positions := make(map[string]audit.Position)
	var raws []string
	put := func(_ context.Context, b *audit.Records) (audit.Number, error) {
		for _, r := range b.List {
			raws = append(raws, string(r.Raw))
		}
		for _, p := range b.Positions {
			positions[string(p.Key)] = audit.Position{Key: bytes.Clone(p.Key), Value: bytes.Clone(p.Value)}
		}
		return 0, nil
	}
	for _, text := range []string{"", "two\n", ""} {
		file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = file.WriteString(text)
		require.NoError(t, err)
		require.NoError(t, file.Close())
		env := Env{ID: "a", Once: true}
		for _, p := range positions {
			env.Positions = append(env.Positions, p)
		}
		c, err := NewFile(env, settings)
		require.NoError(t, err)
		require.NoError(t, c.Run(t.Context(), put))
	}
	require.Equal(t, []string{"one", "two"}, raws)
}

func TestSettingsInAConfiguration(t *testing.T) {
	var kinds config.Kinds
	for _, k := range Kinds() {
		kinds.Collect = append(kinds.Collect, config.Kind{Name: k.Name, Doc: k.Doc, Settings: k.Settings})
	}
	kinds.Forward = []config.Kind{{Name: "nowhere"}}
	parse := func(collect string) (*config.Config, error) {
		text := "version: 1\ndata_dir: /tmp/x\ncollect:\n" + collect + "forward:\n  out: {type: nowhere}\n"
		return config.Parse("test.yaml", []byte(text), kinds)
	}
	cfg, err := parse(`  files: {type: file, paths: ["/var/log/*.csv"], exclude: ["*.gz"], format: csv, start_at: end}
  net: {type: syslog, listen: ["udp://[::1]:0", "tcp://127.0.0.1:0"], framing: newline, idle_timeout: 1h}
`)
	require.NoError(t, err)
	for i, k := range Kinds() {
		require.Equal(t, k.Name, cfg.Collect[i].Type)
		c, err := k.New(Env{ID: cfg.Collect[i].ID}, cfg.Collect[i].Settings)
		require.NoError(t, err)
		require.Implements(t, (*Reporter)(nil), c)
		_, err = k.New(Env{}, new(int))
		require.ErrorContains(t, err, "BUG")
	}

	for _, c := range []struct{ collect, problem string }{
		{`  a: {type: file, paths: ["log/*.csv"]}`, "begin it with /"},
		{`  a: {type: file, paths: ["/log/[.csv"]}`, "malformed pattern"},
		{`  a: {type: file, paths: ["/log/**/a.csv"]}`, "one pattern for each depth"},
		{`  a: {type: file, paths: ["/log/a"], exclude: ["b/c"]}`, "matches nothing"},
		{`  a: {type: file, paths: []}`, "paths"},
		{`  a: {type: file, paths: ["/a"], format: xml}`, "xml"},
		{`  a: {type: file, paths: ["/a"], max_record: 1B}`, "1KiB"},
		{`  a: {type: syslog, listen: ["tls://127.0.0.1:6514"]}`, "tls"},
		{`  a: {type: syslog, listen: ["udp://127.0.0.1:514", "udp://127.0.0.1:514"]}`, "twice"},
		{`  a: {type: syslog, listen: ["udp://127.0.0.1:514"], max_connections: 0}`, "max_connections"},
	} {
		_, err := parse(c.collect + "\n")
		require.ErrorContains(t, err, c.problem, c.collect)
	}
}
