package config

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// TestSecretIsNeverPrinted prints a secret in every way that a program prints things by accident.
func TestSecretIsNeverPrinted(t *testing.T) {
	const value = "hunter2"
	s := NewSecret(value)
	require.Equal(t, value, s.Reveal())
	type exported struct {
		Token Secret
		List  []Secret
		Map   map[string]Secret
		Ptr   *Secret
	}
	type unexported struct {
		token Secret
		list  []Secret
		inner any
	}
	holders := []any{
		s, &s,
		[]Secret{s},
		map[string]Secret{"a": s},
		exported{s, []Secret{s}, map[string]Secret{"a": s}, &s},
		&exported{Token: s},
		unexported{s, []Secret{s}, s},
		&unexported{token: s, inner: exported{Token: s}},
		Destination{Settings: &sendSettings{Token: s}},
		fmt.Errorf("send with %v", s),
	}
	for _, h := range holders {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%T", "%08b", "% x"} {
			requireHidden(t, fmt.Sprintf(verb, h), value)
		}
		requireHidden(t, fmt.Sprint(h)+fmt.Sprintln(h), value)
		data, err := json.Marshal(h)
		require.NoError(t, err)
		requireHidden(t, string(data), value)
		var out bytes.Buffer
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "a", h)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", slog.Group("g", "a", h))
		requireHidden(t, out.String(), value)
	}
	data, err := yaml.Marshal(map[string]any{"a": s, "b": &s, "c": exported{Token: s, Ptr: &s}})
	require.NoError(t, err)
	requireHidden(t, string(data), value)
	data, err = xml.Marshal(s)
	require.NoError(t, err)
	requireHidden(t, string(data), value)
	require.Equal(t, "*** *** ***", fmt.Sprintf("%v %d %#v", s, s, s))
}

func requireHidden(t *testing.T, text, value string) {
	t.Helper()
	require.NotContains(t, text, value)
	require.NotContains(t, text, fmt.Sprintf("%x", value))
	require.NotContains(t, text, fmt.Sprintf("%X", value))
	require.NotContains(t, text, fmt.Sprintf("% x", value))
	require.NotContains(t, text, fmt.Sprint([]byte(value)))
}

func TestNoSecretIsSeenToBeNone(t *testing.T) {
	for _, s := range []Secret{{}, NewSecret("")} {
		require.True(t, s.IsZero())
		require.Empty(t, s.Reveal())
		require.Empty(t, fmt.Sprint(s))
	}
	require.False(t, NewSecret("x").IsZero())
}
