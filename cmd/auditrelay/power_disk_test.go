package main

import (
	"context"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// powerDisk is a file system in memory, mounted by FUSE under the real program, that loses at a power cut what was not
// synced: contents of files without fsync, names without an fsync of their directory. When the power is off every call
// fails, so the program cannot acknowledge anything on the strength of what is no more.
type powerDisk struct {
	mu      sync.Mutex
	root    *powerInode
	last    uint64          // the highest inode number
	pending []*powerRenames // changes of names that are not durable, in order
	off     bool
	gone    chan struct{} // closed when the power goes

	lies  bool // fsync answers "done" and does nothing
	calls int  // that changed something or made it durable
	cutAt int  // the call with which the power goes, 0 = none
	after bool // the call is done, but not answered; else it is not done
}

// powerInode is a file or a directory: as a process sees it, and as it will be after a power cut.
type powerInode struct {
	id          uint64
	mode        uint32
	names, kept map[string]*powerInode // of a directory
	data, disk  []byte                 // of a file
	writes      []powerWrite           // of a file, not synced, in order
}

// powerWrite is a write, or a new length if there is no data.
type powerWrite struct {
	off  int64
	data []byte
}

// powerRenames is one atomic change of names.
type powerRenames struct {
	set     []powerName
	waiting map[*powerInode]bool // directories to be synced before it is durable
}

type powerName struct {
	dir  *powerInode
	name string
	to   *powerInode // nil: nothing
}

// How much of what was not synced a power cut leaves.
const (
	powerNothing = iota // nothing
	powerTorn           // the first of it, the last write of each file cut at a sector
	powerSubset         // a random subset of sectors and names
	powerAll            // everything, as if the disk had been idle
	powerModes
)

const powerSector = 512

func newPowerDisk() *powerDisk {
	return &powerDisk{root: newPowerInode(1, syscall.S_IFDIR|0o700), last: 1, gone: make(chan struct{})}
}

func newPowerInode(id uint64, mode uint32) *powerInode {
	in := &powerInode{id: id, mode: mode}
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		in.names, in.kept = map[string]*powerInode{}, map[string]*powerInode{}
	}
	return in
}

// cut switches the power off.
func (d *powerDisk) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutLocked()
}

func (d *powerDisk) cutLocked() {
	if !d.off {
		d.off = true
		close(d.gone)
	}
}

// restart is for when only the program died: the disk goes on as it is.
func (d *powerDisk) restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off, d.gone, d.calls, d.cutAt = false, make(chan struct{}), 0, 0
}

// look does something that changes nothing.
func (d *powerDisk) look(work func() syscall.Errno) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return syscall.EIO
	}
	return work()
}

// do does something that changes the disk, unless the power goes with it.
func (d *powerDisk) do(work func() syscall.Errno) syscall.Errno {
	return d.look(func() syscall.Errno {
		d.calls++
		cut := d.calls == d.cutAt
		if cut && !d.after {
			d.cutLocked()
			return syscall.EIO
		}
		errno := work()
		if cut {
			d.cutLocked()
			return syscall.EIO
		}
		return errno
	})
}

// rename makes one atomic change of names.
func (d *powerDisk) rename(set ...powerName) {
	change := &powerRenames{set: set, waiting: map[*powerInode]bool{}}
	for _, s := range set {
		change.waiting[s.dir] = true
		s.apply(s.dir.names)
	}
	d.pending = append(d.pending, change)
}

func (s powerName) apply(names map[string]*powerInode) {
	if s.to == nil {
		delete(names, s.name)
		return
	}
	names[s.name] = s.to
}

func (c *powerRenames) keep() {
	for _, s := range c.set {
		s.apply(s.dir.kept)
	}
}

// write changes a file.
func (in *powerInode) write(w powerWrite) {
	in.data = w.apply(in.data)
	in.writes = append(in.writes, w)
}

func (w powerWrite) apply(p []byte) []byte {
	end := int(w.off) + len(w.data)
	if w.data == nil && end < len(p) {
		return p[:end]
	}
	if end > len(p) {
		clear(p[len(p):cap(p)]) // a shorter length may have left something behind
		p = slices.Grow(p, end-len(p))[:end]
	}
	copy(p[w.off:], w.data)
	return p
}

