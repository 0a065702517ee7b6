package relay

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"time"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/queue"
)

// beganBytes is the length of what the relay puts in front of a forwarder's state in its cursor: the number of the first
// event that is the destination's own, big endian.
const beganBytes = 8

// cursor is a destination's durable place in the log, as forward.Log: it turns stored bytes into events. Used by one
// forwarder.
type cursor struct {
	reader  *queue.Reader
	raw     queue.Batch
	decoder *audit.Decoder
	log     audit.LogID
	began   audit.Number
	state   []byte // scratch
	logger  *slog.Logger
}

// newCursor opens the cursor with that name. A new one starts at the oldest event, or at now.
func newCursor(q *queue.Queue, name string, oldest bool, logger *slog.Logger) (*cursor, error) {
	reader, err := q.ReaderFrom(name, oldest)
	if err != nil {
		return nil, fmt.Errorf("open cursor of destination %s: %w", name, err)
	}
	c := &cursor{
		reader: reader, decoder: audit.NewDecoder(), log: audit.LogID(q.LogID()),
		began: audit.Number(reader.Committed() + 1), logger: logger,
	}
	if state := reader.State(); len(state) >= beganBytes {
		c.began = audit.Number(binary.BigEndian.Uint64(state))
	}
	return c, nil
}

// forwarderState returns what the forwarder had stored with its last commit.
func (c *cursor) forwarderState() []byte {
	if state := c.reader.State(); len(state) >= beganBytes {
		return state[beganBytes:]
	}
	return nil
}

// Read waits for at least one event and appends what is there to batch, which owns all memory of it.
func (c *cursor) Read(ctx context.Context, batch *audit.Events) error {
	if err := c.reader.Read(ctx, &c.raw); err != nil {
		return err
	}
	size := 0
	for _, entry := range c.raw.Entries {
		size += len(entry)
	}
	memory := batch.Alloc(size)
	for i, entry := range c.raw.Entries {
		n := copy(memory, entry)
		own := memory[:n:n]
		memory = memory[n:]
		number := audit.Number(c.raw.First + uint64(i))
		if err := c.decoder.Decode(batch, own, c.log, number); err != nil {
			// The queue's checksum held, so these bytes are what was stored: a newer program wrote them, or a defect.
			c.logger.Error("stored event cannot be read, it is delivered as its bytes", "error", err)
			unreadable(batch.Add(), own, c.log, number)
		}
	}
	return nil
}

// unreadable makes ev an event that carries a stored entry which this program cannot decode.
func unreadable(ev *audit.Event, entry []byte, log audit.LogID, number audit.Number) {
	*ev = audit.Event{
		ID: audit.PlaceID(log, number), Number: number, Time: time.UnixMilli(0).UTC(), Received: time.UnixMilli(0).UTC(),
		Product: "auditrelay", Class: "entry_unreadable", Severity: audit.SeverityError,
		Marks: audit.MarkUnreadable | audit.MarkTimeMissing, Raw: entry,
	}
}

// Commit makes durable that all events up to upTo are done, with the forwarder's state.
func (c *cursor) Commit(upTo audit.Number, state []byte) error {
	c.state = binary.BigEndian.AppendUint64(c.state[:0], uint64(c.began))
	c.state = append(c.state, state...)
	return c.reader.CommitState(uint64(upTo), c.state)
}

// Rewind lets the next Read start at the given number again.
func (c *cursor) Rewind(to audit.Number) error { return c.reader.Rewind(uint64(to)) }
