package tail

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestRefusedPathsDoNotStopOthers(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, "secret\n")
	in := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.Symlink(secret, in("link.log")))
	require.NoError(t, unix.Mkfifo(in("pipe.log"), 0o600))
	require.NoError(t, os.Mkdir(in("dir.log"), 0o700))
	require.NoError(t, os.Mkdir(in("folder.txt"), 0o700))
	write(t, in("notdir"), "")
	write(t, in("packed.log"), "\x1F\x8B\x08\x00packed")
	write(t, in("wide.log"), "\xFF\xFEa\x00\n\x00")
	write(t, in("locked.log"), "locked\n")
	require.NoError(t, os.Chmod(in("locked.log"), 0))
	write(t, in("good.log"), "good\n")
	paths := map[string]string{
		in("link.log"): "symbolic link", in("pipe.log"): "named pipe", in("dir.log"): "directory",
		in("packed.log"): "gzip", in("wide.log"): "UTF-16",
		in("missing.log"): "no such file", in("notdir/x.log"): "not a directory",
		in("gone") + "/*.log": "no such file", "/dev/null": "device",
		in("folder.txt"): "directory", in("nothing*.log"): "no file matches yet",
	}
	list := []string{in("good.log"), in("*.txt")}
	if os.Getuid() != 0 {
		paths[in("locked.log")] = "let the user that runs this read it"
	}
	for path := range paths {
		if filepath.Ext(path) != ".txt" {
			list = append(list, path)
		}
	}
	s := newStore()
	r := start(t, fast(list...), s)
	s.wait(t, "good")
	for path, reason := range paths {
		var file File
		require.Eventually(t, func() bool {
			var ok bool
			file, ok = r.file(path)
			return ok && file.Problem != ""
		}, 10*time.Second, time.Millisecond, path)
		require.Contains(t, file.Problem, reason, path)
		require.Equal(t, reason == "no file matches yet", file.Missing)
	}
	good, _ := r.file(in("good.log"))
	require.Empty(t, good.Problem)

	// What stood in the way goes away.
	require.NoError(t, os.Remove(in("link.log")))
	write(t, in("link.log"), "a file\n")
	s.wait(t, "good", "a file")
	require.NoError(t, os.Remove(in("pipe.log")))
	write(t, in("pipe.log"), "a file, too\n")
	s.wait(t, "good", "a file", "a file, too")

	// A symbolic link takes the place of a file that is followed.
	require.NoError(t, os.Remove(in("good.log")))
	require.NoError(t, os.Symlink(secret, in("good.log")))
	require.Eventually(t, func() bool {
		for _, fl := range r.Files() {
			if fl.Path == in("good.log") && strings.Contains(fl.Problem, "symbolic link") {
				return true
			}
		}
		return false
	}, 10*time.Second, time.Millisecond)
	r.stop(t)
	require.NotContains(t, s.raws(), "secret")
}

func TestDirectoryThatVanishesAndComesBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	require.NoError(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "app.log")
	write(t, path, "one\n")
	s := newStore()
	r := start(t, fast(filepath.Join(dir, "*.log")), s)
	s.wait(t, "one")
	require.NoError(t, os.RemoveAll(dir))
	eventually(t, func() bool { fl, ok := r.file(filepath.Join(dir, "*.log")); return ok && fl.Problem != "" })
	require.NoError(t, os.Mkdir(dir, 0o700))
	write(t, path, "two\n")
	s.wait(t, "one", "two")
	r.stop(t)
}

func TestHugeFileDoesNotStarveOthers(t *testing.T) {
	dir := t.TempDir()
	_, text := numbered(0, 300_000)
	write(t, filepath.Join(dir, "huge.log"), text)
	for i := range 10 {
		write(t, filepath.Join(dir, fmt.Sprintf("small-%c.log", 'a'+i)), "small\n")
	}
	s := newStore()
	once(t, fast(filepath.Join(dir, "*.log")), s)
	require.Equal(t, 300_010, s.count())
	small := 0
	for _, raw := range s.raws()[:60_000] {
		if raw == "small" {
			small++
		}
	}
	require.Equal(t, 10, small, "each file gets its turn in the first round")
}

func TestTooManyFiles(t *testing.T) {
	dir := t.TempDir()
	for i := range 5 {
		write(t, filepath.Join(dir, fmt.Sprintf("%d.log", i)), "x\n")
	}
	opt := fast(filepath.Join(dir, "*.log"))
	opt.MaxFiles = 3
	opt.Exclude = []string{"4.log"}
	s := newStore()
	f := once(t, opt, s)
	require.Equal(t, 3, s.count())
	refused := 0
	for _, fl := range f.Files() {
		if strings.Contains(fl.Problem, "narrow paths") {
			refused++
		}
	}
	require.Equal(t, 1, refused)
}
