package tail

import (
	"bytes"
	"iter"
	"maps"

	"github.com/auditrelay/auditrelay/audit"
)

// headerKeptBytes is the longest header that is stored in a position and kept for later generations of its path. A
// longer one is read again from the start of the file. The queue bounds all positions together to 64 MiB.
const headerKeptBytes = 2 << 10

// headerLine is what was found at the start of a CSV file.
type headerLine struct {
	text     []byte
	comma    byte
	at, used int  // where it begins and where the record behind it does
	literal  bool // a quote in it is not closed: it is the line as it is
}

// headerRow finds the header row: the first record that is neither empty nor a separator line. literal takes lines for
// records, whatever quotes are in them.
func headerRow(p []byte, literal bool) (h headerLine, ok bool) {
	h.literal = literal
	for {
		end := bytes.IndexByte(p[h.used:], '\n')
		if !literal {
			end = recordEnd(p[h.used:], end, h.comma)
		}
		if end < 0 {
			return headerLine{}, false
		}
		row := trimCR(p[h.used : h.used+end])
		h.at, h.used = h.used, h.used+end+1
		if sep, is := separatorLine(row); is {
			h.comma = sep
			continue
		}
		if len(row) == 0 {
			continue
		}
		h.text = row
		if h.comma == 0 {
			h.comma = findComma(h.plain())
		}
		return h, true
	}
}

// plain returns the row for looking at its cells: without its quotes if they make no sense.
func (h *headerLine) plain() []byte {
	if h.literal {
		return bytes.ReplaceAll(h.text, []byte{'"'}, nil)
	}
	return h.text
}

// cellsOf yields the cells of a row with the quotes around them.
func cellsOf(row []byte, comma byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		start, quoted := 0, false
		for i, c := range row {
			switch {
			case c == '"' && (quoted || i == start || row[i-1] == '"'):
				quoted = !quoted
			case c == comma && !quoted:
				if !yield(row[start:i]) {
					return
				}
				start = i + 1
			}
		}
		yield(row[start:])
	}
}

func countCells(row []byte, comma byte) (n int) {
	for range cellsOf(row, comma) {
		n++
	}
	return n
}

// isDoubtful reports whether a row does not look like a header: some cell is empty or is a number, a date, a time, an
// address. A header of a product that we know is never doubtful.
func isDoubtful(row []byte, comma byte) bool {
	if looksLikeHeader(row) {
		return false
	}
	for cell := range cellsOf(row, comma) {
		cell = bytes.Trim(cell, " \t\"")
		if len(cell) == 0 || bytes.IndexByte([]byte("0123456789+-"), cell[0]) >= 0 &&
			len(bytes.Trim(cell, "0123456789 .:-/+TZ")) == 0 {
			return true
		}
	}
	return false
}

// keptHeader is the header of the newest generation of a path.
type keptHeader struct {
	text         []byte
	comma        byte
	birth, mtime int64 // of the generation
}

// chooseHeader decides what the first row of a new CSV file is. Whatever it is, nothing is lost: a row that does not
// look like a header comes out as a record, under the header of the generation before it if there is one of as many
// cells, else under itself.
func (f *Follower) chooseHeader(fl *file, s *beginning) {
	row, text := s.row.plain(), s.row.text
	earlier, ok := f.headers[fl.family]
	if !ok {
		earlier, ok = f.headers[fl.path]
	}
	repeated := ok && bytes.Equal(text, earlier.text)
	if ok && !repeated && isDoubtful(row, earlier.comma) &&
		countCells(row, earlier.comma) == countCells(earlier.text, earlier.comma) {
		s.header, s.comma = earlier.text, earlier.comma
		s.used += s.row.at - s.row.used
		f.log.Info("the CSV file begins without a header, keeping the one before", "path", fl.seenAt)
		return
	}
	if isDoubtful(row, s.comma) {
		s.used += s.row.at - s.row.used
		fl.marks |= audit.MarkColumnsDiffer
		if !repeated {
			f.log.Warn("the first row of the CSV file does not look like a header: it counts as one and as a record; "+
				"let the application write a header, or set the format to text", "path", fl.seenAt)
		}
		return
	}
	if s.row.literal {
		fl.marks |= audit.MarkColumnsDiffer
		f.log.Warn("the CSV header has a quote that is not closed, taking its first line as it is", "path", fl.seenAt)
	}
}

// setOrigin says what the records of the file have in common.
func (f *Follower) setOrigin(fl *file, format audit.Format, header []byte, comma byte) {
	fl.known, fl.atRest = true, false
	fl.quoteOpen, fl.waitsFor = false, -1
	fl.format = format
	fl.origin = &audit.Origin{Path: fl.path, Format: format, Header: header, Comma: comma}
	fl.header, fl.comma, fl.repeats = nil, 0, false
	if format != audit.FormatCSV {
		return
	}
	fl.repeats = !isDoubtful(header, comma)
	if len(header) <= headerKeptBytes {
		fl.header, fl.comma = header, comma
		f.keepHeader(fl.family, &fl.position)
	}
}

// keepHeader keeps the header of a position for later generations of the path.
func (f *Follower) keepHeader(path string, p *position) {
	if _, have := f.headers[path]; !have && len(f.headers) >= 2*f.opt.MaxFiles {
		maps.DeleteFunc(f.headers, func(path string, _ keptHeader) bool {
			_, there := f.occupants[path]
			return !there
		})
		if len(f.headers) >= 2*f.opt.MaxFiles {
			return
		}
	}
	f.headers[path] = keptHeader{p.header, p.comma, p.birth, p.mtime}
}

// restoreHeader keeps the header of a stored position if it is the newest one of its path.
func (f *Follower) restoreHeader(p *position) {
	if len(p.header) == 0 {
		return
	}
	if have, ok := f.headers[p.path]; ok && olderFirst(&position{birth: have.birth, mtime: have.mtime}, p) > 0 {
		return
	}
	f.keepHeader(p.path, p)
}
