package forward

import (
	"context"
	"fmt"
	"io"
)

// written is the end of a write.
type written struct{ err error }

// patientWriter writes to something that has no deadlines, such as a pipe that nobody reads, without keeping its caller
// longer than the caller's context. Used by one goroutine at a time.
type patientWriter struct {
	to      io.Writer
	buf     []byte       // what is being written
	done    chan written // capacity 1
	pending bool         // a write was given up and is still under way
}

func newPatientWriter(to io.Writer) *patientWriter {
	return &patientWriter{to: to, done: make(chan written, 1)}
}

// write writes a copy of p. If ctx ends first it returns its error; the write under way then ends by itself or with the
// process, and the next one waits for it, so nothing is mixed.
func (w *patientWriter) write(ctx context.Context, p []byte) error {
	if w.pending {
		select {
		case <-w.done:
			// What became of a batch that was given up does not matter: it comes again, and is counted as resent.
			w.pending = false
		case <-ctx.Done():
			return fmt.Errorf("write to standard output: nobody reads it: %w", ctx.Err())
		}
	}
	w.buf = append(w.buf[:0], p...)
	w.pending = true
	go func() {
		_, err := w.to.Write(w.buf)
		w.done <- written{err}
	}()
	select {
	case result := <-w.done:
		w.pending = false
		if result.err != nil {
			return fmt.Errorf("write to standard output: %w", result.err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("write to standard output: nobody reads it: %w", ctx.Err())
	}
}
