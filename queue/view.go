package queue

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// View opens a queue directory only to look at it: that of a daemon that is stopped, or a copy. It changes nothing on
// disk, not even a torn end. It takes a shared lock, so that several may look at once while nobody writes (ErrLocked);
// a directory without a lock file is looked at without one. An error that wraps fs.ErrNotExist says that there is no
// queue.
//
// Append, AppendSeen, Reserve, Reader, ReaderFrom and Forget answer ErrReadOnly; all else works. Damage is reported as
// by Open, but nothing is copied to quarantine. It starts no goroutines; Close lets go of the lock.
func View(dir string, opt Options) (*Queue, error) {
	q := newQueue(dir, opt)
	q.readOnly = true
	lock, err := q.fs.LockShared(filepath.Join(dir, "LOCK"))
	if errors.Is(err, os.ErrNotExist) {
		lock, err = noLock{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lock queue directory %s: %w", dir, err)
	}
	q.lock = lock
	if err := q.examine(); err != nil {
		return nil, errors.Join(fmt.Errorf("look at queue %s: %w", dir, err), q.closeFiles())
	}
	return q, nil
}

// noLock stands for the lock of a directory that has no lock file.
type noLock struct{}

func (noLock) Close() error { return nil }

var _ io.Closer = noLock{}

// examine sets up all state like recover, and changes nothing.
func (q *Queue) examine() error {
	logID, metaErr := q.readMeta()
	if metaErr != nil && !errors.Is(metaErr, os.ErrNotExist) && !errors.Is(metaErr, errHead) {
		return metaErr
	}
	have, err := q.look()
	if err != nil {
		return err
	}
	if errors.Is(metaErr, os.ErrNotExist) && len(have.segments) == 0 && len(have.strays) == 0 {
		return fmt.Errorf("there is no queue: %w", os.ErrNotExist)
	}
	if q.logID = logID; metaErr != nil {
		q.logID = have.logID
	}
	if errors.Is(metaErr, errHead) {
		q.lostMeta()
	}
	q.reportFound(have)
	q.segments = have.segments
	cursors, err := q.lookForCursors()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, c := range cursors {
		q.cursors[c.name] = c
		if c.floor = c.next; !c.placed {
			q.lostCursor(c)
		}
	}
	if err := q.recoverNewest(); err != nil {
		return err
	}
	return q.findMissing()
}
