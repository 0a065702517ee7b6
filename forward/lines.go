package forward

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lineFile is a file of lines that only we append to. What an append that failed left behind is cut off again, so that
// sending the lines once more doubles nothing.
type lineFile struct {
	file appendFile
	info fs.FileInfo // of the open file, to see when another file took its name
	torn bool        // a crash had left an unfinished last line, which was ended
}

// appendFile is what is needed of an *os.File, so that tests can make it fail.
type appendFile interface {
	io.WriteCloser
	io.ReaderAt
	Name() string
	Stat() (fs.FileInfo, error)
	Sync() error
	Truncate(size int64) error
}

// openLines opens or creates a file for appending. It follows no symbolic link and takes regular files only. A last
// line without an end is what a crash left of an append that was never confirmed: it is ended, so that it stays alone.
func openLines(path string, mode fs.FileMode) (*lineFile, error) {
	const flags = os.O_RDWR | os.O_APPEND | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	file, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		file, err = os.OpenFile(path, flags|os.O_CREATE|os.O_EXCL, mode)
		if err == nil {
			if err = syncDir(filepath.Dir(path)); err != nil {
				// Else the next try would find the file and trust that its name lasts.
				err = errors.Join(err, os.Remove(path))
			}
		}
	}
	if errors.Is(err, unix.ELOOP) {
		err = fmt.Errorf("%w: it is a symbolic link, give the path of the file itself", err)
	}
	if err != nil {
		if file != nil {
			_ = file.Close() // empty, and already removed
		}
		return nil, err
	}
	l := &lineFile{file: file}
	if err := l.begin(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return l, nil
}

func (l *lineFile) begin() (err error) {
	if l.info, err = l.file.Stat(); err != nil {
		return err
	}
	if !l.info.Mode().IsRegular() {
		return fmt.Errorf("open %s: not a regular file", l.file.Name())
	}
	size := l.info.Size()
	if size == 0 {
		return nil
	}
	var last [1]byte
	if _, err := l.file.ReadAt(last[:], size-1); err != nil {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	if _, err := l.file.Write([]byte{'\n'}); err != nil {
		return err
	}
	l.torn = true
	return nil
}

// length returns how long the file is. It is asked for anew each time, because who copies and empties a log file makes
// it shorter.
func (l *lineFile) length() (int64, error) {
	info, err := l.file.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// write appends whole lines and, if sync is set, makes them durable. If it fails, it cuts off what it had written;
// undone says whether that worked. The file must then be closed: an fsync that failed must not be tried again on it.
func (l *lineFile) write(p []byte, sync bool) (undone bool, err error) {
	before, err := l.length()
	if err != nil {
		return true, err
	}
	if _, err = l.file.Write(p); err == nil && sync {
		err = l.file.Sync()
	}
	if err == nil {
		return false, nil
	}
	if cutErr := l.file.Truncate(before); cutErr != nil {
		return false, errors.Join(err, cutErr)
	}
	return true, err
}

// replaced reports whether the path does not lead to this file any more.
func (l *lineFile) replaced(path string) bool {
	info, err := os.Lstat(path)
	return err != nil || !os.SameFile(info, l.info)
}

// makeDir makes a directory, and those above it, so that they last.
func makeDir(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("make directory %s: %w", dir, unix.ENOTDIR)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// syncDir makes the creation or the new name of a file in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}
