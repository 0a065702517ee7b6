package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// maxSocketPath is what sockaddr_un takes on Linux, less the zero byte at its end (unix(7)).
const maxSocketPath = 107

// URL is a place to listen on or to send to: "scheme://host:port" for the schemes udp, tcp, tls, http, https, relp
// and relp+tls, "scheme:///path" for unix and unixgram. The port is never left out; port 0 means that the system
// chooses one. The host is a name or an address, IPv6 in brackets, and never empty: all addresses are 0.0.0.0 or
// [::]. Only http and https have a path and query. There is no user or password in it: they have keys of their own.
type URL struct {
	Scheme string
	Host   string // name or address without brackets; empty for unix and unixgram
	Port   uint16
	Path   string // absolute path of a socket; for http and https what follows the port, escaped as written, or empty
	Query  string // without "?"
}

// urlSchemes are the schemes a URL may have.
func urlSchemes() []string {
	return []string{"udp", "tcp", "tls", "unix", "unixgram", "http", "https", "relp", "relp+tls"}
}

// UnmarshalText reads a URL. Its errors say what to write instead and never repeat a password.
func (u *URL) UnmarshalText(text []byte) error {
	s := string(text)
	scheme, rest, found := strings.Cut(s, "://")
	switch {
	case strings.Contains(s, "@"):
		return errors.New("a URL has no user or password here: use the keys for them")
	case !found:
		return fmt.Errorf("%s is not %s", quote(withoutQuery(s)), u.expected())
	}
	parsed := URL{Scheme: scheme}
	var err error
	switch scheme {
	case "unix", "unixgram":
		err = parsed.setSocket(rest)
	case "udp", "tcp", "tls", "relp", "relp+tls", "http", "https":
		err = parsed.setNetwork(rest)
	default:
		return errors.New(unknown("scheme", scheme, urlSchemes()))
	}
	if err != nil {
		return err
	}
	*u = parsed
	return nil
}

func (URL) expected() string { return "a URL such as tcp://127.0.0.1:5514 or unix:///run/x.sock" }

func (u *URL) setSocket(p string) error {
	switch {
	case !strings.HasPrefix(p, "/"):
		return fmt.Errorf("the path of a socket is absolute: write %s:///path", u.Scheme)
	case len(p) > maxSocketPath:
		return fmt.Errorf("the path of a socket has at most %d bytes, not %d", maxSocketPath, len(p))
	case strings.IndexByte(p, 0) >= 0 || path.Clean(p) == "/":
		return fmt.Errorf("%s is not the path of a socket: write %s:///path", quote(p), u.Scheme)
	}
	u.Path = path.Clean(p)
	return nil
}

func (u *URL) setNetwork(rest string) error {
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	if err := u.setAuthority(authority); err != nil {
		return err
	}
	if tail == "" {
		return nil
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("a %s URL ends after the port: remove what follows %s", u.Scheme, quote(authority))
	}
	parsed, err := url.Parse(tail)
	if err != nil || parsed.Fragment != "" || parsed.Host != "" || strings.ContainsAny(tail, " \t\r\n#") {
		return fmt.Errorf("what follows %s is not a path of a URL: escape odd characters as %%20", quote(authority))
	}
	u.Path, u.Query, _ = strings.Cut(tail, "?")
	return nil
}

func (u *URL) setAuthority(authority string) error {
	host, port := authority, ""
	var err error
	if strings.HasPrefix(authority, "[") {
		host, port, err = splitBrackets(authority)
	} else {
		if i := strings.LastIndexByte(authority, ':'); i >= 0 {
			host, port = authority[:i], authority[i:]
		}
		if strings.Contains(host, ":") {
			return fmt.Errorf("%s has more than one colon: an IPv6 address stands in brackets, as %s://[::1]:514",
				quote(authority), u.Scheme)
		}
		err = checkHost(host)
	}
	if err != nil {
		return err
	}
	if port == "" || port == ":" {
		return fmt.Errorf("the port is missing: write %s://%s:port", u.Scheme, shortened(strings.TrimSuffix(authority, ":")))
	}
	n, err := strconv.ParseUint(port[1:], 10, 16)
	if err != nil || port[0] != ':' {
		return fmt.Errorf("%s is not a port: use a number from 0 to 65535", quote(strings.TrimPrefix(port, ":")))
	}
	u.Host, u.Port = host, uint16(n)
	return nil
}

// splitBrackets splits "[::1]:514"; port keeps its colon. A zone is written as %eth0 or, as in RFC 6874, %25eth0.
func splitBrackets(authority string) (host, port string, err error) {
	inside, port, found := strings.Cut(authority[1:], "]")
	inside = strings.Replace(inside, "%25", "%", 1)
	if addr, err := netip.ParseAddr(inside); !found || err != nil || !addr.Is6() {
		return "", "", fmt.Errorf("%s is not an IPv6 address in brackets, as [::1]:514", quote(authority))
	}
	return inside, port, nil
}

// checkHost takes an IPv4 address or a host name (RFC 1123 section 2.1, and "_", which container networks use).
func checkHost(host string) error {
	if host == "" {
		return errors.New("the host is missing: write 0.0.0.0 or [::] for all addresses of this machine")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	bad := fmt.Errorf("%s is not a host name or address", quote(host))
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	if len(host) > 253 {
		return bad
	}
	for _, label := range labels {
		if label == "" || len(label) > 63 {
			return bad
		}
		for _, c := range []byte(label) {
			if !isAlnum(c) && c != '-' && c != '_' {
				return bad
			}
		}
	}
	// A name whose last label is a number is a mistyped address, as 10.0.0.256.
	if _, err := strconv.Atoi(labels[len(labels)-1]); err == nil {
		return bad
	}
	return nil
}

// withoutQuery leaves out where people put tokens.
func withoutQuery(s string) string {
	before, _, _ := strings.Cut(s, "?")
	return before
}

// IsZero reports whether no URL was set.
func (u URL) IsZero() bool { return u == URL{} }

// TLS reports whether the scheme means a connection with TLS.
func (u URL) TLS() bool { return u.Scheme == "tls" || u.Scheme == "https" || u.Scheme == "relp+tls" }

// Network returns the network for package net: "udp", "tcp", "unix" or "unixgram".
func (u URL) Network() string {
	switch u.Scheme {
	case "udp", "unix", "unixgram":
		return u.Scheme
	default:
		return "tcp"
	}
}

// Address returns the address for package net: "host:port" with an IPv6 host in brackets, or the path of a socket.
func (u URL) Address() string {
	if u.Scheme == "unix" || u.Scheme == "unixgram" {
		return u.Path
	}
	return net.JoinHostPort(u.Host, strconv.Itoa(int(u.Port)))
}

// String returns the URL as it may stand in a file. An IPv6 zone is escaped, so that net/url reads it too.
func (u URL) String() string {
	if u.IsZero() {
		return ""
	}
	if u.Scheme == "unix" || u.Scheme == "unixgram" {
		return u.Scheme + "://" + u.Path
	}
	s := u.Scheme + "://" + strings.Replace(u.Address(), "%", "%25", 1) + u.Path
	if u.Query != "" {
		s += "?" + u.Query
	}
	return s
}

// MarshalText returns String, which UnmarshalText reads.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }
