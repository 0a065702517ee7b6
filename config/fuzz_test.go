package config

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// FuzzParse feeds bytes to the parser. Whatever they are, it returns a configuration or an *Error with problems that
// have a place inside the file and show no value of the machine.
func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(full))
	f.Add([]byte(referenceFile))
	names, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := parse("x", data, testKinds(), testMachine())
		if (cfg == nil) == (err == nil) {
			t.Fatalf("configuration %v with error %v", cfg, err)
		}
		if _, err := KeysInFile(data); err != nil && err.Error() == "" {
			t.Fatal("an error without words")
		}
		if err == nil {
			if cfg.Version != version || len(cfg.Collect) == 0 || len(cfg.Forward) == 0 || cfg.Relay.ID == "" {
				t.Fatalf("accepted %+v", cfg)
			}
			return
		}
		var e *Error
		if !errors.As(err, &e) || len(e.Problems) == 0 {
			t.Fatalf("not an *Error with problems: %v", err)
		}
		lines := 1
		for _, c := range string(data) {
			// All that YAML 1.1 takes for a line break (section 5.4).
			if c == '\n' || c == '\r' || c == 0x85 || c == 0x2028 || c == 0x2029 {
				lines++
			}
		}
		for _, p := range e.Problems {
			if p.Line < 1 || p.Line > lines+1 || p.Column < 1 || p.Message == "" {
				t.Fatalf("a problem at no place: %v", p)
			}
		}
	})
}
