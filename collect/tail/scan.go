package tail

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/auditrelay/auditrelay/audit"
)

// scan looks at everything that the patterns match, takes up new files, and notes which ones were rotated away.
func (f *Follower) scan(now time.Time) {
	if f.opt.Once && f.scans > 0 {
		return
	}
	f.scans++
	f.looked = 0
	s := scanned{now: now, occupants: make(map[string]inode, len(f.occupants)), problems: make(map[string]problem)}
	for i := range f.patterns {
		f.scanPattern(&f.patterns[i], &s)
	}
	for path, node := range f.occupants {
		if s.occupants[path] != node {
			f.searchTill = now.Add(siblingHaste)
		}
	}
	f.occupants = s.occupants
	f.markRotated()
	if f.scans == 1 || now.Before(f.searchTill) || len(f.parked) > 0 && !now.Before(f.searchNext) {
		f.search(&s)
		f.searchNext = now.Add(siblingTime)
	}
	f.join(s.fresh)
	f.noteProblems(s.problems)
}

// scanned is what one scan found.
type scanned struct {
	now       time.Time
	occupants map[string]inode // what stands at each matched path
	problems  map[string]problem
	fresh     []*file // opened in this scan
}

func (f *Follower) scanPattern(p *pattern, s *scanned) {
	matches := 0
	fromEnd := f.opt.StartAtEnd && !p.seen
	listed, err := p.expand(func(path string) {
		if excluded(f.opt.Exclude, path) {
			return
		}
		matches++
		f.scanPath(path, p, fromEnd, s)
	})
	f.looked += listed / 8 // reading a name costs less than looking at a file
	switch {
	case err != nil:
		s.problem(p.text, problem{text: explain(err)})
		return
	case matches == 0 && !p.literal:
		s.problem(p.text, problem{text: "no file matches yet", missing: true})
	}
	if fromEnd {
		f.notes = append(f.notes, p.text)
	}
	p.seen = true
}

func (f *Follower) scanPath(path string, p *pattern, fromEnd bool, s *scanned) {
	f.looked++
	st, err := statPath(path)
	if err != nil {
		if p.literal || !errors.Is(err, fs.ErrNotExist) { // else it went away since the directory was listed
			s.problem(path, problem{text: explain(err)})
		}
		return
	}
	if reason := refusal(st.mode); reason != "" {
		if !p.everything || st.mode&syscall.S_IFMT != syscall.S_IFDIR {
			s.problem(path, problem{text: reason})
		}
		return
	}
	s.occupants[path] = st.inode
	if fl := f.files[st.inode]; fl != nil {
		f.look(fl, st, s.now)
		f.seen(fl, path)
		return
	}
	if len(f.files) >= f.opt.MaxFiles {
		text := fmt.Sprintf("%d files are followed already: narrow paths, or use exclude", f.opt.MaxFiles)
		s.problem(path, problem{text: text})
		return
	}
	fl, fresh, err := f.open(path, s.now)
	if err != nil {
		s.problem(path, problem{text: explain(err)})
		return
	}
	if !fresh {
		return
	}
	fl.fromEnd = fromEnd && !fl.hasID && fl.truncations == 0
	s.occupants[path] = fl.node
	s.fresh = append(s.fresh, fl)
}

func (s *scanned) problem(path string, p problem) {
	if len(s.problems) < problemsShown {
		s.problems[path] = p
	}
}

// explain adds to an error what the operator can do about it.
func explain(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return err.Error() + ": let the user that runs this read it"
	case errors.Is(err, syscall.EMFILE):
		return err.Error() + ": raise LimitNOFILE"
	default:
		return err.Error()
	}
}

// seen notes that an open file stands at a matched path. With hard links the first path of a scan counts.
func (f *Follower) seen(fl *file, path string) {
	if fl.scan == f.scans {
		return
	}
	fl.scan = f.scans
	if fl.seenAt != path || fl.rotated {
		f.mu.Lock()
		fl.seenAt, fl.rotated = path, false
		f.mu.Unlock()
	}
}

// markRotated finds the open files that stand at no matched path any more.
func (f *Follower) markRotated() {
	for _, fl := range f.ring {
		if fl.scan != f.scans && !fl.rotated {
			f.mu.Lock()
			fl.rotated = true
			f.mu.Unlock()
			f.log.Debug("file was rotated away", "path", fl.seenAt, "offset", fl.offset, "size", fl.size)
		}
	}
}

// join gives new files their places: in order of birth, each behind the generation before it.
func (f *Follower) join(fresh []*file) {
	if len(fresh) == 0 {
		return
	}
	slices.SortStableFunc(fresh, byAge)
	newest := make(map[string]*file)
	for _, fl := range f.ring {
		newest[fl.family] = fl
	}
	for _, fl := range fresh {
		fl.family = f.familyOf(fl.path)
		if before := newest[fl.family]; before != nil && olderFirst(&before.position, &fl.position) <= 0 {
			fl.after = before
		}
		newest[fl.family] = fl
		if f.lost[fl.family] && !fl.hasID {
			fl.marks |= audit.MarkPossibleLoss
			delete(f.lost, fl.family)
		}
		if f.opt.Once {
			fl.limit = fl.size
		}
		f.log.Info("following file", "path", fl.seenAt, "offset", fl.offset, "size", fl.size)
	}
	f.mu.Lock()
	f.ring = append(f.ring, fresh...)
	f.mu.Unlock()
}

// byAge puts the older file first. Where the times are equal (they count in ticks of a few milliseconds) the name
// decides: app.log.2 is older than app.log.1, and that is older than app.log.
func byAge(a, b *file) int {
	if a.birth != 0 && b.birth != 0 && a.birth != b.birth {
		return cmp.Compare(a.birth, b.birth)
	}
	return cmp.Or(cmp.Compare(a.mtime, b.mtime), cmp.Compare(b.seenAt, a.seenAt))
}

// familyOf returns the path of which the file at path may be an older generation: a path that is matched and whose name
// rotation turns into this one; path itself if there is none.
func (f *Follower) familyOf(path string) string {
	dir, name := filepath.Split(path)
	for _, base := range originals(name) {
		if _, ok := f.occupants[dir+base]; ok {
			return dir + base
		}
	}
	return path
}

func (f *Follower) noteProblems(problems map[string]problem) {
	for path, p := range problems {
		if f.problems[path].text != p.text && !p.missing {
			f.log.Warn("file is not read", "path", path, "reason", p.text)
		}
	}
	if maps.Equal(problems, f.problems) {
		return
	}
	f.mu.Lock()
	f.problems = problems
	f.mu.Unlock()
}

// directories returns where changes are to be expected.
func (f *Follower) directories() []string {
	set := make(map[string]bool)
	for _, p := range f.patterns {
		if dir := filepath.Dir(p.text); !hasMeta(dir) {
			set[dir] = true
		}
	}
	for _, fl := range f.ring {
		if len(set) >= watchesMax {
			break
		}
		set[filepath.Dir(fl.seenAt)] = true
	}
	return slices.Collect(maps.Keys(set))
}
