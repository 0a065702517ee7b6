package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// progressBytes is about how much Check reads from one call of progress to the next.
const progressBytes = 1 << 20

// CheckReport is what Check found.
type CheckReport struct {
	Segments        int
	Frames, Entries uint64   // intact ones
	Bytes           int64    // of intact frames
	Damage          []Damage // in order; at most 65,536 ranges
}

// Check reads every frame of every segment that is there when it begins and names all damage. It changes nothing, keeps
// no copies, and reports nothing through Options.Damaged. progress, which may be nil, is called now and then by the
// same goroutine, at last with done equal to total. Segments that are deleted meanwhile are left out. It returns the
// context's error, ErrClosed, or an error of the disk with what was found until then. Memory is bounded by the largest
// group commit.
//
// Bytes behind the last acknowledged frame of a segment are no damage: they are what is left of a write that failed.
func (q *Queue) Check(ctx context.Context, progress func(doneBytes, totalBytes int64)) (CheckReport, error) {
	c := checker{q: q, progress: progress}
	if c.progress == nil {
		c.progress = func(_, _ int64) {}
	}
	list, err := q.views()
	if err != nil {
		return CheckReport{}, err
	}
	for _, v := range list {
		c.total += v.size
	}
	for i, v := range list {
		follows := view{}
		if i+1 < len(list) {
			follows = list[i+1]
		}
		begin := c.done
		if err := c.segment(ctx, v, follows); err != nil {
			return c.report, fmt.Errorf("check segment %s: %w", v.seg.name, err)
		}
		c.done = begin + v.size
	}
	c.progress(c.total, c.total)
	return c.report, nil
}

// views returns what may be looked at of all segments.
func (q *Queue) views() (list []view, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		return nil, ErrClosed
	}
	for i, seg := range q.segments {
		list = append(list, view{seg: seg, size: seg.size, end: q.endLocked(i)})
	}
	return list, nil
}

// checker is one Check on its way.
type checker struct {
	q           *Queue
	progress    func(doneBytes, totalBytes int64)
	report      CheckReport
	done, total int64
	told        int64 // what progress was told last
}

func (c *checker) damaged(d Damage) {
	if d.Last < d.First || d.First == 0 {
		d.First, d.Last = 0, 0
	}
	if len(c.report.Damage) < maxReported {
		c.report.Damage = append(c.report.Damage, d)
	}
}

// segment checks one file; follows is the segment behind it, if there is one.
func (c *checker) segment(ctx context.Context, v, follows view) (err error) {
	file, err := c.q.fs.OpenFile(c.q.path(v.seg.name), os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		if !c.q.deletes(v.seg) {
			c.damaged(Damage{First: v.seg.first, Last: v.end - 1, File: v.seg.name, Reason: "the segment is missing"})
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	c.report.Segments++
	sc := &scanner{file: file, size: v.size, salt: v.seg.salt}
	head, err := sc.bytes(0, segmentHead)
	if err != nil {
		return err
	}
	readable := v.seg.salted
	if h, err := parseSegmentHeader(head); err != nil || h.first != v.seg.first {
		c.damaged(Damage{File: v.seg.name, Bytes: segmentHead, Reason: errHead.Error()})
	}
	if !readable {
		if sc.salt, readable, err = sc.findSalt(); err != nil {
			return err
		}
	}
	if !readable {
		c.damaged(Damage{
			First: v.seg.first, Last: v.end - 1, File: v.seg.name, Bytes: v.size, Reason: "no frame can be read",
		})
		return nil
	}
	at, err := c.frames(ctx, sc, v, follows.seg != nil)
	if err != nil || at.num >= v.end && (follows.seg != nil || at.off >= v.size) {
		return err
	}
	d := Damage{
		First: at.num, Last: v.end - 1, File: v.seg.name, Offset: at.off, Bytes: max(0, v.size-at.off),
		Reason: "the end of the segment is missing or damaged",
	}
	if f := follows.seg; f != nil && f.salted && f.prev != v.seg.first {
		d.Reason = "the segment behind it is missing: " + segmentName(f.prev)
	}
	c.damaged(d)
	return nil
}

// frames walks through the frames of a segment and names the damage between them. It returns the place behind the last
// one that counts.
func (c *checker) frames(ctx context.Context, sc *scanner, v view, sealed bool) (at place, err error) {
	at = v.seg.begin()
	begin := c.done
	for at.off < v.size {
		if err := ctx.Err(); err != nil {
			return at, err
		}
		if c.done = begin + at.off; c.done >= c.told+progressBytes {
			c.told = c.done
			c.progress(c.done, c.total)
		}
		h, _, ok, err := sc.frame(at.off)
		if err != nil {
			return at, err
		}
		from := at
		if !ok || !at.accepts(h, v.end) {
			if sealed && at.num >= v.end {
				return at, nil
			}
			var found bool
			if at, h, found, err = sc.resync(at, v.end); err != nil || !found {
				return from, err
			}
			at.num = h.first
		}
		if at.off > from.off || h.first > from.num {
			c.damaged(Damage{
				First: from.num, Last: h.first - 1, File: v.seg.name, Offset: from.off, Bytes: at.off - from.off,
				Reason: "bytes that are no frame between intact ones",
			})
		}
		c.report.Frames++
		c.report.Entries += uint64(h.count)
		c.report.Bytes += int64(h.total())
		at = at.after(h)
	}
	return at, nil
}
