package tail

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	headBytes = 1024 // fewer made different files look alike: 64 bytes of constant-width lines often end the same
	tailBytes = 512
)

// inode names a file on this machine for as long as somebody holds it open.
type inode struct{ dev, ino uint64 }

// status is what the kernel says of a file.
type status struct {
	inode
	mode  uint32
	links uint64
	size  int64
	mtime int64 // nanoseconds since 1970
}

func statusOf(st *unix.Stat_t) status {
	return status{
		inode: inode{st.Dev, st.Ino},
		mode:  st.Mode,
		links: uint64(st.Nlink),
		size:  st.Size,
		mtime: st.Mtim.Nano(),
	}
}

// statPath does not follow a symbolic link at the end of the path.
func statPath(path string) (status, error) {
	var st unix.Stat_t
	if err := ignoreEINTR(func() error { return unix.Lstat(path, &st) }); err != nil {
		return status{}, err
	}
	return statusOf(&st), nil
}

func statFile(fd int) (status, error) {
	var st unix.Stat_t
	if err := ignoreEINTR(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return status{}, fmt.Errorf("fstat: %w", err)
	}
	return statusOf(&st), nil
}

// birthOf returns when the file was made, in nanoseconds since 1970, or 0 if the file system does not say.
func birthOf(fd int) int64 {
	var st unix.Statx_t
	err := ignoreEINTR(func() error { return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st) })
	if err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
}

// refusal returns why a file of this mode is not followed, or "".
func refusal(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return ""
	case unix.S_IFLNK:
		return "is a symbolic link: give the path of the file itself"
	case unix.S_IFDIR:
		return "is a directory: give a pattern such as " + `"*.csv"` + " for the files in it"
	case unix.S_IFIFO:
		return "is a named pipe, not a regular file"
	case unix.S_IFSOCK:
		return "is a socket, not a regular file"
	default:
		return "is a device, not a regular file"
	}
}

// openFile opens a regular file for reading. It follows no symbolic link and never waits for the other end of a pipe.
func openFile(path string) (int, status, error) {
	fd := -1
	err := ignoreEINTR(func() (err error) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		return err
	})
	if errors.Is(err, unix.ELOOP) {
		return -1, status{}, errors.New(refusal(unix.S_IFLNK))
	}
	if err != nil {
		return -1, status{}, fmt.Errorf("open: %w", err)
	}
	st, err := statFile(fd)
	if err == nil {
		if reason := refusal(st.mode); reason != "" {
			err = errors.New(reason)
		}
	}
	if err != nil {
		closeFile(fd)
		return -1, status{}, err
	}
	return fd, st, nil
}

// closeFile closes a descriptor that was only read from, so there is nothing to lose and nobody to tell of an error.
func closeFile(fd int) { _ = unix.Close(fd) }

// readAt fills p from offset on and returns how many bytes there were; fewer than len(p) means the end of the file.
func readAt(fd int, p []byte, offset int64) (int, error) {
	n := 0
	for n < len(p) {
		k, err := unix.Pread(fd, p[n:], offset+int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, fmt.Errorf("read at %d: %w", offset, err)
		}
		if k == 0 {
			break
		}
		n += k
	}
	return n, nil
}

func ignoreEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// head is the fingerprint of a file's first bytes.
type head struct {
	n   int
	sum [sha256.Size]byte
}

func headOf(p []byte) head {
	p = p[:min(len(p), headBytes)]
	return head{n: len(p), sum: sha256.Sum256(p)}
}

// matches reports whether a file that begins with p may be the one that h was made from.
func (h head) matches(p []byte) bool {
	return h.n == 0 || len(p) >= h.n && sha256.Sum256(p[:h.n]) == h.sum
}

// tail is the fingerprint of the last bytes before an offset.
type tail struct {
	n   int
	sum [16]byte
}

// tailOf makes the fingerprint of what was read: the end of before, then p.
func tailOf(before, p []byte) tail {
	if len(p) >= tailBytes {
		p = p[len(p)-tailBytes:]
		sum := sha256.Sum256(p)
		return tail{n: len(p), sum: [16]byte(sum[:16])}
	}
	var buf [tailBytes]byte
	before = before[len(before)-min(len(before), tailBytes-len(p)):]
	joined := append(append(buf[:0], before...), p...)
	sum := sha256.Sum256(joined)
	return tail{n: len(joined), sum: [16]byte(sum[:16])}
}

func (t tail) matches(p []byte) bool {
	if len(p) != t.n {
		return false
	}
	sum := sha256.Sum256(p)
	return [16]byte(sum[:16]) == t.sum
}

// fileID is the stable name of a file; see DESIGN.md.
type fileID [16]byte

// newFileID hashes what tells files apart. first is the file's first bytes up to the end of its first record.
func newFileID(node inode, birth int64, truncations uint32, first []byte) fileID {
	var buf [64 + headBytes]byte
	b := append(buf[:0], "auditrelay file 1\x00"...)
	b = binary.BigEndian.AppendUint64(b, node.dev)
	b = binary.BigEndian.AppendUint64(b, node.ino)
	b = binary.BigEndian.AppendUint64(b, uint64(birth))
	b = binary.BigEndian.AppendUint32(b, truncations)
	b = append(b, first[:min(len(first), headBytes)]...)
	sum := sha256.Sum256(b)
	return fileID(sum[:16])
}
