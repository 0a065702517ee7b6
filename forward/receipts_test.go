package forward

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

func TestReceiptsAreCommittedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, sink := logOf(15, 5), &scriptedSink{}
		for _, d := range []time.Duration{3, 1, 2} {
			sink.steps = append(sink.steps, confirms(d*time.Second, nil))
		}
		f := New("soc", log, sink, Options{})
		stop := start(f)
		advance(2500 * time.Millisecond)
		require.Equal(t, numbers(1, 15), sink.sent(), "later batches are sent while one is open")
		require.Zero(t, log.Committed(), "the first is not confirmed yet")
		require.Zero(t, f.Stats().Delivered)
		require.Equal(t, 1, f.Stats().Receipts)
		advance(time.Second)
		require.EqualValues(t, 15, log.Committed())
		require.NoError(t, stop())
		require.Equal(t, Totals{Delivered: 15}, f.Stats().Totals)
		require.Zero(t, f.Stats().Receipts)
	})
}

func TestOpenReceiptsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, sink := logOf(1000, 1), &scriptedSink{last: confirms(time.Hour, nil)}
		f := New("soc", log, sink, Options{Receipts: 3, Grace: time.Second})
		stop := start(f)
		advance(time.Minute)
		require.Len(t, sink.sends(), 3)
		require.Equal(t, 4, log.Reads(), "one batch is read ahead, no more")
		require.NoError(t, stop())
		require.Zero(t, log.Committed())
	})
}

func TestAFailedReceiptIsReadAndSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, sink := logOf(20, 5), &scriptedSink{}
		sink.steps = append(sink.steps, confirms(time.Second, nil), confirms(2*time.Second, errDown),
			confirms(time.Second, nil), confirms(time.Hour, nil))
		f := New("soc", log, sink, Options{})
		stop := start(f)
		advance(time.Minute)
		require.NoError(t, stop())
		require.Equal(t, []audit.Number{6}, log.Rewinds())
		require.Equal(t, append(numbers(1, 20), numbers(6, 20)...), sink.sent())
		require.EqualValues(t, 20, log.Committed())
		require.Equal(t, Totals{Delivered: 20, Resent: 15, Retries: 1}, f.Stats().Totals)
	})
}

func TestReceiptsThatNeverComeTrueAreSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, sink := logOf(5, 5), &scriptedSink{last: confirms(0, errDown)}
		f := New("soc", log, sink, Options{})
		stop := start(f)
		advance(10 * time.Minute)
		require.Less(t, len(sink.sends()), 30)
		require.Equal(t, StateRetrying, f.Stats().State)
		require.Contains(t, f.Stats().LastError, "connection refused")
		require.NoError(t, stop())
		require.Zero(t, log.Committed())
	})
}

func TestReceiptsGetTheGraceAtTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, sink := logOf(15, 5), &scriptedSink{}
		sink.steps = append(sink.steps, confirms(3*time.Second, nil), confirms(time.Hour, nil), confirms(0, nil))
		f := New("soc", log, sink, Options{})
		stop := start(f)
		advance(time.Second)
		require.NoError(t, stop())
		require.EqualValues(t, 5, log.Committed(), "the third was confirmed, but the second was not")
		require.Equal(t, Totals{Delivered: 5}, f.Stats().Totals)
	})
}
