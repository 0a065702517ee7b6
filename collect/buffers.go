package collect

import (
	"context"
	"errors"
	"sync"
	"time"
)

// buffers counts the bytes of all connections' buffers beyond connectionBytes each. Who gets no room waits: nothing is
// read from that connection, which holds its sender back. So that connections with halves of long messages cannot wait
// for each other for ever, one of them at a time may go beyond the limit.
type buffers struct {
	limit int64

	mu       sync.Mutex
	used     int64         // guarded by mu
	overdraw *connection   // who is beyond the limit; guarded by mu
	given    chan struct{} // closed when bytes are given back; nil if nobody waits; guarded by mu
	waiting  int           // how many wait; guarded by mu
}

// take adds n bytes, of which a negative number are given back. It reports false if there is no room.
func (b *buffers) take(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > 0 && b.used+int64(n) > b.limit {
		return false
	}
	b.addLocked(n)
	return true
}

func (b *buffers) addLocked(n int) {
	b.used += int64(n)
	if b.used <= b.limit {
		b.overdraw = nil
	}
	if n < 0 && b.given != nil {
		close(b.given)
		b.given = nil
	}
}

var errNoRoom = errors.New("no room for a long message")

// wait adds n bytes when there is room for them. It waits for at most patience, then the error is errNoRoom; or until
// ctx ends.
func (b *buffers) wait(ctx context.Context, k *connection, n int, patience time.Duration) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting++
	defer func() { b.waiting-- }()
	for b.used+int64(n) > b.limit {
		if b.overdraw == nil || b.overdraw == k {
			break
		}
		if b.given == nil {
			b.given = make(chan struct{})
		}
		given := b.given
		b.mu.Unlock()
		var err error
		select {
		case <-given:
		case <-timer.C:
			err = errNoRoom
		case <-ctx.Done():
			err = ctx.Err()
		}
		b.mu.Lock()
		if err != nil {
			return err
		}
	}
	b.overdraw = k
	b.addLocked(n)
	return nil
}

// state returns how many bytes are in use and how many connections wait for some.
func (b *buffers) state() (used int64, waiting int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used, b.waiting
}
