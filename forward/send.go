package forward

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/auditrelay/auditrelay/audit"
)

// send is the sender's goroutine: it hands one flight after the other to the sink until the loop closes the channel. A
// flight comes back delivered, taken with a receipt, or given up because of stop or because the loop abandoned it.
func (r *run) send(stop, work context.Context) {
	waits := backoff{Retry: r.f.retry}
	for fl := range r.toSend {
		fl.err = r.f.deliver(stop, work, fl, &waits)
		r.sent <- fl
	}
}

// deliver sends a batch until it is taken. It gives up, with an error, only when stop is done or the flight is
// abandoned.
func (f *Forwarder) deliver(stop, work context.Context, fl *flight, waits *backoff) error {
	for {
		f.countResent(fl.batch)
		receipt, err := f.sink.Send(work, fl.batch)
		f.noteHanded(fl.batch, err)
		refused, isRefusal, valid := refusal(err, len(fl.batch.List))
		if err == nil || isRefusal && valid {
			fl.receipt = receipt
			waits.reset()
			return f.putAside(stop, fl, refused, waits)
		}
		if isRefusal {
			err = fmt.Errorf("the sink named no event that exists, so all are sent again: %w", err)
		}
		if stop.Err() != nil {
			return errGivenUp
		}
		wait := waits.after(err)
		f.failing(StateRetrying, err, wait)
		if !pause(stop, fl.abandoned, wait) {
			return errGivenUp
		}
	}
}

// refusal takes a RejectedError apart: indexes sorted and each once. valid is false if it names nothing, or an event
// that is not in a batch of n: then it cannot be believed that the others were delivered.
func refusal(err error, n int) (refused *RejectedError, is, valid bool) {
	if !errors.As(err, &refused) {
		return nil, false, false
	}
	indexes := slices.Clone(refused.Indexes)
	slices.Sort(indexes)
	indexes = slices.Compact(indexes)
	valid = len(indexes) > 0 && indexes[0] >= 0 && indexes[len(indexes)-1] < n
	return &RejectedError{Indexes: indexes, Reason: refused.Reason}, true, valid
}

// putAside writes refused events to the dead letters, for as long as it takes: the cursor must not pass an event that
// is nowhere else. Nothing of the batch is sent again meanwhile.
func (f *Forwarder) putAside(stop context.Context, fl *flight, refused *RejectedError, waits *backoff) error {
	if refused == nil {
		return nil
	}
	for {
		err := f.bury(fl.batch, refused.Indexes, refused.Reason)
		if err == nil {
			break
		}
		wait := waits.after(err)
		f.failing(StateStopped, fmt.Errorf("put %d refused events into the dead letters (%s): %w",
			len(refused.Indexes), refused.Reason, err), wait)
		if !pause(stop, fl.abandoned, wait) {
			return errGivenUp
		}
	}
	waits.reset()
	for _, i := range refused.Indexes {
		if fl.batch.List[i].Number > fl.through {
			fl.counts.DeadLettered++
			fl.counts.Delivered--
		}
	}
	f.logger.Warn("events were refused for good and lie in the dead letters",
		"events", len(refused.Indexes), "first", fl.batch.List[refused.Indexes[0]].Number, "reason", refused.Reason)
	return nil
}

// countResent counts the events of a batch that may have reached the destination before.
func (f *Forwarder) countResent(batch *audit.Events) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range batch.List {
		if batch.List[i].Number > f.done.handed {
			return
		}
		if batch.List[i].Number > f.done.through {
			f.done.Resent++
		}
	}
}

// noteHanded notes how far events may have reached the destination, whatever became of them.
func (f *Forwarder) noteHanded(batch *audit.Events, err error) {
	if unsent := (*UnsentError)(nil); errors.As(err, &unsent) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done.handed = max(f.done.handed, batch.List[len(batch.List)-1].Number)
}
