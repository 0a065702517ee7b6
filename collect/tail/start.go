package tail

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/auditrelay/auditrelay/audit"
)

// startBytes is how much of a file's start is looked at first; more only if its first line is longer.
const startBytes = 4 << 10

const utf8BOM = "\xEF\xBB\xBF"

// begin looks at the start of a file: its format, its CSV header, and where its records begin. It returns false if
// there is too little yet. An error says why the file cannot be read.
func (f *Follower) begin(fl *file, size int64, now time.Time) (ok bool, err error) {
	if fl.hasID && len(fl.header) > 0 && f.formatOf(fl) == audit.FormatCSV {
		f.setOrigin(fl, audit.FormatCSV, fl.header, fl.comma)
		return true, nil
	}
	zeros, err := leadingZeros(fl.fd, size)
	if err != nil {
		return false, err
	}
	due := f.due(fl, now)
	fl.unfinished = zeros < size
	fl.atRest = !fl.unfinished || due
	if zeros == size {
		return false, nil
	}
	s, err := f.understand(fl, zeros, size, due)
	if errors.Is(err, errTooLittle) {
		if fl.waitsFor != zeros {
			fl.waitsFor, fl.unfinishedAt = zeros, now
		}
		fl.quoteOpen = s.open
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if s.format == audit.FormatCSV && !fl.hasID {
		f.chooseHeader(fl, &s)
	}
	f.setOrigin(fl, s.format, bytes.Clone(s.header), s.comma)
	fl.firstByte = zeros + int64(s.used)
	if fl.offset < fl.firstByte && !fl.hasID {
		fl.offset = fl.firstByte
		fl.fresh.Zeros += uint64(zeros)
		if err := f.remember(fl); err != nil {
			return false, err
		}
	}
	if fl.fromEnd {
		return true, f.skipToEnd(fl, size)
	}
	return true, nil
}

// skipToEnd lets reading begin with the last line that has no end yet. What was skipped is noted at once: found again
// after a restart the file must not be skipped to its new end.
func (f *Follower) skipToEnd(fl *file, size int64) error {
	window := make([]byte, min(size-fl.firstByte, 64<<10))
	n, err := readAt(fl.fd, window, size-int64(len(window)))
	if err != nil {
		return err
	}
	lf := bytes.LastIndexByte(window[:n], '\n')
	switch {
	case lf >= 0:
		fl.offset = size - int64(len(window)-lf-1)
	case int64(len(window)) < size-fl.firstByte:
		fl.offset = size
		fl.cut = cut{open: true, partial: true}
	}
	fl.rows = -1
	fl.fromEnd = false
	if err := f.remember(fl); err != nil {
		return err
	}
	start, _, _, err := f.unchanged(fl)
	if err != nil {
		return err
	}
	fl.draw(start[:min(int64(len(start)), fl.offset)])
	f.touch(fl)
	return nil
}

// leadingZeros returns how many zero bytes the file begins with: holes, as a truncation leaves them under a writer that
// goes on writing at its old offset.
func leadingZeros(fd int, size int64) (int64, error) {
	at, err := unix.Seek(fd, 0, unix.SEEK_DATA)
	if err != nil || at > size {
		at = 0 // the file system cannot tell, or there is nothing but a hole, which is read then
	}
	var buf [startBytes]byte
	for at < size {
		n, err := readAt(fd, buf[:], at)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return at, nil
		}
		rest := bytes.TrimLeft(buf[:n], "\x00")
		at += int64(n - len(rest))
		if len(rest) > 0 {
			return at, nil
		}
	}
	return size, nil
}

var errTooLittle = errors.New("too little to tell")

// beginning is what the first bytes of a file say.
type beginning struct {
	format audit.Format
	header []byte // valid until the next file is looked at
	comma  byte
	used   int        // bytes before the first record
	row    headerLine // CSV
	open   bool       // CSV: with errTooLittle: the first line is there, but a quote in it is not closed
}

