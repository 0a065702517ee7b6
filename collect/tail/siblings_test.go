package tail

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

// readWith reads what is there with the positions of the store.
func readWith(t *testing.T, path string, s *store, births bool) {
	t.Helper()
	opt := fast(path)
	opt.Positions = s.list()
	f, err := New(opt)
	require.NoError(t, err)
	if !births {
		f.birthOf = func(int) int64 { return 0 }
	}
	runOnce(t, f, s)
}

func inodeOf(t *testing.T, path string) inode {
	t.Helper()
	st, err := statPath(path)
	require.NoError(t, err)
	return st.inode
}

// A generation that was made and rotated away while we were down, with the inode number of one that we had read, is
// read.
func TestGenerationWithAUsedAgainInodeIsReadAfterARestart(t *testing.T) {
	for name, births := range map[string]bool{"with birth times": true, "without birth times": false} {
		t.Run(name, func(t *testing.T) {
			path := logPath(t)
			s := newStore()
			write(t, path, "A1\nA2\n")
			a := inodeOf(t, path)
			readWith(t, path, s, births)
			require.NoError(t, os.Rename(path, path+".1"))
			write(t, path, "B1\nB2\n")
			require.NoError(t, os.Rename(path, path+".2"))
			require.NoError(t, os.Remove(path+".1"))
			born := birthAt(t, path+".2")
			eventually(t, func() bool { // the clock of the birth times ticks a few hundred times a second
				require.NoError(t, os.RemoveAll(path))
				write(t, path, "C1\nC2\nC3\n")
				return born == 0 || birthAt(t, path) > born
			})
			if inodeOf(t, path) != a {
				t.Skip("this file system does not use the inode number again at once")
			}
			require.NoError(t, os.Rename(path, path+".1"))
			write(t, path, "D1\n")
			readWith(t, path, s, births)
			require.Equal(t, []string{"A1", "A2", "B1", "B2", "C1", "C2", "C3", "D1"}, s.raws())
			readWith(t, path, s, births)
			require.Equal(t, 8, s.count(), "nothing is read twice after another restart")
		})
	}
}

func birthAt(t *testing.T, path string) int64 {
	t.Helper()
	fd, _, err := openFile(path)
	require.NoError(t, err)
	defer closeFile(fd)
	return birthOf(fd)
}

// What the test above does, for file systems that do not use inode numbers again: the stored number is exchanged.
func TestInodeNumberOfARotatedFileIsUsedAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		births bool
		one    string
	}{
		{"other birth time", true, "two\nlines\n"},
		{"other birth time, same size", true, "six\n"},
		{"no birth times", false, "two\nlines\n"},
		{"no birth times, same size", false, "six\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := logPath(t)
			s := newStore()
			write(t, path, "one\n")
			readWith(t, path, s, c.births)
			write(t, path+".1", c.one)
			require.NoError(t, os.Remove(path))
			write(t, path, "new\n")
			exchangeInode(t, s, inodeOf(t, path+".1"))
			readWith(t, path, s, c.births)
			joined := ""
			for _, raw := range s.raws() {
				joined += raw + "\n"
			}
			require.Equal(t, "one\n"+c.one+"new\n", joined)
			require.Len(t, s.list(), 2, "the position of what is gone is removed")
		})
	}
}

// Without birth times a file that has the inode number of the one at the path may be another one, with generations in
// between.
func TestInodeNumberAtThePathIsUsedAgainWithoutBirthTimes(t *testing.T) {
	path := logPath(t)
	s := newStore()
	write(t, path, "one\n")
	readWith(t, path, s, false)
	write(t, path+".1", "two\n")
	require.NoError(t, os.Remove(path))
	write(t, path, "three\n")
	exchangeInode(t, s, inodeOf(t, path))
	readWith(t, path, s, false)
	require.ElementsMatch(t, []string{"one", "two", "three"}, s.raws())
}

// exchangeInode makes the only stored position one of a file with another inode number.
func exchangeInode(t *testing.T, s *store, node inode) {
	t.Helper()
	require.Len(t, s.positions, 1)
	for key, value := range s.positions {
		p, err := decodePosition([]byte(key), value)
		require.NoError(t, err)
		p.node = node
		if p.birth != 0 {
			p.birth-- // the files of a test may be born within one tick of the clock
		}
		s.positions[key] = p.append(nil)
	}
}

func TestRotatedFileWithItsOwnInodeIsNotReadAgain(t *testing.T) {
	for _, births := range []bool{true, false} {
		path := logPath(t)
		s := newStore()
		write(t, path, "one\n")
		readWith(t, path, s, births)
		require.NoError(t, os.Rename(path, path+".1"))
		appendTo(t, path+".1", "two\n")
		write(t, path, "three\n")
		readWith(t, path, s, births)
		require.Equal(t, []string{"one", "two", "three"}, s.raws())
		require.Equal(t, audit.Marks(0), s.all()[1].Marks)
		readWith(t, path, s, births)
		require.Equal(t, 3, s.count())
	}
}
