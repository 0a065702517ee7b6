// Package crashfs is a file system in memory for testing what the queue does when a disk fails and when the power goes.
// It counts calls, lets one of them fail in either form (it did not happen; it happened but was reported as failed),
// has a capacity, and forgets at a power cut what was not synced: contents and names.
//
// Its sync is as unforgiving as Linux: what a failed Sync was to make durable is never made durable by a later one,
// although it can be read until the power goes. Names are durable only after SyncDir. Directories themselves are never
// lost.
package crashfs

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/auditrelay/auditrelay/queue"
)

// Fault makes calls fail.
type Fault struct {
	Call  int   // number of the first call that fails; the first call of a file system is 1
	Times int   // how many calls in a row, 0 = one
	Err   error // what is returned, best a syscall.Errno
	// After means that the call does its work and then reports Err.
	After bool
	// Short means that a write does half of its work and then reports Err; other calls work as usual.
	Short bool
}

// FS is the file system. It may be used concurrently. Its zero value is not usable.
type FS struct {
	mu       sync.Mutex
	calls    int
	fault    Fault
	hook     func(call int, op, path string)
	capacity int64
	dirs     map[string]bool
	names    map[string]*inode // what a process sees
	durable  map[string]*inode // what is left after a power cut
	pending  []*nameChange     // not synced yet, in order
	locks    map[string]int    // holders of shared locks, -1 for an exclusive one
}

var _ queue.FS = (*FS)(nil)

// New returns an empty file system without faults and limits.
func New() *FS {
	return &FS{
		dirs: map[string]bool{}, names: map[string]*inode{}, durable: map[string]*inode{}, locks: map[string]int{},
	}
}

// Inject sets the fault; it replaces the one before.
func (fs *FS) Inject(f Fault) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.fault = f
}

// Hook sets a function that is called before each call does anything. It may use Crash, and Inject a fault for this
// very call.
func (fs *FS) Hook(f func(call int, op, path string)) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.hook = f
}

// Calls returns how many calls there were.
func (fs *FS) Calls() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.calls
}

// SetCapacity limits the bytes of all files; writes past it do what fits and return ENOSPC. Zero is no limit.
func (fs *FS) SetCapacity(n int64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.capacity = n
}

// Used returns the bytes of all files.
func (fs *FS) Used() int64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.usedLocked()
}

func (fs *FS) usedLocked() (n int64) {
	for _, in := range fs.names {
		n += int64(len(in.data))
	}
	return n
}

// nameChange is a change of directories: the paths and what they lead to afterwards (nil: nothing).
type nameChange struct {
	set  map[string]*inode
	dirs map[string]bool // that must be synced before it is durable
}

// begin counts a call and returns what it must do wrong.
func (fs *FS) begin(op, path string) (f Fault, faulty bool) {
	fs.mu.Lock()
	fs.calls++
	call, hook := fs.calls, fs.hook
	fs.mu.Unlock()
	if hook != nil {
		hook(call, op, path)
	}
	fs.mu.Lock()
	f = fs.fault
	fs.mu.Unlock()
	return f, f.Call > 0 && call >= f.Call && call < f.Call+max(f.Times, 1)
}

