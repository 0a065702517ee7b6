package forward

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/auditrelay/auditrelay/audit"
)

// run is one Run of a Forwarder: three kinds of goroutines that pass flights to each other. The loop owns everything
// here and alone calls the Log; it starts one goroutine for the Read under way and one for each open receipt. The
// sender calls the Sink. So there are at most two batches in memory: one with the sender and one that was read ahead.
type run struct {
	f       *Forwarder
	toSend  chan *flight // room for one: a flight is put in only when the sender has none
	sent    chan *flight // the sender's results
	waited  chan *flight // the receipts' results; room for all, so no goroutine is left hanging
	read    chan readResult
	waiters sync.WaitGroup

	cancelRead context.CancelFunc // of the Read under way; nil = none
	ready      *flight            // read ahead, not yet with the sender
	sending    bool               // the sender has the last of open
	open       []*flight          // handed to the sender and not done, oldest first
	waits      backoff            // after failed receipts
	resumeAt   time.Time          // nothing is read before, because a receipt failed

	upTo    audit.Number // done with, to be committed
	dirty   bool         // upTo is not committed
	dirtyAt time.Time    // since when
	quietAt time.Time    // when something was done last
	state   []byte       // buffer for the stored state

	commitFailed bool // Run ends: whether there can be another commit is for the log's owner to know
}

// flight is a batch on its way. While it is with the sender, only the sender touches it.
type flight struct {
	batch       *audit.Events // nil when the destination took it: from then on only numbers are kept
	first, last audit.Number  // as read, before the filter
	through     audit.Number  // the highest number counted when it was read
	counts      Totals        // what it adds when it is done
	receipt     Receipt
	err         error
	busy        bool          // the sender or the receipt's goroutine has it
	done        bool          // the destination has it
	abandoned   chan struct{} // closed when it is to be read and sent again
	cancelWait  func()        // ends the wait for the receipt
}

type readResult struct {
	batch     *audit.Events
	err       error
	cancelled bool
}

var (
	errGivenUp  = errors.New("given up")
	errNoEvents = errors.New("no events and no error came back")
)

func newRun(f *Forwarder) *run {
	return &run{
		f: f, toSend: make(chan *flight, 1), sent: make(chan *flight, 1), waited: make(chan *flight, f.receiptsMax),
		read: make(chan readResult, 1), waits: backoff{Retry: f.retry},
	}
}

// loop returns nil when ctx is done and an error when the log fails. What is under way then is left to finish.
func (r *run) loop(ctx, work context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		if err := r.advance(ctx); err != nil {
			return err
		}
		r.dispatch()
		now := time.Now()
		if r.cancelRead == nil && r.ready == nil && !now.Before(r.resumeAt) {
			r.startRead(ctx)
		}
		timer.Reset(r.untilDue(now))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case res := <-r.read:
			if err := r.take(res); err != nil {
				return err
			}
		case fl := <-r.sent:
			r.landed(fl, work)
		case fl := <-r.waited:
			r.confirmed(fl)
		}
	}
	return nil
}

// advance counts what is done, commits if it is time, and goes back if a receipt failed.
func (r *run) advance(ctx context.Context) error {
	r.settle()
	if r.dirty && !time.Now().Before(r.commitDue()) {
		if err := r.commit(); err != nil {
			return err
		}
	}
	for i, fl := range r.open {
		if !fl.busy && !fl.done {
			return r.goBack(ctx, i)
		}
	}
	return nil
}

// settle takes from the head of the open flights those that are done. Only here are events counted: in order, once.
func (r *run) settle() {
	n := 0
	for n < len(r.open) && r.open[n].done {
		fl := r.open[n]
		r.upTo = fl.last
		r.f.settle(fl)
		n++
	}
	if n == 0 {
		return
	}
	r.open = append(r.open[:0], r.open[n:]...)
	if !r.dirty {
		r.dirty, r.dirtyAt = true, time.Now()
	}
}

func (f *Forwarder) settle(fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done.Delivered += fl.counts.Delivered
	f.done.Filtered += fl.counts.Filtered
	f.done.DeadLettered += fl.counts.DeadLettered
	f.done.Replayed += fl.counts.Replayed
	f.done.through = max(f.done.through, fl.last)
}

func (f *Forwarder) setReceipts(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Receipts = n
}

func (r *run) unconfirmed() (n int) {
	for _, fl := range r.open {
		if fl.batch == nil && !fl.done {
			n++
		}
	}
	return n
}

