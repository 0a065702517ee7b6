package queue

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// FS is what the queue needs of a file system. Paths are absolute or relative as given to [Open]; all methods may be
// called concurrently. Errors wrap those of package syscall, so that errors.Is(err, fs.ErrNotExist) and syscall.ENOSPC
// work.
type FS interface {
	// OpenFile opens a file with os.O_ flags: O_RDONLY, or O_RDWR with or without O_CREATE and O_EXCL. New files get
	// mode 0600.
	OpenFile(path string, flag int) (File, error)
	// MkdirAll makes a directory with mode 0700 and reports whether it made anything.
	MkdirAll(path string) (made bool, err error)
	// Rename replaces the target atomically. Durable after SyncDir of both directories.
	Rename(from, to string) error
	// Remove unlinks a file. Durable after SyncDir.
	Remove(path string) error
	// List returns the names in a directory, sorted.
	List(dir string) ([]string, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
	// Lock takes an exclusive lock that ends with the process, without waiting; ErrLocked if anybody has one. It makes
	// the file.
	Lock(path string) (io.Closer, error)
	// LockShared takes a lock that goes together with others of its kind and changes nothing; ErrLocked if somebody has
	// the exclusive one. An error that wraps fs.ErrNotExist says that there is no file.
	LockShared(path string) (io.Closer, error)
}

// File is an open file. ReadAt and WriteAt may be called concurrently and keep the contracts of io.ReaderAt and
// io.WriterAt.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes contents and size durable (fdatasync). After an error nothing is known about what was written since
	// the last success, also if a later Sync succeeds.
	Sync() error
	Truncate(size int64) error
	Size() (int64, error)
}

// osFS is the operating system's file system.
type osFS struct{}

type osFile struct{ *os.File }

func (osFS) OpenFile(path string, flag int) (File, error) {
	// O_NOFOLLOW: the queue makes all of its files itself, none of them is a symbolic link.
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) MkdirAll(path string) (bool, error) {
	if _, err := os.Stat(path); err == nil {
		return false, nil
	}
	return true, os.MkdirAll(path, 0o700)
}

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }

func (osFS) Remove(path string) error { return os.Remove(path) }

func (osFS) List(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (osFS) Lock(path string) (io.Closer, error) {
	f, err := flock(path, os.O_RDWR|os.O_CREATE, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "%d", os.Getpid()) // a hint for the operator; the lock itself is the flock
	}
	return f, nil
}

func (osFS) LockShared(path string) (io.Closer, error) {
	f, err := flock(path, os.O_RDONLY, unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// flock opens a file and locks it. A process that only looks leaves no pid behind, so the one in the message may be
// that of an earlier holder.
func flock(path string, flag, how int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
		holder := make([]byte, 20)
		n, _ := f.ReadAt(holder, 0) // only a hint for the message, empty is fine
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w, last by process %q; stop it first, or use another data directory",
				ErrLocked, holder[:n])
		}
		return nil, err
	}
	return f, nil
}

// Sync uses fdatasync: it includes the file size, and leaves out the times, which saves a journal write.
func (f osFile) Sync() error {
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// writeFull writes all of p at off. An interrupted or short write goes on where it stopped: writing the same bytes to
// the same place twice does no harm.
func writeFull(f File, p []byte, off int64) error {
	for tries := 0; ; tries++ {
		n, err := f.WriteAt(p, off)
		p, off = p[n:], off+int64(n)
		switch {
		case len(p) == 0 && err == nil:
			return nil
		case tries < maxWriteTries && (err == nil || errors.Is(err, unix.EINTR) || errors.Is(err, io.ErrShortWrite)):
		case err == nil:
			return io.ErrShortWrite
		default:
			return err
		}
	}
}

// maxWriteTries bounds the attempts of writeFull; a healthy kernel needs one, or two around a signal.
const maxWriteTries = 16

// noSpace says whether err means that the disk or a quota is full.
func noSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, errSpace)
}

// replaceFile fills a new file and puts it in the place of path, durably. At every moment the old or the new file
// is there, whole. On an error the temporary file is removed if that is possible; Open removes it otherwise.
func replaceFile(fs FS, path string, fill func(File) error) error {
	temp := path + newSuffix
	// A leftover must not be used: its descriptor may have seen a failed sync.
	if err := fs.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := fs.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	if err = fill(f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fs.Rename(temp, path)
	}
	if err != nil {
		_ = fs.Remove(temp) // Open removes it otherwise
		return err
	}
	return fs.SyncDir(filepath.Dir(path))
}
