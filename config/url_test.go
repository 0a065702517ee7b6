package config

import (
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestURLs(t *testing.T) {
	for text, want := range map[string]struct {
		url  URL
		dial string
	}{
		"udp://127.0.0.1:514":        {URL{Scheme: "udp", Host: "127.0.0.1", Port: 514}, "udp 127.0.0.1:514"},
		"tcp://[::]:0":               {URL{Scheme: "tcp", Host: "::", Port: 0}, "tcp [::]:0"},
		"tls://h.example:6514":       {URL{Scheme: "tls", Host: "h.example", Port: 6514}, "tcp h.example:6514 with TLS"},
		"tls://h.:6514":              {URL{Scheme: "tls", Host: "h.", Port: 6514}, "tcp h.:6514 with TLS"},
		"relp://my_host:2514":        {URL{Scheme: "relp", Host: "my_host", Port: 2514}, "tcp my_host:2514"},
		"relp+tls://h1:1":            {URL{Scheme: "relp+tls", Host: "h1", Port: 1}, "tcp h1:1 with TLS"},
		"tcp://[fe80::1%25eth0]:514": {URL{Scheme: "tcp", Host: "fe80::1%eth0", Port: 514}, "tcp [fe80::1%eth0]:514"},
		"https://h:8088/":            {URL{Scheme: "https", Host: "h", Port: 8088, Path: "/"}, "tcp h:8088 with TLS"},
		"http://[::1]:80/a%20b":      {URL{Scheme: "http", Host: "::1", Port: 80, Path: "/a%20b"}, "tcp [::1]:80"},
		"http://h:1/p?x=%3F?":        {URL{Scheme: "http", Host: "h", Port: 1, Path: "/p", Query: "x=%3F?"}, "tcp h:1"},
		"https://h:1?x":              {URL{Scheme: "https", Host: "h", Port: 1, Query: "x"}, "tcp h:1 with TLS"},
		"unix:///run/x.sock":         {URL{Scheme: "unix", Path: "/run/x.sock"}, "unix /run/x.sock"},
		"unixgram:///dev/log":        {URL{Scheme: "unixgram", Path: "/dev/log"}, "unixgram /dev/log"},
	} {
		var u URL
		require.NoError(t, u.UnmarshalText([]byte(text)), text)
		require.Equal(t, want.url, u)
		require.Equal(t, text, u.String())
		dial := u.Network() + " " + u.Address()
		if u.TLS() {
			dial += " with TLS"
		}
		require.Equal(t, want.dial, dial)
		parsed, err := url.Parse(u.String())
		require.NoError(t, err, "net/url reads it too")
		require.Equal(t, want.url.Host, parsed.Hostname())
	}
}

func TestSocketPathAsLongAsTheKernelTakesIt(t *testing.T) {
	dir := t.TempDir() + "/"
	require.Less(t, len(dir), maxSocketPath)
	listener, err := net.Listen("unix", dir+strings.Repeat("x", maxSocketPath-len(dir)))
	require.NoError(t, err)
	require.NoError(t, listener.Close())

	var u URL
	require.NoError(t, u.UnmarshalText([]byte("unix:///"+strings.Repeat("x", maxSocketPath-1))))
	err = u.UnmarshalText([]byte("unix:///" + strings.Repeat("x", maxSocketPath)))
	require.ErrorContains(t, err, "at most 107 bytes, not 108")
}

func TestURLErrorsShowNoPassword(t *testing.T) {
	for _, text := range []string{
		"tcp://admin:pass-word@host:1", "pass-word@host", "https://host/x?token=pass-word", "https:/host:1?token=pass-word",
		"https://host:1/?token=pass-word#x", "https://ho st:1/?pass-word",
	} {
		var u URL
		err := u.UnmarshalText([]byte(text))
		require.Error(t, err, text)
		require.NotContains(t, err.Error(), "pass-word")
	}
}
