package queue

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"slices"
	"time"
)

// idBytes is the size of an id.
const idBytes = 16

// seenGrains is how finely the window is kept: ids whose times differ by less than this part of the window are
// forgotten together, with the newest of them.
const seenGrains = 1024

// seenIndex is the set of ids of the window, in the order in which they were appended. The ids stand in a ring; an
// open-addressed table of ring positions finds them. It takes about 25 bytes for each id when it is full, at most three
// times as much while it grows. It is guarded by its owner.
type seenIndex struct {
	limit  int
	window time.Duration
	seed   maphash.Seed // ids may come from clients: nobody can make them collide

	ring       [][idBytes]byte // a power of two long
	tail, head uint64          // sequence numbers of the oldest id and of the next one; one's place is seq & (len(ring)-1)
	slots      []uint32        // twice as long; place in the ring + 1, or 0
	runs       []seenRun       // oldest first
	forgotten  uint64          // ids that left before their time
}

// seenRun is a stretch of the ring: all ids from the end of the run before up to past.
type seenRun struct {
	past  uint64
	since int64 // Unix nanoseconds of the first
	at    int64 // and of the newest
}

func newSeenIndex(limit int, window time.Duration) seenIndex {
	return seenIndex{limit: limit, window: window, seed: maphash.MakeSeed()}
}

// slot returns where an id is in the table, or the empty slot where it belongs.
func (x *seenIndex) slot(id *[idBytes]byte) int {
	mask := len(x.slots) - 1
	i := x.home(id)
	for x.slots[i] != 0 && x.ring[x.slots[i]-1] != *id {
		i = (i + 1) & mask
	}
	return i
}

func (x *seenIndex) home(id *[idBytes]byte) int {
	return int(maphash.Bytes(x.seed, id[:])) & (len(x.slots) - 1)
}

// has says whether an id is in the set. The caller has called expire.
func (x *seenIndex) has(id *[idBytes]byte) bool {
	return x.head > x.tail && x.slots[x.slot(id)] != 0
}

// add puts an id in, as appended at a time. One that is there already becomes the newest.
func (x *seenIndex) add(id *[idBytes]byte, at int64) {
	if x.head-x.tail >= uint64(x.limit) {
		x.drop(true)
	}
	if int(x.head-x.tail) >= len(x.ring) {
		x.grow()
	}
	place := int(x.head) & (len(x.ring) - 1)
	i := x.slot(id)
	x.ring[place] = *id
	x.slots[i] = uint32(place) + 1
	x.head++
	if n := len(x.runs); n > 0 {
		last := &x.runs[n-1]
		grain := int64(x.window / seenGrains)
		if d := at - last.since; d <= grain && d >= -grain {
			last.past, last.at = x.head, max(last.at, at)
			return
		}
	}
	x.runs = append(x.runs, seenRun{past: x.head, since: at, at: at})
}

// addSection adds the ids of a frame.
func (x *seenIndex) addSection(section []byte) {
	at := int64(binary.LittleEndian.Uint64(section))
	for ids := section[seenHead:]; len(ids) > 0; ids = ids[idBytes:] {
		x.add((*[idBytes]byte)(ids), at)
	}
}

// grow doubles the ring and fills the table anew.
func (x *seenIndex) grow() {
	size := 1024
	if len(x.ring) > 0 {
		size = 2 * len(x.ring)
	}
	size = min(size, 1<<bits.Len(uint(x.limit-1)))
	old := *x
	x.ring, x.slots = make([][idBytes]byte, size), make([]uint32, 2*size)
	for seq := old.tail; seq < old.head; seq++ {
		id := &old.ring[int(seq)&(len(old.ring)-1)]
		place := int(seq) & (size - 1)
		i := x.slot(id) // before the ring has it: a slot is compared with what it stands for
		x.ring[place] = *id
		x.slots[i] = uint32(place) + 1
	}
}

// drop forgets the oldest id; early says that its time had not come.
func (x *seenIndex) drop(early bool) {
	place := int(x.tail) & (len(x.ring) - 1)
	x.tail++
	if x.runs[0].past <= x.tail {
		x.runs = x.runs[1:]
	}
	mask := len(x.slots) - 1
	i := x.home(&x.ring[place])
	for ; x.slots[i] != uint32(place)+1; i = (i + 1) & mask {
		if x.slots[i] == 0 {
			return // it was added again later
		}
	}
	if early {
		x.forgotten++
	}
	// What comes behind moves up, so that a search does not end at the hole.
	for j := (i + 1) & mask; x.slots[j] != 0; j = (j + 1) & mask {
		if home := x.home(&x.ring[x.slots[j]-1]); (j-home)&mask >= (j-i)&mask {
			x.slots[i] = x.slots[j]
			i = j
		}
	}
	x.slots[i] = 0
}

// expire forgets the ids whose window has passed.
func (x *seenIndex) expire(now time.Time) {
	t := now.UnixNano()
	for len(x.runs) > 0 {
		// The clock was set back: it was appended now at the latest.
		x.runs[0].at = min(x.runs[0].at, t)
		if t-x.runs[0].at < int64(x.window) {
			return
		}
		for past := x.runs[0].past; x.tail < past; {
			x.drop(false)
		}
	}
}

// untilNext is when expire has something to do.
func (x *seenIndex) untilNext(now time.Time) (wait time.Duration, ok bool) {
	if len(x.runs) == 0 {
		return 0, false
	}
	return x.window - time.Duration(now.UnixNano()-x.runs[0].at), true
}

// appendRuns appends the ids from one sequence number to another, as far as they are still there, with their times: for
// each run the time (8 bytes), the number of ids (4) and the ids. It returns how many there are, and the newest time.
func (x *seenIndex) appendRuns(dst []byte, from, past uint64) (out []byte, count int, newest int64) {
	seq := max(from, x.tail)
	dst = slices.Grow(dst, int(max(past, seq)-seq)*idBytes)
	for _, run := range x.runs {
		end := min(run.past, past)
		if seq >= end {
			continue
		}
		dst = binary.LittleEndian.AppendUint64(dst, uint64(run.at))
		dst = binary.LittleEndian.AppendUint32(dst, uint32(end-seq))
		count, newest = count+int(end-seq), max(newest, run.at)
		for ; seq < end; seq++ {
			dst = append(dst, x.ring[int(seq)&(len(x.ring)-1)][:]...)
		}
	}
	return dst, count, newest
}
