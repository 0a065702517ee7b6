package forward

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/forward/forwardtest"
)

func TestEverythingIsDeliveredInOrderAndCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, sink := logOf(250, 100), &scriptedSink{}
		f := New("soc", log, sink, Options{})
		require.Equal(t, StateStopped, f.Stats().State)
		stop := start(f)
		advance(10 * time.Millisecond)
		require.Equal(t, numbers(1, 250), sink.sent())
		require.EqualValues(t, 250, log.Committed(), "a drained log is committed at once")
		require.Equal(t, StateOK, f.Stats().State)
		log.AddRaw([]byte("one more"))
		advance(10 * time.Millisecond)
		require.EqualValues(t, 251, log.Committed())
		require.NoError(t, stop())
		s := f.Stats()
		require.Equal(t, Totals{Delivered: 251}, s.Totals)
		require.EqualValues(t, 251, s.Committed)
		require.Equal(t, StateStopped, s.State)
	})
}

func TestAFailingDestinationIsTriedForEverWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, sink := logOf(3, 100), &scriptedSink{}
		for range 12 {
			sink.steps = append(sink.steps, fails(errDown))
		}
		f := New("soc", log, sink, Options{Retry: Retry{Jitter: worstJitter}})
		stop := start(f)
		advance(30 * time.Second)
		s := f.Stats()
		require.Equal(t, StateRetrying, s.State)
		require.Equal(t, "connection refused", s.LastError)
		require.Zero(t, log.Committed(), "nothing is passed over")
		advance(time.Hour)
		require.NoError(t, stop())
		var waits []time.Duration
		calls := sink.sends()
		for i := 1; i < len(calls); i++ {
			waits = append(waits, calls[i].at.Sub(calls[i-1].at).Round(time.Millisecond))
			require.Equal(t, calls[0].numbers, calls[i].numbers, "the whole batch is sent again")
		}
		sec := time.Second
		require.Equal(t, []time.Duration{
			sec, 2 * sec, 4 * sec, 8 * sec, 16 * sec, 32 * sec, 60 * sec, 60 * sec, 60 * sec, 60 * sec, 60 * sec, 60 * sec,
		}, waits)
		s = f.Stats()
		require.Equal(t, Totals{Delivered: 3, Retries: 12, Resent: 36}, s.Totals)
		require.EqualValues(t, 3, log.Committed())
	})
}

func TestBackoffStaysWithinItsBounds(t *testing.T) {
	for _, jitter := range []float64{0, 0.25, 0.5, 0.999999} {
		b := backoff{Retry: Retry{Jitter: func() float64 { return jitter }}.withDefaults()}
		for i := range 70 {
			d := b.after(errDown)
			require.GreaterOrEqual(t, d, time.Second, i)
			require.LessOrEqual(t, d, time.Minute, i)
		}
		b.reset()
		require.LessOrEqual(t, b.after(errDown), time.Second)
	}
}

func TestTheBackoffBeginsAnewAfterADelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, sink := logOf(2, 1), &scriptedSink{}
		sink.steps = append(sink.steps, fails(errDown), fails(errDown), fails(errDown), takes(0), fails(errDown))
		f := New("soc", log, sink, Options{Retry: Retry{Jitter: worstJitter}})
		stop := start(f)
		advance(time.Minute)
		require.NoError(t, stop())
		calls := sink.sends()
		require.Len(t, calls, 6)
		require.Equal(t, time.Second, calls[5].at.Sub(calls[4].at).Round(time.Millisecond))
	})
}

func TestWhatWasNotSentIsNotCountedAsResent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, sink := logOf(3, 100), &scriptedSink{}
		sink.steps = append(sink.steps, fails(&UnsentError{errDown}), fails(fmt.Errorf("dial: %w", &UnsentError{errDown})))
		f := New("soc", log, sink, Options{})
		stop := start(f)
		advance(time.Minute)
		require.NoError(t, stop())
		require.Equal(t, Totals{Delivered: 3, Retries: 2}, f.Stats().Totals)
	})
}

