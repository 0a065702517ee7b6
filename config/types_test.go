package config

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{
		"0B": 0, "1B": 1, "1023B": 1023, "1KiB": 1024, "64MiB": 64 << 20, "4GiB": 4 << 30, "2TiB": 2 << 40,
		"9223372036854775807B": math.MaxInt64, "8388607TiB": 8388607 << 40,
	} {
		var b Bytes
		require.NoError(t, b.UnmarshalText([]byte(text)))
		require.Equal(t, want, b)
		require.Equal(t, text, b.String())
	}
	for text, want := range map[string]string{
		"9223372036854775808B": `"9223372036854775808B" is more than a size can be`,
		"8388608TiB":           `"8388608TiB" is more than a size can be`,
		"":                     `"" is not a size such as 64MiB, with the unit B, KiB, MiB, GiB or TiB`,
		"-1B":                  `"-1B" is not a size such as 64MiB, with the unit B, KiB, MiB, GiB or TiB`,
		"64mib":                `unit "mib" is not known: write MiB, which counts in steps of 1024`,
		"64MB":                 `unit "MB" is not known: write MiB, which counts in steps of 1024`,
		"64":                   `"64" has no unit: write it as "64B" or in KiB, MiB, GiB or TiB`,
	} {
		b := Bytes(7)
		require.EqualError(t, b.UnmarshalText([]byte(text)), want)
		require.Equal(t, Bytes(7), b, "untouched by bad text")
	}
}

func TestPercent(t *testing.T) {
	for text, want := range map[string]Percent{"1%": 1, "80%": 80, "100%": 100} {
		var p Percent
		require.NoError(t, p.UnmarshalText([]byte(text)))
		require.Equal(t, want, p)
		require.Equal(t, text, p.String())
	}
	for text, want := range map[string]string{
		"80":   `"80" has no sign: write it as "80%"`,
		"0%":   `"0%" is not a share such as 80%, from 1% to 100%`,
		"101%": `"101%" is not a share such as 80%, from 1% to 100%`,
		"8.5%": `"8.5%" is not a share such as 80%, from 1% to 100%`,
		"-1%":  `"-1%" is not a share such as 80%, from 1% to 100%`,
		"%":    `"%" is not a share such as 80%, from 1% to 100%`,
	} {
		p := Percent(7)
		require.EqualError(t, p.UnmarshalText([]byte(text)), want)
		require.Equal(t, Percent(7), p, "untouched by bad text")
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0s": 0, "250ms": 250 * time.Millisecond, "10s": 10 * time.Second, "1h30m": 90 * time.Minute, "24h": 24 * time.Hour,
		"1m": time.Minute, "1h0m5s": time.Hour + 5*time.Second, "10h": 10 * time.Hour, "20m": 20 * time.Minute,
	} {
		var d Duration
		require.NoError(t, d.UnmarshalText([]byte(text)))
		require.Equal(t, want, time.Duration(d))
		require.Equal(t, text, d.String())
	}
	for text, want := range map[string]time.Duration{
		"7d": 168 * time.Hour, "1d12h": 36 * time.Hour, "106751d": 106751 * 24 * time.Hour, "1.5h": 90 * time.Minute,
	} {
		var d Duration
		require.NoError(t, d.UnmarshalText([]byte(text)))
		require.Equal(t, want, time.Duration(d))
	}
	for _, text := range []string{
		"", "d", "1", "1.5", "-1s", "1d-1s", "1d+1s", "+1s", "1h1d", "1.5d",
		"106752d", "106751d24h", "1w", "99999999999d",
	} {
		d := Duration(7)
		require.Error(t, d.UnmarshalText([]byte(text)), text)
		require.Equal(t, Duration(7), d, "untouched by bad text")
	}
}

func TestSizesAndDurationsAreReadBackFromTheirText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Bytes(rapid.Int64Range(0, math.MaxInt64).Draw(t, "bytes"))
		var b2 Bytes
		require.NoError(t, b2.UnmarshalText([]byte(b.String())))
		require.Equal(t, b, b2)
		d := Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "duration"))
		var d2 Duration
		require.NoError(t, d2.UnmarshalText([]byte(d.String())))
		require.Equal(t, d, d2)
	})
}

func TestTypesInJSON(t *testing.T) {
	var zone Location
	require.NoError(t, zone.UnmarshalText([]byte("Europe/Rome")))
	data, err := json.Marshal([]any{
		64 * MiB, 36 * hour, zone, Location{}, URL{Scheme: "udp", Host: "::1", Port: 514}, URL{},
	})
	require.NoError(t, err)
	require.JSONEq(t, `["64MiB", "36h", "Europe/Rome", "", "udp://[::1]:514", ""]`, string(data))
}
