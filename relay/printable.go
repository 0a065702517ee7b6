package relay

import (
	"strconv"
	"unicode/utf8"
)

// printable returns p for a terminal: what is not UTF-8, control characters and characters that turn the direction of text
// come out as escapes.
func printable(p []byte) string {
	dst := make([]byte, 0, len(p))
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(dst, `\x`...)
			dst = append(dst, "0123456789abcdef"[p[0]>>4], "0123456789abcdef"[p[0]&15])
		case strconv.IsPrint(r):
			dst = append(dst, p[:n]...)
		default:
			quoted := strconv.QuoteRune(r)
			dst = append(dst, quoted[1:len(quoted)-1]...)
		}
		p = p[n:]
	}
	return string(dst)
}