func TestABusyDestinationIsLeftAlone(t *testing.T) {
	for _, c := range []struct{ asked, waited time.Duration }{
		{40 * time.Second, 40 * time.Second},
		{1e9 * time.Second, 5 * time.Minute},
		{time.Nanosecond, time.Second},
		{0, time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			log, sink := logOf(1, 100), &scriptedSink{}
			sink.steps = append(sink.steps, fails(fmt.Errorf("send: %w", &BusyError{After: c.asked, Err: errDown})))
			f := New("soc", log, sink, Options{Retry: Retry{Jitter: worstJitter}})
			stop := start(f)
			advance(10 * time.Minute)
			require.NoError(t, stop())
			calls := sink.sends()
			require.Len(t, calls, 2)
			require.Equal(t, c.waited, calls[1].at.Sub(calls[0].at).Round(time.Microsecond))
			require.Equal(t, "destination is busy: connection refused", errors.Unwrap(fmt.Errorf("%w",
				&BusyError{Err: errDown})).Error())
		})
	}
}

func TestRefusedEventsLieInTheDeadLettersBeforeTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, sink := logOf(10, 5), &scriptedSink{}
		sink.steps = append(sink.steps, fails(&RejectedError{Indexes: []int{3, 1, 3}, Reason: "mapping"}))
		f := New("soc", log, sink, Options{})
		var buried []audit.Number
		f.bury = func(batch *audit.Events, indexes []int, reason string) error {
			require.Zero(t, log.Committed(), "the cursor must not pass what is nowhere else")
			require.Equal(t, "mapping", reason)
			for _, i := range indexes {
				buried = append(buried, batch.List[i].Number)
			}
			return nil
		}
		stop := start(f)
		advance(time.Minute)
		require.NoError(t, stop())
		require.Equal(t, []audit.Number{2, 4}, buried)
		require.Equal(t, numbers(1, 10), sink.sent(), "the others were delivered and are not sent again")
		require.EqualValues(t, 10, log.Committed())
		require.Equal(t, Totals{Delivered: 8, DeadLettered: 2}, f.Stats().Totals)
	})
}

func TestFullDeadLettersStopTheDestination(t *testing.T) {
	for name, happened := range map[string]bool{"did not happen": false, "happened but reported failed": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, sink := logOf(10, 5), &scriptedSink{}
				sink.steps = append(sink.steps, fails(&RejectedError{Indexes: []int{0}, Reason: "mapping"}))
				f := New("soc", log, sink, Options{})
				var mu sync.Mutex
				full, stored := true, 0
				f.bury = func(*audit.Events, []int, string) error {
					mu.Lock()
					defer mu.Unlock()
					if happened || !full {
						stored++
					}
					if full {
						return ErrDeadLettersFull
					}
					return nil
				}
				stop := start(f)
				advance(time.Hour)
				s := f.Stats()
				require.Equal(t, StateStopped, s.State)
				require.Contains(t, s.LastError, "dead letters are full")
				require.Contains(t, s.LastError, "mapping")
				require.Zero(t, log.Committed())
				require.Len(t, sink.sends(), 1, "nothing more is sent")
				mu.Lock()
				full = false
				mu.Unlock()
				advance(2 * time.Minute)
				require.NoError(t, stop())
				require.EqualValues(t, 10, log.Committed())
				require.Equal(t, numbers(1, 10), sink.sent())
				s = f.Stats()
				require.EqualValues(t, 9, s.Delivered)
				require.EqualValues(t, 1, s.DeadLettered)
				require.GreaterOrEqual(t, stored, 1)
			})
		})
	}
}

func TestARefusalWithoutDeadLettersStopsTheDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, sink := logOf(1, 5), &scriptedSink{last: fails(&RejectedError{Indexes: []int{0}, Reason: "mapping"})}
		f := New("soc", log, sink, Options{})
		stop := start(f)
		advance(time.Minute)
		require.Contains(t, f.Stats().LastError, ErrNoDeadLetters.Error())
		require.NoError(t, stop())
		require.Zero(t, log.Committed())
	})
}

func TestARefusalThatNamesNoEventIsNotBelieved(t *testing.T) {
	for _, indexes := range [][]int{nil, {-1}, {5}, {0, 7}} {
		synctest.Test(t, func(t *testing.T) {
			log, sink := logOf(5, 5), &scriptedSink{}
			sink.steps = append(sink.steps, fails(&RejectedError{Indexes: indexes, Reason: "mapping"}))
			f := New("soc", log, sink, Options{})
			stop := start(f)
			advance(time.Minute)
			require.NoError(t, stop())
			require.Equal(t, Totals{Delivered: 5, Retries: 1, Resent: 5}, f.Stats().Totals)
		})
	}
}

