package queue

import (
	"fmt"
	"os"
	"time"
)

const (
	reserveName = "reserve"
	// reserveRetry is how long the writer leaves a disk alone that had no room for the reserve.
	reserveRetry = 5 * time.Second
)

// The reserve is a file of zeros that is given up when a full disk has no room for the head of one more segment. Without it
// a log that lies delivered in its newest segment alone could never give its space back. It holds nothing, so a crash at
// any moment leaves it there or not, whole or not. Owned by the writer.

// keepReserve makes the reserve if there is none. What it takes then is a part of what was just freed.
func (q *Queue) keepReserve() {
	if q.opt.ReserveBytes <= 0 || q.reserved || time.Since(q.reserveTried) < reserveRetry {
		return
	}
	if err := q.makeReserve(); err != nil {
		q.reserveTried = time.Now()
		_ = q.fs.Remove(q.path(reserveName)) // half of it would be taken for room that is not there
		q.log.Warn("no reserve for a full disk", "error", err)
		return
	}
	q.reserved = true
}

func (q *Queue) makeReserve() error {
	f, err := q.fs.OpenFile(q.path(reserveName), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return fmt.Errorf("create the reserve: %w", err)
	}
	defer f.Close()
	if err := writeFull(f, make([]byte, q.opt.ReserveBytes), 0); err != nil {
		return fmt.Errorf("write the reserve: %w", err)
	}
	return f.Sync()
}

// giveReserve removes the reserve and reports whether there was one.
func (q *Queue) giveReserve() bool {
	if !q.reserved {
		return false
	}
	q.reserved = false
	if err := q.fs.Remove(q.path(reserveName)); err != nil {
		q.log.Warn("the reserve could not be removed", "error", err)
		return false
	}
	return true
}
