package forward

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/forward/forwardtest"
)

var errDown = errors.New("connection refused")

// sendCall is one call of Send.
type sendCall struct {
	numbers []audit.Number
	at      time.Time
}

// scriptedSink answers each Send with the next step; when there are none left, it takes everything.
type scriptedSink struct {
	mu    sync.Mutex
	steps []func(ctx context.Context, batch *audit.Events) (Receipt, error)
	calls []sendCall
	last  func(ctx context.Context, batch *audit.Events) (Receipt, error)
}

func (s *scriptedSink) Send(ctx context.Context, batch *audit.Events) (Receipt, error) {
	call := sendCall{at: time.Now()}
	for i := range batch.List {
		call.numbers = append(call.numbers, batch.List[i].Number)
	}
	s.mu.Lock()
	step := s.last
	if len(s.steps) > 0 {
		step, s.steps = s.steps[0], s.steps[1:]
	}
	s.calls = append(s.calls, call)
	s.mu.Unlock()
	if step == nil {
		return nil, nil
	}
	return step(ctx, batch)
}

func (s *scriptedSink) Close() error { return nil }

func (s *scriptedSink) sends() []sendCall {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *scriptedSink) sent() (all []audit.Number) {
	for _, call := range s.sends() {
		all = append(all, call.numbers...)
	}
	return all
}

// step returns a Send that fails with err.
func fails(err error) func(context.Context, *audit.Events) (Receipt, error) {
	return func(context.Context, *audit.Events) (Receipt, error) { return nil, err }
}

// takes returns a Send that lasts d.
func takes(d time.Duration) func(context.Context, *audit.Events) (Receipt, error) {
	return func(ctx context.Context, _ *audit.Events) (Receipt, error) {
		select {
		case <-time.After(d):
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// confirms returns a Send whose receipt comes after d with err.
func confirms(d time.Duration, err error) func(context.Context, *audit.Events) (Receipt, error) {
	return func(context.Context, *audit.Events) (Receipt, error) { return lateReceipt{d, err}, nil }
}

type lateReceipt struct {
	after time.Duration
	err   error
}

func (r lateReceipt) Wait(ctx context.Context) error {
	select {
	case <-time.After(r.after):
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func numbers(from, to audit.Number) (all []audit.Number) {
	for n := from; n <= to; n++ {
		all = append(all, n)
	}
	return all
}

func logOf(n, batch int) *forwardtest.Log {
	log := forwardtest.NewLog()
	log.BatchEvents = batch
	raws := make([][]byte, n)
	for i := range raws {
		raws[i] = fmt.Appendf(nil, "event %d", i+1)
	}
	log.AddRaw(raws...)
	return log
}

// start runs a Forwarder; the returned function stops it and returns what Run returned.
func start(f *Forwarder) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}
}

// advance lets the bubble's clock go on by d.
func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func worstJitter() float64 { return 0.999999999 }
