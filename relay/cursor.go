package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/queue"
)

// cursor is a destination's durable place in the log, as forward.Log: it turns stored bytes into events. Used by one
// forwarder.
type cursor struct {
	reader  *queue.Reader
	raw     queue.Batch
	decoder *audit.Decoder
	log     audit.LogID
	began   audit.Number
	losses  *losses
	next    audit.Number // of the next Read, if nothing is missing
	carried []byte       // what the forwarder had stored when the cursor was opened
	state   []byte       // scratch
	logger  *slog.Logger
}

// newCursor opens the cursor with that name. A new one starts at the oldest event, or at now.
func newCursor(q *queue.Queue, name string, oldest bool, logger *slog.Logger) (*cursor, error) {
	reader, err := q.ReaderFrom(name, oldest)
	if err != nil {
		return nil, fmt.Errorf("open cursor of destination %s: %w", name, err)
	}
	committed := audit.Number(reader.Committed())
	c := &cursor{
		reader: reader, decoder: audit.NewDecoder(), log: audit.LogID(q.LogID()),
		began: committed + 1, next: committed + 1, logger: logger,
	}
	kept := cursorState{began: c.began}
	if stored := reader.State(); len(stored) > 0 {
		if kept, c.carried, err = decodeCursorState(stored); err != nil {
			return nil, errors.Join(fmt.Errorf("cursor of destination %s: %w", name, err), reader.Close())
		}
	}
	c.began, c.losses = kept.began, newLosses(committed, kept.damaged)
	return c, nil
}

// forwarderState returns what the forwarder had stored with its last commit before the cursor was opened.
func (c *cursor) forwarderState() []byte { return c.carried }

// Read waits for at least one event and appends what is there to batch, which owns all memory of it.
func (c *cursor) Read(ctx context.Context, batch *audit.Events) error {
	if err := c.reader.Read(ctx, &c.raw); err != nil {
		return err
	}
	// The log has no gaps but damage: the queue has reported the range, the destination will never get it.
	first := audit.Number(c.raw.First)
	c.losses.add(c.next, first-1)
	c.next = first + audit.Number(len(c.raw.Entries))
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
	kept := cursorState{began: c.began, damaged: c.losses.upTo(upTo)}
	c.state = append(kept.encode(c.state[:0]), state...)
	return c.reader.CommitState(uint64(upTo), c.state)
}

// Rewind lets the next Read start at the given number again.
func (c *cursor) Rewind(to audit.Number) error {
	if err := c.reader.Rewind(uint64(to)); err != nil {
		return err
	}
	c.next = to
	return nil
}
