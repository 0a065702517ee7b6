package config

import (
	"errors"
	"fmt"
	"io/fs"
)

// The kinds and the machine that the tests of this package use.

type fileSettings struct {
	Paths     []string `yaml:"paths" required:"true" doc:"Globs of the files to follow."`
	MaxRecord Bytes    `yaml:"max_record" min:"1KiB" max:"16MiB" doc:"Longest record."`
	Poll      Duration `yaml:"poll" min:"10ms" max:"1h" doc:"Time between looks at the files."`
	Comma     string   `yaml:"comma" max:"1" doc:"Separator of a CSV file."`
	FromStart bool     `yaml:"from_start" doc:"Read what is there already."`
}

func (f *fileSettings) Validate() []Invalid {
	var list []Invalid
	for i, p := range f.Paths {
		if p == "" || p[0] != '/' {
			key := fmt.Sprintf("paths[%d]", i)
			list = append(list, Invalid{Key: key, Message: fmt.Sprintf("%q is relative: begin it with /", p)})
		}
	}
	if len(f.Paths) == 0 {
		list = append(list, Invalid{Key: "paths", Message: "a follow-up that nobody must see: the list was not set"})
	}
	if f.Comma == "," && f.FromStart {
		list = append(list, Invalid{Message: "this pair of settings does not go together: change one"})
	}
	return list
}

type tlsSettings struct {
	CertFile string   `yaml:"cert_file" required:"true"`
	KeyFile  string   `yaml:"key_file" required:"true"`
	Pins     []string `yaml:"pins"`
}

func (t *tlsSettings) Validate() []Invalid {
	if len(t.Pins) > 1 && t.Pins[0] == t.Pins[1] {
		return []Invalid{{Key: "pins[1]", Message: "the same pin twice: remove one"}}
	}
	return nil
}

// common is embedded, so its keys are those of the settings around it.
type common struct {
	MaxConnections int    `yaml:"max_connections" min:"1" max:"65536" doc:"Connections at a time."`
	Framing        string `yaml:"framing" oneof:"newline octet_counting auto"`
}

type listenSettings struct {
	Listen []URL `yaml:"listen" required:"true" schemes:"udp tcp tls unix"`
	common
	TLS *tlsSettings `yaml:"tls" doc:"Certificates."`
}

type rule struct {
	Field string   `yaml:"field" required:"true" example:"actor.name"`
	Is    []string `yaml:"is"`
}

type sendSettings struct {
	Endpoints []URL             `yaml:"endpoints" required:"true" schemes:"tcp tls http https"`
	Token     Secret            `yaml:"token"`
	Headers   map[string]Secret `yaml:"headers"`
	Labels    map[string]string `yaml:"labels" max:"3"`
	Rules     []rule            `yaml:"rules"`
	Retry     *Duration         `yaml:"retry"`
	Zone      Location          `yaml:"zone"`
	Facility  uint8             `yaml:"facility" max:"23"`
}

type writeSettings struct {
	Path string `yaml:"path" required:"true"`
}

func testKinds() Kinds {
	return Kinds{
		Collect: []Kind{
			{Name: "file", Doc: "Follows files.", Settings: func() any {
				return &fileSettings{MaxRecord: MiB, Poll: hour / 3600, Comma: ","}
			}},
			{Name: "syslog", Doc: "Listens for syslog.", Settings: func() any {
				return &listenSettings{common: common{MaxConnections: 100, Framing: "auto"}}
			}},
			{Name: "nothing", Doc: "Has no settings."},
		},
		Forward: []Kind{
			{Name: "syslog", Doc: "Sends syslog.", Settings: func() any { return &sendSettings{Facility: 13} }},
			{Name: "file", Doc: "Writes a file.", Settings: func() any { return &writeSettings{} }},
		},
	}
}

type testFile struct {
	data string
	mode fs.FileMode
}

// testMachine answers from tables; nothing of the real machine is read.
func testMachine() environment {
	variables := map[string]string{
		"PORT": "5514", "TOKEN": "tok-7f3a", "WORD": "hush-hush", "EMPTY": "", "ON": "True", "SHORT": "x",
		"REL": "rel-secret",
		"URL": "tcp://siem.example.org:6514", "CREDENTIALS_DIRECTORY": "/run/credentials/auditrelay.service",
	}
	files := map[string]testFile{
		"/secrets/token":  {"from-a-file\n", 0o600},
		"/secrets/crlf":   {"two\nlines\r\n\r\n", 0o400},
		"/secrets/open":   {"seen-by-all\n", 0o644},
		"/secrets/binary": {"\xff\xfe", 0o600},
		"/secrets/big":    {string(make([]byte, maxValueBytes)), 0o600},
		"/run/credentials/auditrelay.service/hec":  {"from-systemd", 0o440},
		"/run/credentials/auditrelay.service/open": {"from-systemd", 0o444},
	}
	return environment{
		variable: func(name string) (string, bool) { v, ok := variables[name]; return v, ok },
		file: func(path string) ([]byte, fs.FileMode, error) {
			f, ok := files[path]
			if !ok {
				return nil, 0, errors.New("no such file or directory")
			}
			return []byte(f.data), f.mode, nil
		},
		hostname: func() (string, error) { return "prg-01.example.org", nil },
	}
}