func TestCommitsAreCoalescedWhileMoreIsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, sink := logOf(1000, 1), &scriptedSink{last: takes(time.Millisecond)}
		var f *Forwarder
		told := 0
		f = New("soc", log, sink, Options{OnCommit: func(upTo audit.Number) {
			told++
			s := f.Stats()
			require.Equal(t, upTo, s.Committed)
			require.EqualValues(t, upTo, s.Delivered, "at any moment: stored = delivered + queued")
		}})
		stop := start(f)
		for range 2000 {
			advance(time.Millisecond)
			s := f.Stats()
			require.EqualValues(t, s.Committed, s.Delivered)
		}
		require.NoError(t, stop())
		commits := log.Commits()
		require.Len(t, commits, told)
		require.EqualValues(t, 1000, commits[len(commits)-1].UpTo)
		require.Len(t, commits, 10, "1000 batches in one second, a commit every 100 ms")
		for i := 1; i < len(commits)-1; i++ {
			require.GreaterOrEqual(t, commits[i].At.Sub(commits[i-1].At), 100*time.Millisecond)
		}
	})
}

func TestTheStopLetsTheSendInFlightEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, sink := logOf(10, 5), &scriptedSink{last: takes(3 * time.Second)}
		f := New("soc", log, sink, Options{})
		stop := start(f)
		advance(time.Second)
		began := time.Now()
		require.NoError(t, stop())
		require.Equal(t, 2*time.Second, time.Since(began))
		require.EqualValues(t, 5, log.Committed(), "what was delivered is committed")
		require.Len(t, sink.sends(), 1, "nothing new is sent")
	})
}

func TestTheGraceAtTheStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, sink := logOf(10, 5), &scriptedSink{last: takes(time.Hour)}
		f := New("soc", log, sink, Options{Grace: 2 * time.Second})
		stop := start(f)
		advance(time.Second)
		began := time.Now()
		require.NoError(t, stop())
		require.Equal(t, 2*time.Second, time.Since(began))
		require.Zero(t, log.Committed())
	})
}

func TestTheStopEndsTheBackoffAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, sink := logOf(10, 5), &scriptedSink{last: fails(errDown)}
		f := New("soc", log, sink, Options{})
		stop := start(f)
		advance(10*time.Minute + time.Second/3)
		began := time.Now()
		require.NoError(t, stop())
		require.Zero(t, time.Since(began))
	})
}

func TestAFailingLogEndsTheRun(t *testing.T) {
	errDisk := errors.New("input/output error")
	t.Run("read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log, sink := logOf(5, 5), &scriptedSink{}
			log.FailReads(forwardtest.Fault{Err: errDisk})
			f := New("soc", log, sink, Options{})
			require.ErrorIs(t, f.Run(t.Context()), errDisk)
			require.Equal(t, StateStopped, f.Stats().State)
			require.Contains(t, f.Stats().LastError, "input/output error")
			require.Empty(t, sink.sends())
		})
	})
	for name, happened := range map[string]bool{"did not happen": false, "happened but reported failed": true} {
		t.Run("commit "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, sink := logOf(5, 5), &scriptedSink{}
				log.FailCommits(forwardtest.Fault{Err: errDisk, Happened: happened})
				f := New("soc", log, sink, Options{})
				require.ErrorIs(t, f.Run(t.Context()), errDisk)
				require.Zero(t, f.Stats().Committed, "only a commit that returned nil counts")

				log.Restart()
				next := New("soc", log, sink, Options{State: log.State()})
				stop := start(next)
				advance(time.Second)
				require.NoError(t, stop())
				require.EqualValues(t, 5, log.Committed())
				require.EqualValues(t, 5, next.Stats().Delivered, "counted once in both forms")
			})
		})
		t.Run("rewind "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, sink := logOf(5, 5), &scriptedSink{last: confirms(time.Second, errDown)}
				log.FailRewinds(forwardtest.Fault{Err: errDisk, Happened: happened})
				f := New("soc", log, sink, Options{})
				require.ErrorIs(t, f.Run(t.Context()), errDisk)
				require.Zero(t, log.Committed())
			})
		})
	}
}