// commitDue says when a dirty cursor is committed: when the log has been drained for a moment, or when it waited long
// enough while more was coming.
func (r *run) commitDue() time.Time {
	due := r.dirtyAt.Add(r.f.commitEvery)
	if idle := r.quietAt.Add(idleBeforeCommit); r.ready == nil && !r.sending && idle.Before(due) {
		due = idle
	}
	return due
}

// untilDue returns how long the loop may sleep.
func (r *run) untilDue(now time.Time) time.Duration {
	d := time.Hour
	if r.dirty {
		d = min(d, r.commitDue().Sub(now))
	}
	if wait := r.resumeAt.Sub(now); wait > 0 {
		d = min(d, wait)
	}
	return max(d, 0)
}

// commit stores the cursor. A crash before it returns costs doubles, never a loss.
func (r *run) commit() error {
	if err := r.stopRead(); err != nil {
		return err
	}
	r.f.mu.Lock()
	r.state = r.f.done.append(r.state[:0])
	totals := r.f.done.Totals
	r.f.mu.Unlock()
	r.dirty = false
	if err := r.f.log.Commit(r.upTo, r.state); err != nil {
		r.commitFailed = true
		return fmt.Errorf("commit up to event %d: %w", r.upTo, err)
	}
	r.f.mu.Lock()
	r.f.stats.Totals, r.f.stats.Committed = totals, r.upTo
	r.f.mu.Unlock()
	if r.f.onCommit != nil {
		r.f.onCommit(r.upTo)
	}
	return nil
}

// dispatch hands what was read ahead to the sender if it is free.
func (r *run) dispatch() {
	if r.ready == nil || r.sending || len(r.open) >= r.f.receiptsMax {
		return
	}
	fl := r.ready
	r.ready = nil
	r.open = append(r.open, fl)
	if len(fl.batch.List) == 0 { // all filtered
		fl.batch.Release()
		fl.batch, fl.done = nil, true
		r.quietAt = time.Now()
		r.settle()
		return
	}
	fl.busy, r.sending = true, true
	r.toSend <- fl
}

// landed takes a flight back from the sender.
func (r *run) landed(fl *flight, work context.Context) {
	r.sending = false
	r.quietAt = time.Now()
	fl.batch.Release()
	fl.batch = nil
	switch {
	case fl.err != nil:
		fl.busy = false
	case fl.receipt == nil:
		fl.busy, fl.done = false, true
		r.f.delivered()
	default:
		ctx, cancel := context.WithCancel(work)
		fl.cancelWait = cancel
		r.f.setReceipts(r.unconfirmed())
		r.waiters.Go(func() {
			fl.err = fl.receipt.Wait(ctx)
			r.waited <- fl
		})
	}
}

// confirmed takes a flight back whose receipt came or failed.
func (r *run) confirmed(fl *flight) {
	fl.cancelWait()
	fl.busy = false
	r.quietAt = time.Now()
	if fl.err == nil {
		fl.done = true
		r.waits.reset()
		r.f.delivered()
	}
	r.f.setReceipts(r.unconfirmed())
}

// goBack reads and sends the i-th open flight again and all that came after it. Only numbers are left of them, so this
// costs no memory; the later ones may arrive twice.
func (r *run) goBack(ctx context.Context, i int) error {
	first, cause := r.open[i].first, r.open[i].err
	if err := r.stopRead(); err != nil {
		return err
	}
	r.dropReady()
	for _, fl := range r.open[i:] {
		close(fl.abandoned)
		if fl.cancelWait != nil {
			fl.cancelWait()
		}
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	r.drain(gone, func() bool { return anyBusy(r.open[i:]) })
	r.open = r.open[:i]
	r.f.setReceipts(r.unconfirmed())
	if ctx.Err() != nil {
		return nil
	}
	if err := r.f.log.Rewind(first); err != nil {
		return fmt.Errorf("go back to event %d: %w", first, err)
	}
	wait := r.waits.after(cause)
	r.resumeAt = time.Now().Add(wait)
	r.f.failing(StateRetrying, fmt.Errorf("wait for the confirmation: %w", cause), wait)
	return nil
}

// drain takes results until more reports false. Receipts that come meanwhile are waited for until waitCtx is done.
func (r *run) drain(waitCtx context.Context, more func() bool) {
	for more() {
		select {
		case fl := <-r.sent:
			r.landed(fl, waitCtx)
		case fl := <-r.waited:
			r.confirmed(fl)
		}
	}
}

func anyBusy(flights []*flight) bool {
	for _, fl := range flights {
		if fl.busy {
			return true
		}
	}
	return false
}
