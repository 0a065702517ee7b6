package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sort"
	"strconv"
	"strings"
	"time"
)

// The bytes of a segment are described in DESIGN.md.
const (
	segmentMagic  = "ARQSEG\r\n"
	formatVersion = 2
	idsSince      = 2 // the first format with ids in frames
	segmentHead   = 64

	segmentSuffix = ".seg"
	newSuffix     = ".new"
	numberDigits  = 20

	// indexBytes is the distance of two points of a segment's index in memory.
	indexBytes = 1 << 20
)

// segment is one file of the log. Fields below mu's line are guarded by Queue.mu; size, end and disk change only while
// the segment is the one that is written to.
type segment struct {
	name  string
	first uint64
	prev  uint64    // first number of the segment before, 0 if none or not known
	made  time.Time // zero if not known
	id    uint64    // 0 if not known
	// version is the format; 0 if not known.
	version uint16
	before  idsBefore
	salt    uint32
	// salted says that salt is known from the header; else a reader works it out from the frames.
	salted bool

	end       uint64 // the number after its last entry; for the newest segment see Queue.next
	size      int64  // bytes that readers may look at
	disk      int64  // bytes of the file
	index     []place
	delivered time.Time // when all cursors were first seen to be past it
	unlinked  bool      // the name is gone, the directory not yet synced
}

// place is a point between two frames: what the next frame must look like.
type place struct {
	off     int64
	num     uint64 // number that the next frame begins with
	prev    uint32 // CRC of the frame before
	chained bool   // prev is known
}

// after is the place behind the frame h at p.
func (p place) after(h header) place {
	return place{off: p.off + int64(h.total()), num: h.end(), prev: h.crc, chained: true}
}

// accepts says whether a frame with a valid header can stand at p in a segment whose entries end before the number end.
func (p place) accepts(h header, end uint64) bool {
	return h.first >= p.num && h.end() <= end && (!p.chained || h.prev == p.prev)
}

// begin is the place of the first frame.
func (s *segment) begin() place {
	return place{off: segmentHead, num: s.first, chained: true}
}

// note adds a point to the index. The caller holds Queue.mu.
func (s *segment) note(p place) {
	if n := len(s.index); n == 0 || p.off >= s.index[n-1].off+indexBytes {
		s.index = append(s.index, p)
	}
}

// near returns the last known place at or before a number. The caller holds Queue.mu.
func (s *segment) near(num uint64) place {
	i := sort.Search(len(s.index), func(i int) bool { return s.index[i].num > num })
	if i == 0 {
		return s.begin()
	}
	return s.index[i-1]
}

func segmentName(first uint64) string {
	return fmt.Sprintf("%0*d%s", numberDigits, first, segmentSuffix)
}

// parseSegmentName returns the first number of a segment's file name.
func parseSegmentName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != numberDigits {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && n > 0 && n <= maxNumber
}

// segmentHeader is the first 64 bytes of a segment.
type segmentHeader struct {
	version     uint16
	logID       uint32
	id          uint64
	first, prev uint64
	created     time.Time
	before      idsBefore
}

func (h segmentHeader) append(dst []byte) []byte {
	b := make([]byte, segmentHead)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint16(b[8:], formatVersion)
	binary.LittleEndian.PutUint32(b[12:], h.logID)
	binary.LittleEndian.PutUint64(b[16:], h.id)
	binary.LittleEndian.PutUint64(b[24:], h.first)
	binary.LittleEndian.PutUint64(b[32:], uint64(h.created.UnixNano()))
	binary.LittleEndian.PutUint64(b[40:], h.prev)
	binary.LittleEndian.PutUint32(b[48:], h.before.count)
	binary.LittleEndian.PutUint64(b[52:], uint64(h.before.newest))
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return append(dst, b...)
}

var errHead = errors.New("the file header is damaged")

// parseSegmentHeader returns errHead for damage and ErrNewerFormat for an intact header of a later version.
func parseSegmentHeader(b []byte) (segmentHeader, error) {
	version, err := checkHead(b, segmentMagic)
	if err == nil && version > formatVersion {
		err = newerFormat(version, formatVersion)
	}
	if err != nil {
		return segmentHeader{}, err
	}
	return segmentHeader{
		version: version, logID: binary.LittleEndian.Uint32(b[12:]), id: binary.LittleEndian.Uint64(b[16:]),
		first: binary.LittleEndian.Uint64(b[24:]), prev: binary.LittleEndian.Uint64(b[40:]),
		created: time.Unix(0, int64(binary.LittleEndian.Uint64(b[32:]))),
		before: idsBefore{
			count: binary.LittleEndian.Uint32(b[48:]), newest: int64(binary.LittleEndian.Uint64(b[52:])),
		},
	}, nil
}

// checkHead checks what the 64 bytes at the head of segments and the meta file have in common, and returns the version.
func checkHead(b []byte, magic string) (version uint16, err error) {
	if len(b) < segmentHead || !bytes.HasPrefix(b, []byte(magic)) ||
		binary.LittleEndian.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli) {
		return 0, errHead
	}
	return binary.LittleEndian.Uint16(b[8:]), nil
}

func newerFormat(version, known uint16) error {
	return fmt.Errorf("%w: format %d, this program knows %d; start the newer program again, or use another data directory",
		ErrNewerFormat, version, known)
}