// do is a call without a short form.
func (fs *FS) do(op, path string, work func() error) error {
	f, faulty := fs.begin(op, path)
	faulty = faulty && !f.Short
	if faulty && !f.After {
		return &os.PathError{Op: op, Path: path, Err: f.Err}
	}
	fs.mu.Lock()
	err := work()
	fs.mu.Unlock()
	if faulty {
		err = f.Err
	}
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

// change makes a change of names that is durable after SyncDir.
func (fs *FS) change(set map[string]*inode) {
	c := &nameChange{set: set, dirs: map[string]bool{}}
	for path, in := range set {
		c.dirs[filepath.Dir(path)] = true
		apply(fs.names, path, in)
	}
	fs.pending = append(fs.pending, c)
}

func apply(names map[string]*inode, path string, in *inode) {
	if in == nil {
		delete(names, path)
		return
	}
	names[path] = in
}

// OpenFile implements queue.FS.
func (fs *FS) OpenFile(path string, flag int) (queue.File, error) {
	path = filepath.Clean(path)
	var opened *file
	err := fs.do("open", path, func() error {
		in, ok := fs.names[path]
		switch {
		case !ok && flag&os.O_CREATE == 0:
			return syscall.ENOENT
		case ok && flag&os.O_EXCL != 0:
			return syscall.EEXIST
		case !fs.dirs[filepath.Dir(path)]:
			return syscall.ENOENT
		case !ok && fs.capacity > 0 && fs.usedLocked() >= fs.capacity:
			return syscall.ENOSPC
		case !ok:
			in = &inode{}
			fs.change(map[string]*inode{path: in})
		}
		opened = &file{fs: fs, in: in, path: path, writable: flag&(os.O_RDWR|os.O_WRONLY) != 0}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return opened, nil
}

// MkdirAll implements queue.FS.
func (fs *FS) MkdirAll(path string) (made bool, err error) {
	path = filepath.Clean(path)
	err = fs.do("mkdir", path, func() error {
		made = !fs.dirs[path]
		for p := path; !fs.dirs[p]; p = filepath.Dir(p) {
			fs.dirs[p] = true
		}
		return nil
	})
	return made && err == nil, err
}

// Rename implements queue.FS.
func (fs *FS) Rename(from, to string) error {
	from, to = filepath.Clean(from), filepath.Clean(to)
	return fs.do("rename", from, func() error {
		in, ok := fs.names[from]
		if !ok || !fs.dirs[filepath.Dir(to)] {
			return syscall.ENOENT
		}
		fs.change(map[string]*inode{from: nil, to: in})
		return nil
	})
}

// Remove implements queue.FS.
func (fs *FS) Remove(path string) error {
	path = filepath.Clean(path)
	return fs.do("remove", path, func() error {
		if fs.names[path] == nil {
			return syscall.ENOENT
		}
		fs.change(map[string]*inode{path: nil})
		return nil
	})
}

// List implements queue.FS.
func (fs *FS) List(dir string) (names []string, err error) {
	dir = filepath.Clean(dir)
	err = fs.do("list", dir, func() error {
		if !fs.dirs[dir] {
			return syscall.ENOENT
		}
		for path := range fs.names {
			if filepath.Dir(path) == dir {
				names = append(names, filepath.Base(path))
			}
		}
		for path := range fs.dirs {
			if filepath.Dir(path) == dir && path != dir {
				names = append(names, filepath.Base(path))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// SyncDir implements queue.FS.
func (fs *FS) SyncDir(dir string) error {
	dir = filepath.Clean(dir)
	return fs.do("syncdir", dir, func() error {
		fs.pending = slices.DeleteFunc(fs.pending, func(c *nameChange) bool {
			delete(c.dirs, dir)
			if len(c.dirs) > 0 {
				return false
			}
			for path, in := range c.set {
				apply(fs.durable, path, in)
			}
			return true
		})
		return nil
	})
}

// Lock implements queue.FS. Locks do not survive Crash.
func (fs *FS) Lock(path string) (io.Closer, error) { return fs.lock(path, -1) }

// LockShared implements queue.FS. The file that Lock makes is not kept here, so it is never missing.
func (fs *FS) LockShared(path string) (io.Closer, error) { return fs.lock(path, 1) }

// lock adds one to the holders, or takes one away for the exclusive lock.
func (fs *FS) lock(path string, add int) (io.Closer, error) {
	path = filepath.Clean(path)
	taken := false
	err := fs.do("lock", path, func() error {
		if n := fs.locks[path]; n < 0 || n > 0 && add < 0 {
			return queue.ErrLocked
		}
		fs.locks[path] += add
		taken = true
		return nil
	})
	give := func() {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		fs.locks[path] -= add
	}
	if err == nil {
		return unlock(give), nil
	}
	if taken {
		// The form "it happened": the descriptor is lost with the error, and the lock with the descriptor.
		give()
	}
	return nil, err
}

type unlock func()

func (u unlock) Close() error { u(); return nil }

// ReadFile returns a copy of a file as a process sees it.
func (fs *FS) ReadFile(path string) ([]byte, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	in, ok := fs.names[filepath.Clean(path)]
	if !ok {
		return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
	}
	return slices.Clone(in.data), nil
}

// WriteFile puts a durable file in place, as somebody else would.
func (fs *FS) WriteFile(path string, data []byte) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	path = filepath.Clean(path)
	in := &inode{data: slices.Clone(data), disk: slices.Clone(data)}
	fs.names[path], fs.durable[path] = in, in
}

// Files returns all paths, sorted.
func (fs *FS) Files() []string {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return slices.Sorted(maps.Keys(fs.names))
}
