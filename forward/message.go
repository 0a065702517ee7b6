package forward

import (
	"bytes"
	"unicode/utf8"
)

// Sizes of the buffer that a batch is written from.
const (
	flushBytes = 1 << 20 // what is gathered before it is written; batches are mostly smaller, so each is one write
	keepBytes  = 4 << 20 // a buffer that one huge event made larger is not kept
)

// escapeLines replaces what could end a line in dst[from:] by the two characters \n, \r or \0, in place. Formats that
// escape for themselves never get here; for the others it keeps a value from forging a second message.
func escapeLines(dst []byte, from int) []byte {
	text := dst[from:]
	if bytes.IndexByte(text, '\n') < 0 && bytes.IndexByte(text, '\r') < 0 && bytes.IndexByte(text, 0) < 0 {
		return dst
	}
	n := 0
	for _, c := range text {
		if lineEscape(c) != 0 {
			n++
		}
	}
	read := len(dst)
	for range n {
		dst = append(dst, 0)
	}
	write := len(dst)
	for write > read { // from the end, so that nothing is overwritten that was not yet moved
		read--
		if c := lineEscape(dst[read]); c != 0 {
			write -= 2
			dst[write], dst[write+1] = '\\', c
		} else {
			write--
			dst[write] = dst[read]
		}
	}
	return dst
}

func lineEscape(c byte) byte {
	switch c {
	case '\n':
		return 'n'
	case '\r':
		return 'r'
	case 0:
		return '0'
	default:
		return 0
	}
}

// cutText returns the first limit bytes of text or, if that would split a character of UTF-8, up to three fewer.
func cutText(text []byte, limit int) []byte {
	if len(text) <= limit {
		return text
	}
	for end := limit; end >= 0 && end > limit-utf8.UTFMax; end-- {
		if utf8.RuneStart(text[end]) {
			return text[:end]
		}
	}
	return text[:limit] // not UTF-8
}