// sync makes a file's contents or a directory's names durable.
func (d *powerDisk) sync(in *powerInode) {
	if d.lies {
		return
	}
	for _, w := range in.writes {
		in.disk = w.apply(in.disk)
	}
	in.writes = nil
	d.pending = slices.DeleteFunc(d.pending, func(c *powerRenames) bool {
		delete(c.waiting, in)
		if len(c.waiting) > 0 {
			return false
		}
		c.keep()
		return true
	})
}

// unsynced returns how many writes and changes of names a power cut may take away.
func (d *powerDisk) unsynced() (writes, names int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := map[*powerInode]bool{}
	var count func(in *powerInode)
	count = func(in *powerInode) {
		if !seen[in] {
			seen[in] = true
			writes += len(in.writes)
			for _, child := range in.names {
				count(child)
			}
		}
	}
	count(d.root)
	return writes, len(d.pending)
}

// remains returns the disk as it is after the power cut.
func (d *powerDisk) remains(mode int, random *rand.Rand) *powerDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := random.IntN(len(d.pending) + 1)
	for i, c := range d.pending {
		if mode == powerAll || mode == powerTorn && i < first || mode == powerSubset && random.IntN(2) == 0 {
			c.keep()
		}
	}
	after := newPowerDisk()
	after.lies = d.lies
	after.last = d.last
	after.root = d.root.remains(mode, random, map[*powerInode]*powerInode{})
	return after
}

func (in *powerInode) remains(mode int, random *rand.Rand, done map[*powerInode]*powerInode) *powerInode {
	if copied := done[in]; copied != nil {
		return copied
	}
	after := newPowerInode(in.id, in.mode)
	done[in] = after
	for _, name := range slices.Sorted(maps.Keys(in.kept)) { // sorted, so that a seed repeats
		after.names[name] = in.kept[name].remains(mode, random, done)
	}
	maps.Copy(after.kept, after.names)
	after.disk = in.disk
	first := random.IntN(len(in.writes) + 1)
	for i, w := range in.writes {
		switch {
		case mode == powerAll || mode == powerTorn && i < first:
			after.disk = w.apply(after.disk)
		case mode == powerTorn && i == first || mode == powerSubset:
			after.disk = w.tear(after.disk, mode == powerSubset, random)
		}
	}
	after.data = slices.Clone(after.disk)
	return after
}

// tear does a part of a write: its first sectors, or any.
func (w powerWrite) tear(p []byte, any bool, random *rand.Rand) []byte {
	if w.data == nil {
		if any && random.IntN(2) == 0 {
			return w.apply(p)
		}
		return p
	}
	for at := 0; at < len(w.data); {
		end := min(len(w.data), at+powerSector-int(w.off+int64(at))%powerSector)
		switch {
		case random.IntN(2) == 0:
			p = powerWrite{w.off + int64(at), w.data[at:end]}.apply(p)
		case !any:
			return p
		}
		at = end
	}
	return p
}

// powerNode is what go-fuse asks of one inode.
type powerNode struct {
	fs.Inode
	disk *powerDisk
	in   *powerInode
}

var (
	_ fs.NodeLookuper  = (*powerNode)(nil)
	_ fs.NodeReaddirer = (*powerNode)(nil)
	_ fs.NodeGetattrer = (*powerNode)(nil)
	_ fs.NodeSetattrer = (*powerNode)(nil)
	_ fs.NodeCreater   = (*powerNode)(nil)
	_ fs.NodeMkdirer   = (*powerNode)(nil)
	_ fs.NodeOpener    = (*powerNode)(nil)
	_ fs.NodeReader    = (*powerNode)(nil)
	_ fs.NodeWriter    = (*powerNode)(nil)
	_ fs.NodeFsyncer   = (*powerNode)(nil)
	_ fs.NodeUnlinker  = (*powerNode)(nil)
	_ fs.NodeRenamer   = (*powerNode)(nil)
)

func (in *powerInode) attr(out *fuse.Attr) {
	out.Ino, out.Mode, out.Size, out.Nlink = in.id, in.mode, uint64(len(in.data)), 1
	out.Blocks, out.Blksize = uint64(len(in.data)+powerSector-1)/powerSector, 4096
}

func (n *powerNode) child(ctx context.Context, in *powerInode, out *fuse.EntryOut) *fs.Inode {
	in.attr(&out.Attr)
	return n.NewInode(ctx, &powerNode{disk: n.disk, in: in}, fs.StableAttr{Mode: in.mode & syscall.S_IFMT, Ino: in.id})
}

