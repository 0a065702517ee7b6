package tail

import "bytes"

// delimiters are those that a header line may use, the likeliest first.
const delimiters = ",;\t|"

// recordEnd returns where the first CSV record in p ends: the index of its line feed, or -1 if p does not hold all of
// it. lf is the index of the first line feed in p. A quote opens a cell only at its start (RFC 4180 section 2 rule 5);
// elsewhere it is an ordinary character, because people write 5" disks. comma 0 stands for any of the delimiters.
func recordEnd(p []byte, lf int, comma byte) int {
	if lf < 0 {
		return -1
	}
	at := 0
	for {
		q := bytes.IndexByte(p[at:lf], '"')
		if q < 0 {
			return lf
		}
		q += at
		at = q + 1
		if q > 0 && !isDelimiter(p[q-1], comma) {
			continue
		}
		if at = closingQuote(p, at); at < 0 {
			return -1
		}
		if at > lf {
			next := bytes.IndexByte(p[at:], '\n')
			if next < 0 {
				return -1
			}
			lf = at + next
		}
	}
}

// closingQuote returns the index behind the quote that closes the cell whose text begins at p[at], or -1.
// A quote that is the last byte of p does not count: the next byte could double it.
func closingQuote(p []byte, at int) int {
	for {
		q := bytes.IndexByte(p[at:], '"')
		if q < 0 || at+q+1 == len(p) {
			return -1
		}
		at += q + 1
		if p[at] != '"' {
			return at
		}
		at++
	}
}

func isDelimiter(c, comma byte) bool {
	if comma != 0 {
		return c == comma
	}
	return bytes.IndexByte([]byte(delimiters), c) >= 0
}

// findComma returns the delimiter that occurs most often in the header row outside of quotes; a comma if none does.
func findComma(header []byte) byte {
	var count [len(delimiters)]int
	quoted := false
	for _, c := range header {
		if c == '"' {
			quoted = !quoted
		} else if i := bytes.IndexByte([]byte(delimiters), c); i >= 0 && !quoted {
			count[i]++
		}
	}
	best := 0
	for i := range count {
		if count[i] > count[best] {
			best = i
		}
	}
	return delimiters[best]
}

// separatorLine understands the line "sep=;" that spreadsheet programs put and want before the header.
func separatorLine(line []byte) (comma byte, ok bool) {
	if len(line) != 5 || !bytes.EqualFold(line[:4], []byte("sep=")) {
		return 0, false
	}
	return line[4], bytes.IndexByte([]byte(" ^~:"+delimiters), line[4]) >= 0
}

// knownColumns are column names, in lower case without blanks and underscores, of the exports that products write. The
// seeds list the columns of Netop Portal and of Imagicle UCX; the last row is the newer cloud export of UCX.
const knownColumns = " " +
	"source session userid username accountid entitytype action entityid entityname resultcode data " +
	"actiontimestamp actiondate environment " +
	"applicationid timestamp(servertimezone) firstname lastname tenant clientip ucxsuitenode details " +
	"date email ipaddress appname actiontype "

// looksLikeHeader reports whether the line has at least four cells and three of four are columns of a product that we
// know.
func looksLikeHeader(line []byte) bool {
	known, cells := 0, 0
	for cell := range bytes.SplitSeq(line, []byte{findComma(line)}) {
		cells++
		if cells > 64 || len(cell) > 64 {
			return false
		}
		name := bytes.Map(func(r rune) rune {
			if r == ' ' || r == '_' || r == '"' {
				return -1
			}
			return r
		}, bytes.ToLower(cell))
		if len(name) > 0 && bytes.Contains([]byte(knownColumns), append(append([]byte{' '}, name...), ' ')) {
			known++
		}
	}
	return cells >= 4 && known*4 >= cells*3
}
