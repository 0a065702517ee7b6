package config

import (
	"fmt"
	"log/slog"
)

// hidden is what every way to print a Secret shows.
const hidden = "***"

// Secret is a password, token or key. Only Reveal gives it out; fmt with any verb, slog, JSON, YAML and text encoding
// show "***", also for a Secret in an unexported field of a printed struct, where fmt calls no methods: the value is
// behind a pointer, of which fmt shows the address. Two Secrets are equal by ==  only if they are copies of one.
type Secret struct {
	value *string
}

// NewSecret returns a Secret with the given value.
func NewSecret(value string) Secret { return Secret{value: &value} }

// UnmarshalText takes the text as it is. It never fails.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}

func (Secret) expected() string { return "a secret" }

// Reveal returns the value, for the one place that sends or compares it.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero reports whether there is no secret, or an empty one.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// String returns "***", or an empty string where there is no secret.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return hidden
}

// Format makes every verb of fmt print String, %#v, %x and %d too.
func (s Secret) Format(f fmt.State, _ rune) {
	// An error of f is one of the writer behind it, which fmt reports to its own caller.
	_, _ = f.Write([]byte(s.String()))
}

// LogValue makes slog print String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns String; encoding/json and others use it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML returns String.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }
