package forward

import (
	"context"
	"fmt"

	"github.com/auditrelay/auditrelay/audit"
)

// startRead reads the next batch in a goroutine of its own, so that the loop can commit and take results meanwhile.
func (r *run) startRead(ctx context.Context) {
	ctx, r.cancelRead = context.WithCancel(ctx)
	batch := audit.GetEvents()
	go func() {
		err := r.f.log.Read(ctx, batch)
		r.read <- readResult{batch: batch, err: err, cancelled: ctx.Err() != nil}
	}()
}

// stopRead ends the Read under way, if any. What it read after all is kept.
func (r *run) stopRead() error {
	if r.cancelRead == nil {
		return nil
	}
	r.cancelRead()
	return r.take(<-r.read)
}

// take makes a flight of what was read.
func (r *run) take(res readResult) error {
	r.cancelRead()
	r.cancelRead = nil
	if res.err == nil && len(res.batch.List) > 0 {
		r.ready = r.f.newFlight(res.batch)
		return nil
	}
	res.batch.Release()
	switch {
	case res.err == nil:
		return fmt.Errorf("read the log: %w", errNoEvents)
	case res.cancelled:
		return nil // a Read that fails for another reason will do so again
	default:
		return fmt.Errorf("read the log: %w", res.err)
	}
}

// newFlight applies the filter to a batch and counts what it will add when it is done.
func (f *Forwarder) newFlight(batch *audit.Events) *flight {
	f.mu.Lock()
	through := f.done.through
	f.mu.Unlock()
	list := batch.List
	fl := &flight{
		batch: batch, first: list[0].Number, last: list[len(list)-1].Number, through: through,
		abandoned: make(chan struct{}),
	}
	kept := 0
	for i := range list {
		again := list[i].Number <= through
		switch {
		case f.filter != nil && f.filter(&list[i]):
			if !again {
				fl.counts.Filtered++
			}
			continue
		case again:
			fl.counts.Replayed++
		default:
			fl.counts.Delivered++
		}
		if kept != i {
			list[kept] = list[i]
		}
		kept++
	}
	clear(list[kept:])
	batch.List = list[:kept]
	return fl
}

// dropReady forgets what was read ahead. The next Read must be preceded by a Rewind, or there must be none.
func (r *run) dropReady() {
	if r.ready != nil {
		r.ready.batch.Release()
		r.ready = nil
	}
}

// finish lets what is under way end and commits what was delivered.
func (r *run) finish(work context.Context) error {
	err := r.stopRead()
	r.dropReady()
	r.drain(work, func() bool { return anyBusy(r.open) })
	close(r.toSend)
	r.waiters.Wait()
	r.settle()
	if r.dirty && !r.commitFailed {
		if commitErr := r.commit(); commitErr != nil {
			return commitErr
		}
	}
	return err
}
