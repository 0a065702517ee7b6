package relay

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/config"
	"github.com/auditrelay/auditrelay/forward"
	"github.com/auditrelay/auditrelay/normalize"
	"github.com/auditrelay/auditrelay/queue"
)

// destination is one way out: a sink, and a forwarder on the destination's cursor, which is made anew when the cursor
// fails.
type destination struct {
	config  config.Destination
	sink    forward.Sink
	encoder normalize.Encoder
	turn    turn                   // of its own sink and a replay's
	replay  atomic.Pointer[Replay] // the replay under way, or nil

	mu        sync.Mutex
	cursor    *cursor            // guarded by mu
	forwarder *forward.Forwarder // on cursor; guarded by mu
}

// parts returns the cursor and the forwarder on it that work now, or did last.
func (d *destination) parts() (*cursor, *forward.Forwarder) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cursor, d.forwarder
}

func (r *Relay) openDestination(cfg config.Destination) (*destination, error) {
	sink, encoder, err := r.newSink(cfg, audit.LogID(r.queue.LogID()))
	if err != nil {
		return nil, err
	}
	d := &destination{config: cfg, sink: sink, encoder: encoder, turn: newTurn()}
	if err := r.openCursor(d); err != nil {
		return nil, errors.Join(err, sink.Close())
	}
	return d, nil
}

// openCursor gives the destination a cursor and a forwarder that goes on where the last commit was.
func (r *Relay) openCursor(d *destination) error {
	id := d.config.ID
	cur, err := newCursor(r.queue, id, d.config.StartAt == "oldest", r.opt.Logger.With("destination", id))
	if err != nil {
		return err
	}
	forwarder := forward.New(id, cur, &sharedSink{sink: d.sink, turn: d.turn}, forward.Options{
		State:       cur.forwarderState(),
		Logger:      r.opt.Logger,
		DeadLetters: forward.NewDeadLetters(filepath.Join(r.config.DataDir, "deadletters", id), id, 0),
		OnCommit:    func(audit.Number) { r.wake() },
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cursor, d.forwarder = cur, forwarder
	return nil
}

// deliver runs the destination's forwarder until ctx is done. A forwarder ends by itself only when its cursor fails (a disk
// that is away for a moment): then it begins again at the last commit, which may double events and loses none.
func (r *Relay) deliver(ctx context.Context, d *destination) {
	for wait := restartAfterMin; ; wait = min(2*wait, restartAfterMax) {
		began := time.Now()
		cur, forwarder := d.parts()
		err := forwarder.Run(ctx)
		if err == nil || ctx.Err() != nil {
			if err != nil {
				r.opt.Logger.Error("destination stopped with an error, it goes on from its last commit", "destination", d.config.ID, "error", err)
			}
			return
		}
		if time.Since(began) > restartAfterMax {
			wait = restartAfterMin
		}
		for err != nil {
			r.opt.Logger.Error("destination cannot go on, it will be tried again", "destination", d.config.ID, "error", err, "after", wait)
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
			// The old reader has its name until it is closed; what its Close says was said by the error before.
			_ = cur.reader.Close()
			err = r.openCursor(d)
		}
	}
}

// sheet returns the destination's line of the balance sheet.
func (d *destination) sheet(q *queue.Queue) DestinationSheet {
	cur, forwarder := d.parts()
	st := forwarder.Stats() // counts and commit belong together; what is stored afterwards is queued
	next := audit.Number(q.Next())
	committed := max(st.Committed, cur.began-1)
	queued := uint64(next - 1 - committed)
	reason := ""
	if st.State == forward.StateRetrying || st.State == forward.StateStopped && queued > 0 {
		reason = st.LastError // of an error that is over nobody need know
	}
	return DestinationSheet{
		Began: uint64(cur.began), Stored: uint64(next - cur.began),
		Delivered: st.Delivered, Filtered: st.Filtered, DeadLettered: st.DeadLettered,
		Damaged: cur.losses.upTo(committed), Queued: queued, Resent: st.Resent,
		State: st.State.String(), Reason: reason,
	}
}