func (n *powerNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (child *fs.Inode, errno syscall.Errno) {
	errno = n.disk.look(func() syscall.Errno {
		in := n.in.names[name]
		if in == nil {
			return syscall.ENOENT
		}
		child = n.child(ctx, in, out)
		return 0
	})
	return child, errno
}

func (n *powerNode) Readdir(context.Context) (stream fs.DirStream, errno syscall.Errno) {
	errno = n.disk.look(func() syscall.Errno {
		var list []fuse.DirEntry
		for name, in := range n.in.names {
			list = append(list, fuse.DirEntry{Name: name, Ino: in.id, Mode: in.mode})
		}
		stream = fs.NewListDirStream(list)
		return 0
	})
	return stream, errno
}

func (n *powerNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return n.disk.look(func() syscall.Errno {
		n.in.attr(&out.Attr)
		return 0
	})
}

func (n *powerNode) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return n.disk.do(func() syscall.Errno {
		if size, ok := in.GetSize(); ok {
			n.in.write(powerWrite{off: int64(size)})
		}
		n.in.attr(&out.Attr)
		return 0
	})
}

func (n *powerNode) make(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (child *fs.Inode, errno syscall.Errno) {
	errno = n.disk.do(func() syscall.Errno {
		if n.in.names[name] != nil {
			return syscall.EEXIST
		}
		n.disk.last++
		in := newPowerInode(n.disk.last, mode)
		n.disk.rename(powerName{n.in, name, in})
		child = n.child(ctx, in, out)
		return 0
	})
	return child, errno
}

func (n *powerNode) Create(ctx context.Context, name string, _, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	child, errno := n.make(ctx, name, syscall.S_IFREG|mode&0o777, out)
	return child, nil, 0, errno
}

func (n *powerNode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.make(ctx, name, syscall.S_IFDIR|mode&0o777, out)
}

func (n *powerNode) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, 0, n.disk.look(func() syscall.Errno { return 0 })
}

func (n *powerNode) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (result fuse.ReadResult, errno syscall.Errno) {
	errno = n.disk.look(func() syscall.Errno {
		size := 0
		if off < int64(len(n.in.data)) {
			size = copy(dest, n.in.data[off:])
		}
		result = fuse.ReadResultData(dest[:size])
		return 0
	})
	return result, errno
}

func (n *powerNode) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	return uint32(len(data)), n.disk.do(func() syscall.Errno {
		n.in.write(powerWrite{off, slices.Clone(data)})
		return 0
	})
}

func (n *powerNode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return n.disk.do(func() syscall.Errno {
		n.disk.sync(n.in)
		return 0
	})
}

func (n *powerNode) Unlink(_ context.Context, name string) syscall.Errno {
	return n.disk.do(func() syscall.Errno {
		n.disk.rename(powerName{n.in, name, nil})
		return 0
	})
}

func (n *powerNode) Rename(_ context.Context, name string, newParent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	return n.disk.do(func() syscall.Errno {
		to, in := newParent.(*powerNode).in, n.in.names[name]
		switch {
		case flags&^unix.RENAME_NOREPLACE != 0:
			return syscall.EINVAL
		case flags&unix.RENAME_NOREPLACE != 0 && to.names[newName] != nil:
			return syscall.EEXIST
		case in == nil:
			return syscall.ENOENT
		}
		n.disk.rename(powerName{n.in, name, nil}, powerName{to, newName, in})
		return 0
	})
}

// mountPowerDisk mounts the disk until the returned function is called, or the test ends.
func mountPowerDisk(t *testing.T, dir string, disk *powerDisk) (unmount func()) {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		skipUnlessCI(t, "no FUSE on this machine: %v", err)
	}
	server, err := fs.Mount(dir, &powerNode{disk: disk, in: disk.root}, &fs.Options{
		RootStableAttr: &fs.StableAttr{Mode: syscall.S_IFDIR, Ino: disk.root.id},
		MountOptions:   fuse.MountOptions{DirectMountStrict: true, FsName: "powerdisk", Name: "powerdisk", DisableXAttrs: true},
	})
	if err != nil {
		skipUnlessCI(t, "a FUSE file system cannot be mounted: %v", err)
	}
	mounted := true
	unmount = func() {
		if !mounted {
			return
		}
		mounted = false
		if server.Unmount() != nil {
			require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH))
		}
		server.Wait()
	}
	t.Cleanup(func() {
		disk.cut() // nothing must wait for it
		unmount()
	})
	return unmount
}
