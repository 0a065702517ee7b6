package forward

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Retry says how long to wait before a batch is sent again. Zero values mean the defaults.
type Retry struct {
	Min     time.Duration  // first and shortest wait; 1 s
	Max     time.Duration  // longest wait of the back-off; 60 s
	BusyMax time.Duration  // longest wait that a destination may ask for with a BusyError; 5 min
	Jitter  func() float64 // random numbers in [0, 1); math/rand/v2
}

func (r Retry) withDefaults() Retry {
	if r.Min <= 0 {
		r.Min = time.Second
	}
	if r.Max <= 0 {
		r.Max = 60 * time.Second
	}
	r.Max = max(r.Max, r.Min)
	if r.BusyMax <= 0 {
		r.BusyMax = 5 * time.Minute
	}
	if r.Jitter == nil {
		r.Jitter = rand.Float64
	}
	return r
}

// backoff counts the waits of one row of failures. The n-th is drawn between half of Min·2ⁿ and all of it, never below
// Min nor above Max, so that destinations that failed together do not come back together.
type backoff struct {
	Retry
	step time.Duration
}

// after returns how long to wait after err.
func (b *backoff) after(err error) time.Duration {
	b.step = min(max(2*b.step, b.Min), b.Max)
	if busy := (*BusyError)(nil); errors.As(err, &busy) && busy.After > 0 {
		return min(max(busy.After, b.Min), b.BusyMax)
	}
	half := b.step / 2
	return max(b.Min, half+time.Duration(b.Jitter()*float64(b.step-half)))
}

// reset begins a new row.
func (b *backoff) reset() { b.step = 0 }

// pause waits for d. It reports false if stop is done or give up is closed before.
func pause(stop context.Context, giveUp <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return stop.Err() == nil
	case <-stop.Done():
		return false
	case <-giveUp:
		return false
	}
}
