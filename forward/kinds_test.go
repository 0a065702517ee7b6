package forward_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/config"
	"github.com/auditrelay/auditrelay/forward"
)

// kindsForConfig is what the wiring does with the table.
func kindsForConfig() config.Kinds {
	kinds := config.Kinds{Collect: []config.Kind{{Name: "nothing", Doc: "A source without keys."}}}
	for _, k := range forward.Kinds() {
		kinds.Forward = append(kinds.Forward, config.Kind{Name: k.Name, Doc: k.Doc, Settings: k.Settings})
	}
	return kinds
}

const head = "version: 1\nrelay: {id: prg-01}\ncollect: {none: {type: nothing}}\nforward:\n"

func TestSettingsAreReadFromTheConfiguration(t *testing.T) {
	cfg, err := config.Parse("test.yaml", []byte(head+`
  a:
    type: syslog
    endpoints: ["tcp://siem.example.org:514", "udp://[::1]:514"]
    envelope: rfc3164
    framing: octet_counting
    facility: authpriv
    app_name: relay
    host: prg-01
    tag: auditrelay
    structured_data_id: relay@1
    max_message: 4KiB
    timezone: Europe/Prague
    timeout: 3s
    bom: true
  b: {type: syslog, endpoints: ["tcp://192.0.2.1:514"], facility: 13}
  c: {type: file, path: /var/log/out.ndjson, max_size: 1MiB, keep: 3, sync: false, mode: 0600}
  d: {type: file, path: "-"}
`), kindsForConfig())
	require.NoError(t, err)
	a := cfg.Forward[0].Settings.(*forward.SyslogSettings)
	require.Equal(t, "udp://[::1]:514", a.Endpoints[1].String())
	require.Equal(t, "Europe/Prague", a.Timezone.String())
	a.Endpoints, a.Timezone = nil, config.Location{}
	require.Equal(t, &forward.SyslogSettings{
		Envelope: "rfc3164", Framing: "octet_counting", Facility: 10, AppName: "relay", Host: "prg-01", Tag: "auditrelay",
		StructuredDataID: "relay@1", MaxMessage: 4096, Timeout: config.Duration(3 * time.Second), BOM: true,
	}, a)
	b := cfg.Forward[1].Settings.(*forward.SyslogSettings)
	b.Endpoints = nil
	require.Equal(t, &forward.SyslogSettings{
		Envelope: "rfc5424", Framing: "auto", Facility: 13, AppName: "auditrelay", StructuredDataID: "auditrelay@32473",
		Timeout: config.Duration(10 * time.Second),
	}, b)
	require.Equal(t, &forward.FileSettings{Path: "/var/log/out.ndjson", MaxSize: config.MiB, Keep: 3, Mode: 0o600},
		cfg.Forward[2].Settings)
	require.Equal(t, &forward.FileSettings{Path: "-", MaxSize: 100 * config.MiB, Keep: 10, Sync: true, Mode: 0o640},
		cfg.Forward[3].Settings)
}

func TestProblemsOfSettingsAreToldWithTheirPlace(t *testing.T) {
	for yaml, want := range map[string]string{
		`{type: syslog}`: "endpoints",
		`{type: syslog, endpoints: ["https://h:1"]}`:                         "https",
		`{type: syslog, endpoints: ["tcp://h:0"]}`:                           "port 0",
		`{type: syslog, endpoints: ["tcp://h:1"], facility: local9}`:         "use a number from 0 to 23",
		`{type: syslog, endpoints: ["tcp://h:1"], envelope: rfc3165}`:        "rfc3164",
		`{type: syslog, endpoints: ["tcp://h:1"], tag: "a b"}`:               "printable ASCII without spaces",
		`{type: syslog, endpoints: ["tcp://h:1"], structured_data_id: abcd}`: "name@number",
		`{type: syslog, endpoints: ["tcp://h:1"], max_message: 100B}`:        "at least 512B",
		`{type: file}`:                                  "path",
		`{type: file, path: out.ndjson}`:                "path from / on",
		`{type: file, path: /x, mode: rw}`:              "octal digits",
		`{type: file, path: /x, compress: gzip}`:        "compress",
		`{type: file, path: /x, keep: 0}`:               "keep",
		`{type: syslog, endpoints: [], app_name: "  "}`: "app_name",
	} {
		_, err := config.Parse("test.yaml", []byte(head+"  soc: "+yaml+"\n"), kindsForConfig())
		require.ErrorContains(t, err, want, yaml)
		require.ErrorContains(t, err, "test.yaml:5:", yaml)
	}
}