func TestCountersHoldAcrossRestartsAndReplays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, sink := logOf(10, 5), &scriptedSink{}
		sink.steps = append(sink.steps, fails(errDown))
		f := New("soc", log, sink, Options{})
		stop := start(f)
		advance(time.Minute)
		require.NoError(t, stop())
		want := Totals{Delivered: 10, Retries: 1, Resent: 5}
		require.Equal(t, want, f.Stats().Totals)

		log.Restart()
		log.AddRaw([]byte("eleven"))
		f = New("soc", log, sink, Options{State: log.State()})
		require.Equal(t, want, f.Stats().Totals)
		require.EqualValues(t, 10, f.Stats().Committed)
		stop = start(f)
		advance(time.Second)
		require.NoError(t, stop())
		want.Delivered = 11
		require.Equal(t, want, f.Stats().Totals)

		log.SetBack(3)
		log.AddRaw([]byte("twelve"))
		f = New("soc", log, sink, Options{State: log.State()})
		stop = start(f)
		advance(time.Second)
		require.NoError(t, stop())
		want.Delivered, want.Replayed = 12, 8
		require.Equal(t, want, f.Stats().Totals, "a number is delivered once, however often it is replayed")
	})
}

func TestAStateThatCannotBeReadDoesNotStopDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log, sink := logOf(5, 5), &scriptedSink{}
		f := New("soc", log, sink, Options{State: []byte{9, 1}, Logger: slog.New(slog.NewTextHandler(&out, nil))})
		stop := start(f)
		advance(time.Second)
		require.NoError(t, stop())
		require.EqualValues(t, 5, log.Committed())
		require.Contains(t, out.String(), "unknown cursor state")
	})
}

func TestFilteredEventsAreCountedAndNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, sink := logOf(20, 5), &scriptedSink{}
		filter := func(ev *audit.Event) bool { return ev.Number%2 == 0 || ev.Number > 10 }
		f := New("soc", log, sink, Options{Filter: filter})
		stop := start(f)
		advance(time.Second)
		require.NoError(t, stop())
		require.Equal(t, []audit.Number{1, 3, 5, 7, 9}, sink.sent())
		require.EqualValues(t, 20, log.Committed(), "also past a batch of which nothing is left")
		require.Equal(t, Totals{Delivered: 5, Filtered: 15}, f.Stats().Totals)
	})
}

func TestFilteredEventsLeaveNothingInTheirBatch(t *testing.T) {
	batch := batchOf(t, "one", "two", "three")
	f := New("soc", nil, nil, Options{Filter: func(ev *audit.Event) bool { return ev.Number == 1 }})
	f.newFlight(batch)
	require.Equal(t, "two", string(batch.List[0].Raw))
	require.Len(t, batch.List, 2)
	require.Equal(t, audit.Event{}, *batch.Add(), "the next user of the batch must not find an old event")
}

func TestErrorsAreLoggedWhenTheyChangeOrOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log, sink := logOf(1, 1), &scriptedSink{}
		for i := range 12 { // at 0, 1, 3, 7, 15, 31 s, 63 s, then once a minute
			err := errDown
			if i == 2 {
				err = errors.New("no route to host")
			}
			sink.steps = append(sink.steps, fails(err))
		}
		retry := Retry{Jitter: worstJitter, Max: 20 * time.Second}
		f := New("soc", log, sink, Options{Logger: slog.New(slog.NewTextHandler(&out, nil)), Retry: retry})
		stop := start(f)
		advance(10 * time.Minute)
		require.NoError(t, stop())
		// Failures at 0 1 3 7 15 31 51 71 91 111 131 151 s: logged at 0, 3 (other text), 7 (other text), 71, 131 s.
		require.Equal(t, 5, strings.Count(out.String(), "not delivered"), out.String())
		require.Equal(t, 1, strings.Count(out.String(), "no route to host"))
		require.Equal(t, 1, strings.Count(out.String(), "delivered again"))
		require.Contains(t, out.String(), "after=2m51s retries=12")
		require.Equal(t, 6, strings.Count(out.String(), "destination=soc"))
	})
}
