package normalize

import (
	"bytes"
	"math/bits"
)

// foldByte maps a byte of a source field's name to what is compared: lower case; 0 for a byte that does not count.
var foldByte = func() (table [256]byte) {
	for i := range table {
		c := byte(i)
		switch {
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case c == ' ' || c == '_' || c == '-' || c == '\t':
			c = 0
		}
		table[i] = c
	}
	return table
}()

// nameTable finds a source field's slot by its name. Products spell one name in several ways ("User Id", user_id,
// userId), so the case of ASCII letters, blanks, underscores and hyphens do not count. It is immutable once built.
type nameTable struct {
	shift uint32   // the hash's high bits are the first place to look
	slots []uint16 // 0 = free
	names [][]byte // folded, by place
}

// newNameTable returns the table of names, where names[i] gets slot i. Empty names get none.
func newNameTable(names [][]byte) nameTable {
	size := uint(16)
	for size < uint(4*len(names)) {
		size *= 2
	}
	t := nameTable{
		shift: uint32(32 - bits.TrailingZeros(size)),
		slots: make([]uint16, size),
		names: make([][]byte, size),
	}
	for slot, name := range names {
		if len(name) == 0 {
			continue
		}
		i := hashName(name) >> t.shift
		for t.slots[i] != 0 {
			i = (i + 1) & uint32(size-1)
		}
		t.slots[i], t.names[i] = uint16(slot), foldName(name)
	}
	return t
}

// find returns the slot of name, 0 if it has none.
func (t *nameTable) find(name []byte) uint16 {
	for i := hashName(name) >> t.shift; t.slots[i] != 0; i = (i + 1) & uint32(len(t.slots)-1) {
		if matchesFolded(name, t.names[i]) {
			return t.slots[i]
		}
	}
	return 0
}

func hashName(name []byte) uint32 {
	h := uint32(len("name"))
	for _, c := range name {
		if f := foldByte[c]; f != 0 {
			h = bits.RotateLeft32(h, 5) ^ uint32(f)
		}
	}
	return h * 0x9E3779B1
}

// foldName returns the part of name that is compared.
func foldName(name []byte) []byte {
	folded := make([]byte, 0, len(name))
	for _, c := range name {
		if f := foldByte[c]; f != 0 {
			folded = append(folded, f)
		}
	}
	return folded
}

// matchesFolded reports whether name folds to folded.
func matchesFolded(name, folded []byte) bool {
	j := 0
	for _, c := range name {
		f := foldByte[c]
		if f == 0 {
			continue
		}
		if j == len(folded) || folded[j] != f {
			return false
		}
		j++
	}
	return j == len(folded)
}

// lastSegment returns what follows the last dot of a flattened name, and whether at least two dots stand in it.
func lastSegment(name []byte) ([]byte, bool) {
	last := bytes.LastIndexByte(name, '.')
	if last < 0 {
		return nil, false
	}
	return name[last+1:], bytes.IndexByte(name[:last], '.') >= 0
}

// trimSpace takes white space of ASCII and NULs from both ends: what stands around values, but is no part of them.
func trimSpace(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func isSpace(c byte) bool { return c <= ' ' && (c == ' ' || c >= '\t' && c <= '\r' || c == 0) }

// equalFoldASCII compares without the case of ASCII letters.
func equalFoldASCII(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}
	for i, c := range b {
		if c != word[i] && lowerASCII(c) != lowerASCII(word[i]) {
			return false
		}
	}
	return true
}

func lowerASCII(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// containsFoldASCII reports whether word, given in lower case, stands somewhere in b.
func containsFoldASCII(b []byte, word string) bool {
	for i := 0; i+len(word) <= len(b); i++ {
		if equalFoldASCII(b[i:i+len(word)], word) {
			return true
		}
	}
	return false
}

// isAddress reports whether b is an IPv4 or IPv6 address as text, without zone or port.
func isAddress(b []byte) bool { return encIsIPv4(b) || encIsIPv6(b) }
