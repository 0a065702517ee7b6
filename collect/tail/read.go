package tail

import (
	"fmt"
	"time"

	"github.com/auditrelay/auditrelay/audit"
)

// turn reads one block of the file into the batch. more says that there is more to read at once. Any error is the
// file's own: it is noted, and the file gets its next turn when it changed.
func (f *Follower) turn(fl *file, b *audit.Records, now time.Time) (more bool) {
	st, err := statFile(fl.fd)
	if err != nil {
		f.fail(fl, err)
		return false
	}
	f.look(fl, st, now)
	fl.triedSize, fl.triedMtime = st.size, st.mtime
	if st.size < fl.offset {
		f.truncated(fl, "it is shorter than what was read of it")
	}
	if !fl.known {
		if ok, err := f.begin(fl, st.size, now); err != nil {
			f.fail(fl, err)
			return false
		} else if !ok {
			return false
		}
	}
	end := endOf(fl, st.size)
	more, err = f.read(fl, b, end, now)
	if err != nil {
		f.fail(fl, err)
		return false
	}
	f.trouble(fl, "")
	more = more || fl.unfinished && end < st.size
	if more {
		fl.triedSize = -1
	}
	return more
}

func (f *Follower) fail(fl *file, err error) {
	fl.atRest = true
	fl.failedAt = time.Now()
	f.trouble(fl, err.Error())
}

// truncated makes the file start again. What was written to it and not read before is lost, and nobody can tell whether
// there was anything.
func (f *Follower) truncated(fl *file, why string) {
	f.log.Warn("file was truncated, reading it from its start; records may be missing",
		"path", fl.seenAt, "reason", why, "offset", fl.offset)
	fl.restart()
}

// endOf returns where reading ends in this turn. With Options.Once a file that grows for ever must not keep us: what
// was there when it was opened is read, and the record that was half written then.
func endOf(fl *file, size int64) int64 {
	if fl.limit < 0 || size <= fl.limit || fl.unfinished {
		return size
	}
	return max(fl.limit, fl.offset)
}

// read reads one block, or as many bytes as the first record needs, and takes the records out of it. The comparison
// with what was read before comes after the reading: whatever is compared equal was not truncated before it was read.
func (f *Follower) read(fl *file, b *audit.Records, end int64, now time.Time) (more bool, err error) {
	for size := f.blockBytes; ; size = f.opt.MaxRecord + 2 {
		buf := b.Alloc(int(min(end-fl.offset, int64(size))))
		n, err := readAt(fl.fd, buf, fl.offset)
		if err != nil {
			return false, err
		}
		start, before, ok, err := f.unchanged(fl)
		if err != nil {
			return false, err
		}
		if !ok {
			f.truncated(fl, "bytes that were read from it have changed")
			return true, nil
		}
		k := block{
			file: fl, batch: b, data: buf[:n], base: fl.offset, start: start,
			now: now, product: f.opt.Product, max: f.opt.MaxRecord,
		}
		used, full := k.take()
		atEnd := !full && (n < len(buf) || fl.offset+int64(n) >= end)
		if used == 0 && !atEnd && !full {
			continue
		}
		late := 0
		if fl.atRest, fl.unfinished = atEnd, atEnd && used < n; fl.unfinished {
			late = f.unfinished(&k, used)
			used += late
		}
		if used > 0 {
			fl.tail = tailOf(before, k.data[:used])
			fl.offset += int64(used)
			fl.position.mtime = fl.triedMtime
			f.touch(fl)
		}
		return !atEnd || late > 0 && used < n, nil
	}
}

// unfinished deals with the bytes behind the last record end, from k.data[at] on: they wait, or they come out if they
// waited long enough. It returns how many came out.
func (f *Follower) unfinished(k *block, at int) int {
	fl := k.file
	if offset := k.base + int64(at); fl.waitsFor != offset {
		fl.waitsFor, fl.unfinishedAt = offset, k.now
	}
	fl.quoteOpen = k.inQuotes(at)
	if !f.due(fl, k.now) {
		fl.atRest = false
		return 0
	}
	n := k.takeUnfinished(at)
	fl.unfinished = at+n < len(k.data)
	fl.atRest = n == 0 || !fl.unfinished
	return n
}

// unchanged compares the file with what is known of it and returns its first bytes and the last ones before the offset.
// Both are valid until the next call.
func (f *Follower) unchanged(fl *file) (start, before []byte, ok bool, err error) {
	n, err := readAt(fl.fd, f.scratch[:headBytes], 0)
	if err != nil {
		return nil, nil, false, err
	}
	start = f.scratch[:n]
	if !fl.head.matches(start) {
		return nil, nil, false, nil
	}
	before = f.scratch[headBytes : headBytes+fl.tail.n]
	n, err = readAt(fl.fd, before, fl.offset-int64(len(before)))
	if err != nil {
		return nil, nil, false, err
	}
	if !fl.tail.matches(before[:n]) && fl.tail.n > 0 {
		return nil, nil, false, nil
	}
	if len(start) > fl.head.n {
		fl.head = headOf(start)
	}
	return start, before, true, nil
}

// remember takes the fingerprints of a file at whose offset nothing was read before.
func (f *Follower) remember(fl *file) error {
	before := f.scratch[headBytes : headBytes+int(min(fl.offset, tailBytes))]
	n, err := readAt(fl.fd, before, fl.offset-int64(len(before)))
	if err != nil {
		return err
	}
	if n < len(before) {
		return fmt.Errorf("read before %d: the file became shorter", fl.offset)
	}
	fl.tail = tailOf(nil, before)
	return nil
}
