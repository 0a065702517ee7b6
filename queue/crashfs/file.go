package crashfs

import (
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// sector is the unit that a power cut does not tear.
const sector = 512

// inode is the content of a file.
type inode struct {
	data    []byte   // what a process reads
	disk    []byte   // what is durable
	pending []change // since the last Sync, in order
}

// change is a write or a truncation that is not synced.
type change struct {
	off  int64
	data []byte
	cut  bool // truncate to off
}

// apply returns the content after the change.
func (c change) apply(b []byte) []byte {
	if c.cut {
		if int64(len(b)) >= c.off {
			return b[:c.off]
		}
		return append(b, make([]byte, c.off-int64(len(b)))...)
	}
	if end := c.off + int64(len(c.data)); int64(len(b)) < end {
		b = append(b, make([]byte, end-int64(len(b)))...)
	}
	copy(b[c.off:], c.data)
	return b
}

// file is an open file.
type file struct {
	fs       *FS
	in       *inode
	path     string
	writable bool
	closed   bool
}

func (f *file) do(op string, work func() error) error {
	return f.fs.do(op, f.path, func() error {
		if f.closed {
			return os.ErrClosed
		}
		return work()
	})
}

// ReadAt implements io.ReaderAt.
func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.do("read", func() error {
		if off < int64(len(f.in.data)) {
			n = copy(p, f.in.data[off:])
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt.
func (f *file) WriteAt(p []byte, off int64) (n int, err error) {
	fault, faulty := f.fs.begin("write", f.path)
	if faulty && !fault.After && !fault.Short {
		return 0, &os.PathError{Op: "write", Path: f.path, Err: fault.Err}
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed || !f.writable {
		return 0, &os.PathError{Op: "write", Path: f.path, Err: os.ErrClosed}
	}
	n = len(p)
	if faulty && fault.Short {
		n, err = n/2, fault.Err
	}
	if limit := f.fs.capacity; limit > 0 {
		grows := off + int64(n) - int64(len(f.in.data))
		if room := max(0, limit-f.fs.usedLocked()); grows > room {
			n, err = int(max(0, int64(n)-(grows-room))), syscall.ENOSPC
		}
	}
	c := change{off: off, data: slices.Clone(p[:n])}
	f.in.data = c.apply(f.in.data)
	f.in.pending = append(f.in.pending, c)
	if faulty && fault.After {
		n, err = 0, fault.Err // all of it may be there, none of it is reported
	}
	if err != nil {
		err = &os.PathError{Op: "write", Path: f.path, Err: err}
	}
	return n, err
}

// Sync makes the content durable. A fault in the form "before" throws the pending changes away: like the dirty pages of
// Linux they can still be read, but no later Sync makes them durable.
func (f *file) Sync() error {
	fault, faulty := f.fs.begin("sync", f.path)
	faulty = faulty && !fault.Short
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return &os.PathError{Op: "sync", Path: f.path, Err: os.ErrClosed}
	}
	if !faulty || fault.After {
		for _, c := range f.in.pending {
			f.in.disk = c.apply(f.in.disk)
		}
	}
	f.in.pending = nil
	if faulty {
		return &os.PathError{Op: "sync", Path: f.path, Err: fault.Err}
	}
	return nil
}

// Truncate implements queue.File.
func (f *file) Truncate(size int64) error {
	return f.do("truncate", func() error {
		if !f.writable {
			return os.ErrPermission
		}
		c := change{off: size, cut: true}
		f.in.data = c.apply(f.in.data)
		f.in.pending = append(f.in.pending, c)
		return nil
	})
}

// Size implements queue.File.
func (f *file) Size() (size int64, err error) {
	err = f.do("stat", func() error {
		size = int64(len(f.in.data))
		return nil
	})
	return size, err
}

// Close implements io.Closer. It is not counted as a call: the queue ignores its errors where everything is synced.
func (f *file) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return &os.PathError{Op: "close", Path: f.path, Err: os.ErrClosed}
	}
	f.closed = true
	return nil
}

// Loss is what a crash does with what was not synced.
type Loss int

// The kinds of crashes.
const (
	Keep   Loss = iota // the process dies, the machine goes on: nothing is lost, and nothing is more durable than before
	Forget             // all of it is lost
	Torn               // of each file and of the names a prefix survives; the last write ends at a sector
	Subset             // sectors of unsynced writes and changes of names survive independently of each other
)

// Losses are all kinds of crashes.
var Losses = []Loss{Keep, Forget, Torn, Subset}

// Crash returns the file system as it is after a crash now. The old one goes on, so that the processes on it can end.
// The same seed gives the same result.
func (fs *FS) Crash(loss Loss, seed uint64) *FS {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if loss == Keep {
		return fs.kill()
	}
	rnd := rand.New(rand.NewPCG(seed, uint64(loss)))
	names := map[string]*inode{}
	for path, in := range fs.durable {
		names[path] = in
	}
	kept := len(fs.pending)
	if loss == Torn {
		kept = rnd.IntN(len(fs.pending) + 1)
	}
	for i, c := range fs.pending {
		if loss == Torn && i < kept || loss == Subset && rnd.IntN(2) == 0 {
			for path, in := range c.set {
				apply(names, path, in)
			}
		}
	}
	after := New()
	for dir := range fs.dirs {
		after.dirs[dir] = true
	}
	for _, path := range slices.Sorted(maps.Keys(names)) {
		content := names[path].after(loss, rnd)
		in := &inode{data: content, disk: slices.Clone(content)}
		after.names[path], after.durable[path] = in, in
		after.dirs[filepath.Dir(path)] = true
	}
	return after
}

// kill copies everything but the locks.
func (fs *FS) kill() *FS {
	after := New()
	after.dirs = maps.Clone(fs.dirs)
	copies := map[*inode]*inode{nil: nil}
	copyOf := func(in *inode) *inode {
		if _, ok := copies[in]; !ok {
			copies[in] = &inode{data: slices.Clone(in.data), disk: slices.Clone(in.disk), pending: slices.Clone(in.pending)}
		}
		return copies[in]
	}
	for path, in := range fs.names {
		after.names[path] = copyOf(in)
	}
	for path, in := range fs.durable {
		after.durable[path] = copyOf(in)
	}
	for _, c := range fs.pending {
		set := map[string]*inode{}
		for path, in := range c.set {
			set[path] = copyOf(in)
		}
		after.pending = append(after.pending, &nameChange{set: set, dirs: maps.Clone(c.dirs)})
	}
	return after
}

// after returns the content of a file after a crash.
func (in *inode) after(loss Loss, rnd *rand.Rand) []byte {
	content := slices.Clone(in.disk)
	if loss == Forget || len(in.pending) == 0 {
		return content
	}
	if loss == Subset {
		for _, c := range in.pending {
			for _, part := range c.sectors() {
				if rnd.IntN(2) == 0 {
					content = part.apply(content)
				}
			}
		}
		return content
	}
	kept := rnd.IntN(len(in.pending))
	for _, c := range in.pending[:kept] {
		content = c.apply(content)
	}
	parts := in.pending[kept].sectors()
	for _, part := range parts[:rnd.IntN(len(parts)+1)] {
		content = part.apply(content)
	}
	return content
}

// sectors cuts a write where the sectors of the file begin.
func (c change) sectors() (parts []change) {
	if c.cut || len(c.data) == 0 {
		return []change{c}
	}
	for off, data := c.off, c.data; len(data) > 0; {
		n := min(int64(len(data)), sector-off%sector)
		parts = append(parts, change{off: off, data: data[:n]})
		off, data = off+n, data[n:]
	}
	return parts
}
