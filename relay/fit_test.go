package relay

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/queue"
)

// TestAnEventThatIsTooLargeForTheQueueKeepsItsRawRecord: an entry that the queue refuses would hold its source for ever.
func TestAnEventThatIsTooLargeForTheQueueKeepsItsRawRecord(t *testing.T) {
	const rawMax = 8 << 20 // the largest max_record and max_message
	raw := bytes.Repeat([]byte("x"), rawMax)
	ev := audit.Event{Raw: raw, Fields: []audit.Field{
		{Key: audit.KeyMessage, Value: raw}, {Key: audit.KeyActorName, Value: []byte("tom")},
	}}
	fit(&ev)
	require.LessOrEqual(t, len(ev.AppendBinary(nil)), queue.MaxEntryBytes)
	require.True(t, ev.Marks.Has(audit.MarkFieldsCut))
	require.Equal(t, "tom", string(ev.Field(audit.KeyActorName)))
	require.Equal(t, rawMax, len(ev.Raw))

	small := audit.Event{Raw: raw[:1<<20], Fields: []audit.Field{{Key: audit.KeyMessage, Value: raw[:1<<20]}}}
	fit(&small)
	require.Zero(t, small.Marks)
	require.Len(t, small.Fields, 1)
}