// understand reads as much of the file's start as is needed to tell. due says that a first line without an end is not
// waited for any longer.
func (f *Follower) understand(fl *file, from, size int64, due bool) (beginning, error) {
	for n := startBytes; ; n = min(16*n, headerRowBytes) {
		if cap(f.headerRow) < n {
			f.headerRow = make([]byte, n)
		}
		k, err := readAt(fl.fd, f.headerRow[:min(int64(n), size-from)], from)
		if err != nil {
			return beginning{}, err
		}
		whole := from+int64(k) >= size
		s, err := f.judge(fl, f.headerRow[:k], whole && due, n == headerRowBytes && !whole)
		if !errors.Is(err, errTooLittle) || whole {
			return s, err
		}
	}
}

// judge tells the format from the first bytes p. final: what has no end, a line or a quoted cell, does not get one.
// tooLong: more will not be read.
func (f *Follower) judge(fl *file, p []byte, final, tooLong bool) (beginning, error) {
	if err := refusedStart(p, final); err != nil {
		return beginning{}, err
	}
	text := bytes.TrimPrefix(p, []byte(utf8BOM))
	s := beginning{format: f.formatOf(fl), used: len(p) - len(text)}
	if s.format == audit.FormatAuto {
		lf := bytes.IndexByte(text, '\n')
		blank := len(text) - len(bytes.TrimLeft(text, " \t\r\n"))
		switch {
		case blank < len(text) && text[blank] == '{':
			s.format = audit.FormatJSON
		case lf >= 0:
			if _, sep := separatorLine(trimCR(text[:lf])); sep || looksLikeHeader(trimCR(text[:lf])) {
				s.format = audit.FormatCSV
			}
		case !final && !tooLong:
			return beginning{}, errTooLittle
		}
	}
	if s.format != audit.FormatCSV {
		return s, nil
	}
	row, ok := headerRow(text, false)
	if !ok {
		row, s.open = headerRow(text, true)
		ok = s.open && (final || tooLong)
	}
	switch {
	case ok:
		s.row, s.header, s.comma = row, row.text, row.comma
		s.used += row.used
	case tooLong:
		f.log.Warn("no CSV header row found, reading lines", "path", fl.seenAt, "looked_at_bytes", len(p))
		s.format = audit.FormatText
	default:
		return s, errTooLittle
	}
	return s, nil
}

// refusedStarts are the first bytes of what is not text in UTF-8. A byte order mark of UTF-8 is in it because it has to
// be whole, too.
var refusedStarts = [...]struct{ magic, reason string }{
	{"\x1F\x8B", "is compressed (gzip): unpack it, or add it to exclude"},
	{"\x28\xB5\x2F\xFD", "is compressed (zstd): unpack it, or add it to exclude"},
	{"\xFD7zXZ", "is compressed (xz): unpack it, or add it to exclude"},
	{"BZh", "is compressed (bzip2): unpack it, or add it to exclude"},
	{"PK\x03\x04", "is compressed (zip): unpack it, or add it to exclude"},
	{"\xFF\xFE", "is UTF-16: convert it to UTF-8, or add it to exclude"},
	{"\xFE\xFF", "is UTF-16: convert it to UTF-8, or add it to exclude"},
	{utf8BOM, ""},
}

// refusedStart says why a file that begins like this is refused; nil if it is not. As long as the bytes are too few to
// tell, and more may come, the error is errTooLittle.
func refusedStart(p []byte, final bool) error {
	for _, s := range refusedStarts {
		switch {
		case bytes.HasPrefix(p, []byte(s.magic)) && s.reason != "":
			return errors.New(s.reason)
		case !final && len(p) < len(s.magic) && string(p) == s.magic[:len(p)]:
			return errTooLittle
		}
	}
	return nil
}

// formatOf returns the format that is known without looking at the content.
func (f *Follower) formatOf(fl *file) audit.Format {
	if f.opt.Format != audit.FormatAuto {
		return f.opt.Format
	}
	if fl.format != audit.FormatAuto {
		return fl.format
	}
	name := strings.ToLower(filepath.Base(fl.path))
	if i := strings.LastIndex(name, ".csv"); i >= 0 {
		if rest := name[i+len(".csv"):]; rest == "" || strings.ContainsAny(rest[:1], ".-_") {
			return audit.FormatCSV
		}
	}
	return audit.FormatAuto
}
