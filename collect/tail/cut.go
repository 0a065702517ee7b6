package tail

import "unicode/utf8"

// CutLength returns after how many bytes to cut a record that is too long: most, or up to three fewer so that no
// UTF-8 character is cut in two. p must hold more than most bytes, and most must be positive.
func CutLength(p []byte, most int) int {
	for n := most; n > 0 && n > most-utf8.UTFMax; n-- {
		if utf8.RuneStart(p[n]) {
			return n
		}
	}
	return most // not UTF-8: no place is better than another
}
