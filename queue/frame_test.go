package queue

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// testFrame builds a whole frame.
func testFrame(h header, salt uint32, entries [][]byte, marks []byte) []byte {
	frame := make([]byte, headerBytes)
	for _, e := range entries {
		frame = appendField(frame, e)
	}
	h.count, h.markBytes = len(entries), len(marks)
	frame = append(frame, marks...)
	sealFrame(frame, h, salt)
	return frame
}

func TestFrameRoundTrip(t *testing.T) {
	mark := AppendMark(nil, []byte("k"), []byte("v"))
	entries := [][]byte{[]byte("a"), {}, bytes.Repeat([]byte("x"), 300)}
	frame := testFrame(header{first: 7, prev: 9, flags: flagSnapshot}, 42, entries, mark)
	h, ok := parseHeader(frame, 42)
	require.True(t, ok)
	require.Equal(t, header{
		flags: flagSnapshot, length: len(frame) - headerBytes, first: 7, count: 3, markBytes: len(mark), prev: 9, crc: h.crc,
	}, h)
	require.Equal(t, frameCRC(frame, 42), h.crc)
	require.NoError(t, checkPayload(h, frame[headerBytes:]))
	_, ok = parseHeader(frame, 43)
	require.False(t, ok, "another segment's frame does not pass")
	require.NotEqual(t, saltOf(1), saltOf(2))
	require.NotEqual(t, frameCRC(frame, 43), h.crc)
}

func TestSaltIsRecoveredFromAFrame(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		salt := saltOf(rnd.Uint64())
		entries := [][]byte{make([]byte, rnd.IntN(100))}
		frame := testFrame(header{first: rnd.Uint64N(1000) + 1, prev: rnd.Uint32()}, salt, entries, nil)
		got, ok := recoverSalt(frame)
		require.True(t, ok)
		require.Equal(t, salt, got)
		frame[rnd.IntN(len(frame))] ^= 1 << rnd.IntN(8)
		got, ok = recoverSalt(frame)
		require.False(t, ok && got != salt, "a damaged frame must not name another salt")
	}
}

func TestFieldBytesIsWhatAppendFieldAdds(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 16383, 16384, 1 << 21} {
		require.Len(t, appendField(nil, make([]byte, n)), fieldBytes(make([]byte, n)))
	}
}

// lastFrame returns the place behind the last frame of the only segment, with the salt and the frame's CRC.
func lastFrame(t *testing.T, path string) (end int64, salt, crc uint32) {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	salt = saltOf(binary.LittleEndian.Uint64(data[16:]))
	for off := segmentHead; off < len(data); {
		h, ok := parseHeader(data[off:], salt)
		require.True(t, ok)
		off, crc = off+h.total(), h.crc
	}
	return int64(len(data)), salt, crc
}

// TestStrangeFramesAreNotAccepted puts well-formed frames behind the log that do not belong there.
func TestStrangeFramesAreNotAccepted(t *testing.T) {
	for name, forge := range map[string]func(salt, crc uint32) []byte{
		"of another segment": func(salt, crc uint32) []byte {
			return testFrame(header{first: 4, prev: crc}, salt+1, [][]byte{[]byte("strange")}, nil)
		},
		"stale, does not chain": func(salt, crc uint32) []byte {
			return testFrame(header{first: 4, prev: crc + 1}, salt, [][]byte{[]byte("strange")}, nil)
		},
		"number of the past": func(salt, crc uint32) []byte {
			return testFrame(header{first: 3, prev: crc}, salt, [][]byte{[]byte("strange")}, nil)
		},
		"entries do not fit": func(salt, crc uint32) []byte {
			frame := append(make([]byte, headerBytes), 5, 'x')
			sealFrame(frame, header{first: 4, prev: crc, count: 1}, salt)
			return frame
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			q, err := Open(dir, Options{})
			require.NoError(t, err)
			add(t, q, 3)
			require.NoError(t, q.Close())
			path := filepath.Join(dir, segmentName(1))
			end, salt, crc := lastFrame(t, path)
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			require.NoError(t, err)
			_, err = f.WriteAt(forge(salt, crc), end)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			q = open(t, dir, Options{Damaged: func(d Damage) { t.Errorf("damage: %+v", d) }})
			require.Equal(t, uint64(4), q.Next())
			require.NotZero(t, q.Stats().TornBytes)
			add(t, q, 2)
			require.Equal(t, span(1, 6), readAll(t, reader(t, q, "a")))
		})
	}
}

// TestVoidFramesStayVoid: frames in an abandoned segment at or past the next segment's first number are not read, not
// even when they are perfectly well.
func TestVoidFramesStayVoid(t *testing.T) {
	dir := t.TempDir()
	q, err := Open(dir, Options{SegmentBytes: 4 << 10})
	require.NoError(t, err)
	for q.Stats().Segments < 2 {
		add(t, q, 5)
	}
	next := q.Next()
	require.NoError(t, q.Close())
	path := filepath.Join(dir, segmentName(1))
	end, salt, crc := lastFrame(t, path)
	second, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	require.NoError(t, err)
	first, ok := parseSegmentName(filepath.Base(second[1]))
	require.True(t, ok)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	void := [][]byte{[]byte("void"), []byte("void")}
	_, err = f.WriteAt(testFrame(header{first: first, prev: crc}, salt, void, nil), end)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	q = open(t, dir, Options{Damaged: func(d Damage) { t.Errorf("damage: %+v", d) }})
	require.Equal(t, next, q.Next())
	require.Equal(t, span(1, next), readAll(t, reader(t, q, "a")))
}

func FuzzFrame(f *testing.F) {
	frame := testFrame(header{first: 1}, 1, [][]byte{[]byte("entry"), {}}, AppendMark(nil, []byte("key"), []byte("value")))
	f.Add(frame, true)
	f.Add(frame[:20], false)
	f.Add([]byte{}, true)
	ids := append(appendField(make([]byte, headerBytes), []byte("entry")), make([]byte, seenHead+2*idBytes)...)
	sealFrame(ids, header{first: 1, count: 1, flags: flagSeen}, 1)
	f.Add(ids, false)
	f.Add(ids, true)
	f.Add(ids[:len(ids)-1], true)
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		if seal && len(data) >= headerBytes {
			// A frame with right CRCs around anything: the payload must not be trusted because of them.
			sealFrame(data, header{
				flags: data[3], first: binary.LittleEndian.Uint64(data[8:]), prev: 1,
				count: int(binary.LittleEndian.Uint32(data[16:])), markBytes: int(binary.LittleEndian.Uint32(data[20:])),
			}, 1)
		}
		h, ok := parseHeader(data, 1)
		if !ok || h.total() > len(data) {
			return
		}
		payload := data[headerBytes:h.total()]
		if checkPayload(h, payload) != nil {
			return
		}
		// What passes is exactly what its fields say.
		rest, count := payload[:h.length-h.markBytes], 0
		if h.flags&flagSeen != 0 {
			section := seenSection(h, payload)
			require.Zero(t, (len(section)-seenHead)%idBytes)
			require.Greater(t, len(section), seenHead)
			rest = rest[:len(rest)-len(section)]
		}
		for ; len(rest) > 0; count++ {
			_, rest, ok = nextField(rest)
			require.True(t, ok)
		}
		require.Equal(t, h.count, count)
	})
}
