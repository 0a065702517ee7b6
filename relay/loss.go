package relay

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/auditrelay/auditrelay/audit"
)

// losses counts the numbers that a destination's cursor had to skip because they lie in a damaged range. The count
// belongs to a commit as the forwarder's counts do, so that the destination's equation closes at any moment.
type losses struct {
	mu    sync.Mutex
	steps []lossStep // rising; the first is what was stored with the last commit of the process before
}

// lossStep says how many numbers were lost up to one of them.
type lossStep struct {
	through audit.Number
	total   uint64
}

// lossSteps bounds the memory of a badly damaged queue. Only commits that are so many gaps old would be counted wrong.
const lossSteps = 4096

func newLosses(through audit.Number, total uint64) *losses {
	return &losses{steps: []lossStep{{through, total}}}
}

// add notes that the numbers from first to last are lost. After a Rewind the same gap is met again and counts once.
func (l *losses) add(first, last audit.Number) {
	l.mu.Lock()
	defer l.mu.Unlock()
	newest := l.steps[len(l.steps)-1]
	if first = max(first, newest.through+1); first > last {
		return
	}
	l.steps = append(l.steps, lossStep{last, newest.total + uint64(last-first+1)})
	if len(l.steps) > lossSteps {
		l.steps = append(l.steps[:0], l.steps[1:]...)
	}
}

// upTo returns how many of the numbers up to n are lost.
func (l *losses) upTo(n audit.Number) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.steps) - 1; i > 0; i-- {
		if l.steps[i].through <= n {
			return l.steps[i].total
		}
	}
	return l.steps[0].total
}

// cursorState is what the relay keeps in front of a forwarder's state in its cursor.
type cursorState struct {
	began   audit.Number // the first event that is the destination's own
	damaged uint64       // numbers since then that are lost
}

// The stored form of cursorState. Version 2 is the version byte and two uvarints. Before, it was the eight bytes of
// began, big endian, whose first byte is 0 for all numbers that a log can have.
const (
	cursorStateVersion = 2
	beganBytes         = 8
)

func (s *cursorState) encode(dst []byte) []byte {
	dst = append(dst, cursorStateVersion)
	dst = binary.AppendUvarint(dst, uint64(s.began))
	return binary.AppendUvarint(dst, s.damaged)
}

// decodeCursorState returns the state and what the forwarder had stored behind it.
func decodeCursorState(b []byte) (s cursorState, forwarder []byte, err error) {
	switch {
	case len(b) >= beganBytes && b[0] == 0:
		return cursorState{began: audit.Number(binary.BigEndian.Uint64(b))}, b[beganBytes:], nil
	case len(b) == 0 || b[0] != cursorStateVersion:
		return s, nil, errors.New("unknown version of a stored cursor state")
	}
	b = b[1:]
	var numbers [2]uint64
	for i := range numbers {
		v, size := binary.Uvarint(b)
		if size <= 0 {
			return s, nil, errors.New("stored cursor state is cut short")
		}
		numbers[i], b = v, b[size:]
	}
	return cursorState{began: audit.Number(numbers[0]), damaged: numbers[1]}, b, nil
}
