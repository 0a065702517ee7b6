package crashfs_test

import (
	"bytes"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/queue"
	"github.com/auditrelay/auditrelay/queue/crashfs"
)

func create(t *testing.T, fs *crashfs.FS, path string) queue.File {
	t.Helper()
	_, err := fs.MkdirAll("d")
	require.NoError(t, err)
	f, err := fs.OpenFile(path, os.O_RDWR|os.O_CREATE)
	require.NoError(t, err)
	return f
}

func write(t *testing.T, f queue.File, text string, off int64) {
	t.Helper()
	_, err := f.WriteAt([]byte(text), off)
	require.NoError(t, err)
}

func content(t *testing.T, fs *crashfs.FS, path string) string {
	t.Helper()
	data, err := fs.ReadFile(path)
	require.NoError(t, err)
	return string(data)
}

func TestForgetsWhatWasNotSynced(t *testing.T) {
	fs := crashfs.New()
	f := create(t, fs, "d/f")
	write(t, f, "one", 0)
	require.NoError(t, f.Sync())
	require.Empty(t, fs.Crash(crashfs.Forget, 1).Files(), "the name is not synced")
	require.NoError(t, fs.SyncDir("d"))
	write(t, f, "two", 3)
	require.Equal(t, "one", content(t, fs.Crash(crashfs.Forget, 1), "d/f"))
	require.Equal(t, "onetwo", content(t, fs.Crash(crashfs.Keep, 1), "d/f"))
	require.NoError(t, fs.Rename("d/f", "d/g"))
	require.Equal(t, []string{"d/f"}, fs.Crash(crashfs.Forget, 1).Files())
	require.Equal(t, []string{"d/g"}, fs.Crash(crashfs.Keep, 1).Files())
}

func TestKillMakesNothingDurable(t *testing.T) {
	fs := crashfs.New()
	f := create(t, fs, "d/f")
	require.NoError(t, fs.SyncDir("d"))
	write(t, f, "one", 0)
	left := fs.Crash(crashfs.Keep, 1)
	require.Equal(t, "one", content(t, left, "d/f"))
	require.Empty(t, content(t, left.Crash(crashfs.Forget, 1), "d/f"))
}

func TestFailedSyncIsNeverMadeGood(t *testing.T) {
	fs := crashfs.New()
	f := create(t, fs, "d/f")
	require.NoError(t, fs.SyncDir("d"))
	write(t, f, "lost", 0)
	fs.Inject(crashfs.Fault{Call: fs.Calls() + 1, Err: syscall.EIO})
	require.ErrorIs(t, f.Sync(), syscall.EIO)
	write(t, f, "kept", 4)
	require.NoError(t, f.Sync())
	require.Equal(t, "lostkept", content(t, fs, "d/f"))
	require.Equal(t, "\x00\x00\x00\x00kept", content(t, fs.Crash(crashfs.Forget, 1), "d/f"))
}

func TestTearsAtSectors(t *testing.T) {
	fs := crashfs.New()
	f := create(t, fs, "d/f")
	require.NoError(t, fs.SyncDir("d"))
	write(t, f, string(bytes.Repeat([]byte("a"), 5000)), 100)
	lengths, patterns := map[int]bool{}, map[string]bool{}
	for seed := range uint64(200) {
		torn := content(t, fs.Crash(crashfs.Torn, seed), "d/f")
		require.True(t, len(torn) == 0 || len(torn) == 5100 || len(torn)%512 == 0, "%d", len(torn))
		lengths[len(torn)] = true
		subset := content(t, fs.Crash(crashfs.Subset, seed), "d/f")
		require.Equal(t, subset, content(t, fs.Crash(crashfs.Subset, seed), "d/f"), "the same seed gives the same")
		patterns[subset] = true
	}
	require.Greater(t, len(lengths), 5)
	require.Greater(t, len(patterns), 50)
}

func TestFaultsInBothForms(t *testing.T) {
	fs := crashfs.New()
	f := create(t, fs, "d/f")
	for _, c := range []struct {
		fault   crashfs.Fault
		n       int
		content string
	}{
		{crashfs.Fault{Err: syscall.EIO}, 0, ""},
		{crashfs.Fault{Err: syscall.EIO, After: true}, 0, "text"},
		{crashfs.Fault{Err: syscall.EIO, Short: true}, 2, "te"},
	} {
		require.NoError(t, f.Truncate(0))
		c.fault.Call = fs.Calls() + 1
		fs.Inject(c.fault)
		n, err := f.WriteAt([]byte("text"), 0)
		require.ErrorIs(t, err, syscall.EIO)
		require.Equal(t, c.n, n)
		require.Equal(t, c.content, content(t, fs, "d/f"))
	}
	fs.Inject(crashfs.Fault{Call: fs.Calls() + 1, Err: syscall.EIO, After: true})
	require.ErrorIs(t, fs.Remove("d/f"), syscall.EIO)
	require.Empty(t, fs.Files())
}

func TestCapacity(t *testing.T) {
	fs := crashfs.New()
	f := create(t, fs, "d/f")
	fs.SetCapacity(6)
	n, err := f.WriteAt([]byte("12345678"), 0)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, 6, n)
	write(t, f, "abc", 2)
	require.Equal(t, "12abc6", content(t, fs, "d/f"))
	_, err = fs.OpenFile("d/g", os.O_RDWR|os.O_CREATE)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, f.Truncate(0))
	write(t, f, "12", 0)
	buf := make([]byte, 4)
	n, err = f.ReadAt(buf, 0)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, 2, n)
}

func TestLock(t *testing.T) {
	fs := crashfs.New()
	lock, err := fs.Lock("LOCK")
	require.NoError(t, err)
	_, err = fs.Lock("LOCK")
	require.ErrorIs(t, err, queue.ErrLocked)
	_, err = fs.Crash(crashfs.Keep, 1).Lock("LOCK")
	require.NoError(t, err, "a lock ends with its process")
	require.NoError(t, lock.Close())
	_, err = fs.Lock("LOCK")
	require.NoError(t, err)
}
