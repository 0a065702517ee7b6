package queue

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// request is one Append on its way through the writer.
type request struct {
	entries, marks [][]byte
	ids            *[][idBytes]byte // nil without
	bytes          int              // in the payload of a frame
	cancelled      bool             // its context has ended: do not wait for space; guarded by Queue.mu
	done           chan result
}

type result struct {
	first uint64
	err   error
	full  bool // err says why there was no space: nothing was taken
}

// Append stores all entries or none, in order and without gaps, with the marks (see [AppendMark]) in the same atomic
// write, and returns the first one's number. They are durable on return; concurrent callers share one fsync. Without
// entries it returns the next number. The slices are borrowed until return.
//
// The context bounds only the wait for space (ErrFull: nothing was taken). Once there is space, the append is finished
// whatever happens to the context. Other errors: ErrTooLarge and ErrClosed (nothing was taken), ErrStopped, or the
// disk's own error, or ErrReadOnly. After an error of the disk the entries are not acknowledged, but after a crash they
// may turn up all the same.
func (q *Queue) Append(ctx context.Context, entries [][]byte, marks [][]byte) (first uint64, err error) {
	return q.append(ctx, entries, marks, nil)
}

func (q *Queue) append(
	ctx context.Context, entries, marks [][]byte, ids *[][idBytes]byte,
) (first uint64, err error) {
	if q.readOnly {
		return 0, ErrReadOnly
	}
	size, err := q.measure(entries, marks, seenBytes(ids))
	if err != nil {
		return 0, err
	}
	if size == 0 {
		return q.Next(), nil
	}
	r := &request{entries: entries, marks: marks, ids: ids, bytes: size, done: make(chan result, 1)}
	q.mu.Lock()
	switch {
	case q.closing:
		err = ErrClosed
	case q.failed != nil:
		err = q.failed
	default:
		q.waiting = append(q.waiting, r)
	}
	q.mu.Unlock()
	if err != nil {
		return 0, err
	}
	signal(q.work)
	select {
	case res := <-r.done:
		return res.first, res.err
	case <-ctx.Done():
	}
	if err := q.withdraw(ctx, r); err != nil {
		return 0, err
	}
	res := <-r.done
	if res.full {
		return 0, fmt.Errorf("%w: %w (%w)", ErrFull, contextError(ctx), res.err)
	}
	return res.first, res.err
}

// measure checks an append against the limits and returns its bytes in a frame, with so many more.
func (q *Queue) measure(entries, marks [][]byte, more int) (size int, err error) {
	size = more
	for i, e := range entries {
		if len(e) > MaxEntryBytes {
			return 0, fmt.Errorf("%w: entry %d has %d bytes, the limit is %d", ErrTooLarge, i, len(e), MaxEntryBytes)
		}
		size += fieldBytes(e)
	}
	markBytes := 0
	for _, m := range marks {
		if err := eachMark(m, func(_, _ []byte) {}); err != nil {
			return 0, err
		}
		markBytes += len(m)
	}
	if size += markBytes; size > MaxAppendBytes {
		return 0, fmt.Errorf("%w: %d bytes with lengths, the limit is %d", ErrTooLarge, size, MaxAppendBytes)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if markBytes > 0 && q.marks.bytes+markBytes > maxMarksBytes {
		return 0, fmt.Errorf("%w: marks would take more than %d bytes", ErrTooLarge, maxMarksBytes)
	}
	// A segment with nothing but this append must fit beside the head of the next one.
	if least := int64(size+headerBytes) + 2*q.headBytes(); q.opt.MaxBytes > 0 && least > q.opt.MaxBytes {
		return 0, fmt.Errorf("%w: it needs %d bytes on disk, the queue may have %d; raise its max size",
			ErrTooLarge, least, q.opt.MaxBytes)
	}
	return size, nil
}

// withdraw takes a request back if it is waiting for space. Else it marks it, so that it will not begin to wait.
func (q *Queue) withdraw(ctx context.Context, r *request) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	r.cancelled = true
	i := slices.Index(q.waiting, r)
	if q.full == nil || i < 0 {
		return nil
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	return fmt.Errorf("%w: %w (%w)", ErrFull, contextError(ctx), q.full)
}

// take returns the next group, in order of arrival: up to GroupBytes or one larger append. While the queue is full it
// is one append, so that a small one gets through where a group would not. It blocks until there is work; nil means
// that the queue was closed and nothing is left.
func (q *Queue) take() []*request {
	for {
		if group := q.company(); len(group) > 0 {
			return group
		}
		select {
		case <-q.work:
		case <-q.stop:
			// What was admitted before Close is finished.
			return q.cut()
		}
	}
}

// company waits up to GroupDelay while fewer appends wait than the last group had: those appenders were just answered,
// so they are likely to be on their way back. An idle queue never waits, because its last group had one.
func (q *Queue) company() []*request {
	if q.opt.GroupDelay <= 0 || q.lastGroup < 2 {
		return q.cut()
	}
	q.mu.Lock()
	idle := len(q.waiting) == 0
	q.mu.Unlock()
	if idle {
		return nil
	}
	timer := time.NewTimer(q.opt.GroupDelay)
	defer timer.Stop()
	for {
		q.mu.Lock()
		bytes := 0
		for _, r := range q.waiting {
			bytes += r.bytes
		}
		enough := len(q.waiting) >= q.lastGroup || bytes >= q.opt.GroupBytes || q.full != nil
		q.mu.Unlock()
		if enough {
			return q.cut()
		}
		select {
		case <-q.work:
		case <-q.stop:
			return q.cut()
		case <-timer.C:
			return q.cut()
		}
	}
}

// cut removes one group from the front of the waiting appends.
func (q *Queue) cut() []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, headerBytes
	for n < len(q.waiting) && (n == 0 || q.full == nil && bytes+q.waiting[n].bytes <= q.opt.GroupBytes) {
		bytes += q.waiting[n].bytes
		n++
	}
	group := slices.Clone(q.waiting[:n])
	q.waiting = slices.Delete(q.waiting, 0, n)
	q.lastGroup = n
	return group
}

// putBack returns a group that found no space to the front of the queue, less those that must not wait. When the queue
// is closing nobody waits.
func (q *Queue) putBack(group []*request, why error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.full == nil {
		q.log.Warn("queue is full, appends are waiting", "reason", why)
	}
	q.full = why
	if q.closing {
		group, q.waiting = append(group, q.waiting...), nil
		for _, r := range group {
			r.done <- result{err: fmt.Errorf("%w while it was full, nothing was taken", ErrClosed)}
		}
		return
	}
	group = append(group, q.waiting...)
	q.waiting = group[:0]
	for _, r := range group {
		if r.cancelled {
			r.done <- result{err: why, full: true}
			continue
		}
		q.waiting = append(q.waiting, r)
	}
}

// answer ends a group.
func (q *Queue) answer(group []*request, first uint64, err error) {
	for _, r := range group {
		r.done <- result{first: first, err: err}
		first += uint64(len(r.entries))
	}
}
