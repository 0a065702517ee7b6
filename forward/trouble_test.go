package forward

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/forward/forwardtest"
)

// arrivals notes how often each event arrived somewhere. Only one goroutine uses it at a time.
type arrivals map[audit.Number]int

func (a arrivals) note(batch *audit.Events, from, to int) {
	for i := from; i < to; i++ {
		a[batch.List[i].Number]++
	}
}

// TestRandomTroubleLosesNothing plays random answers and stops, and checks what must hold whatever happens.
func TestRandomTroubleLosesNothing(t *testing.T) {
	const events = 300
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			log := logOf(events, 1+rng.IntN(20))
			ever := arrivals{}
			var s Stats
			for round := 0; log.Committed() < events; round++ {
				require.Less(t, round, 1000, "seed %d: no progress", seed)
				s = randomRound(t, rng, log, ever)
				for n := audit.Number(1); n <= log.Committed(); n++ {
					require.True(t, ever[n] > 0 || n%17 == 0, "seed %d: %d is committed and nowhere", seed, n)
				}
			}
			require.EqualValues(t, events, s.Delivered+s.Filtered+s.DeadLettered, "seed %d", seed)
			require.EqualValues(t, events/17, s.Filtered)
			require.Zero(t, s.Replayed)
		})
	}
}

// randomRound is the life of one process.
func randomRound(t *testing.T, rng *rand.Rand, log *forwardtest.Log, ever arrivals) Stats {
	log.Restart()
	now := arrivals{}
	life := time.Duration(rng.IntN(40_000)) * time.Millisecond // drawn before the sender draws from rng
	sink := &scriptedSink{last: randomAnswer(rng, now)}
	f := New("soc", log, sink, Options{
		State: log.State(), Receipts: 1 + rng.IntN(5), Filter: func(ev *audit.Event) bool { return ev.Number%17 == 0 },
	})
	f.bury = func(batch *audit.Events, indexes []int, _ string) error {
		if rng.IntN(3) == 0 {
			return ErrDeadLettersFull
		}
		for _, i := range indexes {
			ever[batch.List[i].Number]++
		}
		return nil
	}
	before := f.Stats()
	stop := start(f)
	advance(life)
	require.NoError(t, stop())
	var doubles uint64
	for n, times := range now {
		ever[n] += times
		doubles += uint64(times - 1)
	}
	require.LessOrEqual(t, doubles, f.Stats().Resent-before.Resent, "each double was counted")
	for _, call := range sink.sends() {
		require.True(t, slices.IsSorted(call.numbers))
	}
	return f.Stats()
}

// randomAnswer returns a Send that notes what arrived.
func randomAnswer(rng *rand.Rand, now arrivals) func(context.Context, *audit.Events) (Receipt, error) {
	return func(_ context.Context, batch *audit.Events) (Receipt, error) {
		all := len(batch.List)
		switch rng.IntN(8) {
		case 0:
			return nil, &UnsentError{errDown}
		case 1: // a part arrived
			now.note(batch, 0, rng.IntN(all+1))
			return nil, errDown
		case 2: // it happened, but failure was reported
			now.note(batch, 0, all)
			return nil, &BusyError{After: time.Second, Err: errDown}
		case 3:
			i := rng.IntN(all)
			now.note(batch, 0, i)
			now.note(batch, i+1, all)
			return nil, &RejectedError{Indexes: []int{i}, Reason: "poison"}
		case 4: // taken and lost again
			return lateReceipt{time.Duration(rng.IntN(9000)) * time.Millisecond, errDown}, nil
		case 5, 6: // the destination has it; the receipt comes later
			now.note(batch, 0, all)
			return lateReceipt{time.Duration(rng.IntN(3000)) * time.Millisecond, nil}, nil
		default:
			now.note(batch, 0, all)
			return nil, nil
		}
	}
}
