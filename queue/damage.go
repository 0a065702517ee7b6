package queue

import (
	"bytes"
	"errors"
	"fmt"
	"os"
)

const (
	quarantineDir = "quarantine"
	// maxReported bounds the memory of what was reported already; past it damage is logged but not counted again.
	maxReported = 1 << 16
)

// Damage is a range of a file that cannot be read as what it should be.
type Damage struct {
	// First and Last are the numbers that are lost; both are 0 if no entry is known to be lost.
	First, Last uint64
	File        string // name in the queue directory
	Offset      int64
	Bytes       int64 // 0 if the bytes themselves are missing
	Reason      string
}

type rangeKey struct {
	file   string
	offset int64
	first  uint64
}

// damaged reports a range once. The caller holds no lock of the queue but, perhaps, a reader's.
func (q *Queue) damaged(d Damage) {
	if d.Last < d.First || d.First == 0 {
		d.First, d.Last = 0, 0
	}
	key := rangeKey{d.File, d.Offset, d.First}
	q.mu.Lock()
	_, known := q.reported[key]
	if known || len(q.reported) >= maxReported {
		q.mu.Unlock()
		return
	}
	q.reported[key] = struct{}{}
	q.stats.DamagedRanges++
	if d.First > 0 {
		q.stats.DamagedEntries += d.Last - d.First + 1
	}
	q.mu.Unlock()
	q.log.Error("queue file is damaged", "file", d.File, "offset", d.Offset, "bytes", d.Bytes,
		"first", d.First, "last", d.Last, "reason", d.Reason)
	if q.opt.Damaged != nil {
		q.opt.Damaged(d)
	}
}

// keepCopy copies a range of a file to quarantine, durably, unless the same bytes are there already. A view changes
// nothing.
func (q *Queue) keepCopy(f File, name string, off, n int64) error {
	if n <= 0 || q.readOnly {
		return nil
	}
	base := q.path(quarantineDir, fmt.Sprintf("%s@%d+%d", name, off, n))
	for i := 1; ; i++ {
		target := base
		if i > 1 {
			target = fmt.Sprintf("%s.%d", base, i)
		}
		same, err := q.sameCopy(target, f, off, n)
		if err == nil && same {
			return nil
		}
		if errors.Is(err, os.ErrNotExist) {
			return replaceFile(q.fs, target, func(to File) error { return copyRange(to, f, off, n) })
		}
		if err != nil {
			return err
		}
	}
}

// copyRange copies n bytes at off to the beginning of another file.
func copyRange(to, from File, off, n int64) error {
	buf := make([]byte, min(n, windowBytes))
	for done := int64(0); done < n; done += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), n-done)]
		got, err := readFull(from, buf, off+done)
		if err != nil {
			return err
		}
		if err := writeFull(to, buf[:got], done); err != nil {
			return err
		}
	}
	return nil
}

// sameCopy reports whether the file at path holds exactly the n bytes at off of f.
func (q *Queue) sameCopy(path string, f File, off, n int64) (same bool, err error) {
	have, err := q.fs.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, have.Close()) }()
	if size, err := have.Size(); err != nil || size != n {
		return false, err
	}
	a, b := make([]byte, min(n, windowBytes)), make([]byte, min(n, windowBytes))
	for done := int64(0); done < n; done += int64(len(a)) {
		a, b = a[:min(int64(len(a)), n-done)], b[:min(int64(len(b)), n-done)]
		if _, err := readFull(f, a, off+done); err != nil {
			return false, err
		}
		if _, err := readFull(have, b, done); err != nil {
			return false, err
		}
		if !bytes.Equal(a, b) {
			return false, nil
		}
	}
	return true, nil
}

// moveAside moves a file of the queue directory to quarantine, under a name that is free.
func (q *Queue) moveAside(name string) error {
	target := q.path(quarantineDir, name)
	for i := 2; ; i++ {
		f, err := q.fs.OpenFile(target, os.O_RDONLY)
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		target = q.path(quarantineDir, fmt.Sprintf("%s.%d", name, i))
	}
	if err := q.fs.Rename(q.path(name), target); err != nil {
		return err
	}
	return errors.Join(q.fs.SyncDir(q.path(quarantineDir)), q.fs.SyncDir(q.dir))
}
