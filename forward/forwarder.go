package forward

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/auditrelay/auditrelay/audit"
)

// Options of a Forwarder. Zero values mean the defaults.
type Options struct {
	Logger *slog.Logger // nil = no log
	State  []byte       // what the last Commit stored; nil for a cursor that has just begun. Used within New only.
	Retry  Retry
	// DeadLetters take the events that the destination refuses for good. nil: the first such event stops the
	// destination.
	DeadLetters *DeadLetters
	// Filter reports whether an event is not for this destination: it is counted and not sent. nil: all are sent.
	Filter      func(ev *audit.Event) bool
	CommitEvery time.Duration // while more is waiting, commits are at least so far apart; 100 ms
	Grace       time.Duration // how long a Send and open receipts may go on after the stop; 5 s
	Receipts    int           // how many batches may be unconfirmed at once; 8
	// OnCommit, if set, is called after each commit, when Stats knows of it. It must not block.
	OnCommit func(upTo audit.Number)
}

// idleBeforeCommit is how long the log must have had nothing more before what was delivered is committed: long enough
// that a log that is read a little more slowly than the destination takes it does not cost an fsync per batch.
const idleBeforeCommit = 2 * time.Millisecond

// logAgainAfter is how long an error that stays the same is not logged again.
const logAgainAfter = time.Minute

// Forwarder delivers one log to one destination.
type Forwarder struct {
	id          string
	log         Log
	sink        Sink
	logger      *slog.Logger
	retry       Retry
	filter      func(ev *audit.Event) bool
	bury        func(batch *audit.Events, indexes []int, reason string) error
	commitEvery time.Duration
	grace       time.Duration
	receiptsMax int
	onCommit    func(upTo audit.Number)
	stateErr    error // why Options.State could not be read

	mu     sync.Mutex // guards what follows
	stats  Stats      // its Resent and Retries are not used
	done   progress
	faults faultRow
}

// faultRow is one row of failures without a delivery in between.
type faultRow struct {
	text     string // of the last one logged
	began    time.Time
	loggedAt time.Time
	retries  int
}

// New returns a Forwarder for the destination with the given id. It starts nothing.
func New(id string, log Log, sink Sink, opt Options) *Forwarder {
	f := &Forwarder{
		id: id, log: log, sink: sink, logger: opt.Logger, retry: opt.Retry.withDefaults(), filter: opt.Filter,
		commitEvery: opt.CommitEvery, grace: opt.Grace, receiptsMax: opt.Receipts, onCommit: opt.OnCommit,
	}
	if f.logger == nil {
		f.logger = slog.New(slog.DiscardHandler)
	}
	f.logger = f.logger.With("destination", id)
	if f.commitEvery <= 0 {
		f.commitEvery = 100 * time.Millisecond
	}
	if f.grace <= 0 {
		f.grace = 5 * time.Second
	}
	if f.receiptsMax <= 0 {
		f.receiptsMax = 8
	}
	f.bury = opt.DeadLetters.Add
	f.done, f.stateErr = parseProgress(opt.State)
	f.stats.Totals, f.stats.Committed = f.done.Totals, f.done.through
	f.stats.Since = time.Now()
	return f
}

// Run delivers until ctx is done and then returns nil: it reads nothing more, lets what is under way end within the
// grace, and commits what was delivered. It returns an error only if the log fails; then what is not committed will be
// sent again by the next Forwarder on it. All that Run started has ended when it returns. It may be called once.
func (f *Forwarder) Run(ctx context.Context) error {
	if f.stateErr != nil {
		f.logger.Error("the counters of this destination begin at 0 again", "error", f.stateErr)
	}
	stop, cancelStop := context.WithCancel(ctx)
	defer cancelStop()
	work, cancelWork := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelWork()
	f.setState(StateOK)
	r := newRun(f)
	var helpers sync.WaitGroup
	helpers.Go(func() { r.send(stop, work) })
	ended := make(chan struct{})
	helpers.Go(func() { cancelAfterGrace(stop, f.grace, cancelWork, ended) })

	err := r.loop(stop, work)
	cancelStop()
	if finishErr := r.finish(work); err == nil {
		err = finishErr
	}
	close(ended)
	helpers.Wait()
	f.stopped(err)
	return err
}

// cancelAfterGrace cancels the work under way when the grace is over that begins with the stop.
func cancelAfterGrace(stop context.Context, grace time.Duration, cancel func(), ended <-chan struct{}) {
	select {
	case <-stop.Done():
	case <-ended:
		return
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-timer.C:
		cancel()
	case <-ended:
	}
}

// Stats returns what the Forwarder counted. It is safe for concurrent use.
func (f *Forwarder) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	s.Resent, s.Retries = f.done.Resent, f.done.Retries
	if c, ok := f.sink.(Counter); ok {
		s.Sink = c.Counts()
	}
	return s
}

func (f *Forwarder) setState(state State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setStateLocked(state, time.Now())
}

func (f *Forwarder) setStateLocked(state State, now time.Time) {
	if f.stats.State != state {
		f.stats.State, f.stats.Since = state, now
	}
}

// failing notes that a try failed and that another will follow after wait. It logs the error if its text changed or if
// it was not logged for a minute.
func (f *Forwarder) failing(state State, err error, wait time.Duration) {
	now, text := time.Now(), err.Error()
	f.mu.Lock()
	f.done.Retries++
	f.setStateLocked(state, now)
	f.stats.LastError, f.stats.LastErrorAt = text, now
	row := &f.faults
	if row.retries == 0 {
		row.began = now
	}
	row.retries++
	retries, logIt := row.retries, row.text != text || now.Sub(row.loggedAt) >= logAgainAfter
	if logIt {
		row.text, row.loggedAt = text, now
	}
	f.mu.Unlock()
	if logIt {
		f.logger.Warn("not delivered, will be tried again",
			"error", err, "state", state, "retries", retries, "next_in", wait)
	}
}

// delivered notes that the destination has a batch, which ends a row of failures.
func (f *Forwarder) delivered() {
	now := time.Now()
	f.mu.Lock()
	row := f.faults
	f.faults = faultRow{}
	f.setStateLocked(StateOK, now)
	f.mu.Unlock()
	if row.retries > 0 {
		f.logger.Info("delivered again", "after", now.Sub(row.began).Round(time.Millisecond), "retries", row.retries)
	}
}

// stopped notes that Run is about to return err.
func (f *Forwarder) stopped(err error) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setStateLocked(StateStopped, now)
	if err != nil {
		f.stats.LastError, f.stats.LastErrorAt = err.Error(), now
	}
}
