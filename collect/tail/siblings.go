package tail

import (
	"path/filepath"
	"slices"
	"time"
)

// park keeps the position of a file that is not open.
func (f *Follower) park(p *parked) { f.parked[p.node.ino] = append(f.parked[p.node.ino], p) }

func (f *Follower) unpark(p *parked) {
	list := slices.DeleteFunc(f.parked[p.node.ino], func(q *parked) bool { return q == p })
	if len(list) == 0 {
		delete(f.parked, p.node.ino)
	} else {
		f.parked[p.node.ino] = list
	}
}

// open opens the file at path and finds its position. fresh is false if the file is open already under another path.
func (f *Follower) open(path string, now time.Time) (fl *file, fresh bool, err error) {
	fd, st, err := openFile(path)
	if err != nil {
		return nil, false, err
	}
	if fl := f.files[st.inode]; fl != nil {
		closeFile(fd)
		f.seen(fl, path)
		return fl, false, nil
	}
	fl = newFile(fd, st, f.birthOf(fd), path, now)
	if err := f.identify(fl); err != nil {
		closeFile(fd)
		return nil, false, err
	}
	fl.scan = f.scans
	f.files[fl.node] = fl
	return fl, true, nil
}

// identify finds the position of a file that was just opened, if there is one.
func (f *Follower) identify(fl *file) error {
	for _, p := range slices.Clone(f.parked[fl.node.ino]) {
		otherBirth := p.birth != 0 && fl.birth != 0 && p.birth != fl.birth
		if !otherBirth {
			same, err := f.isStill(fl, &p.position)
			if err != nil {
				return err
			}
			if same {
				f.unpark(p)
				fl.resume(&p.position)
				return nil
			}
		}
		if p.node != fl.node {
			continue // on another device; device numbers may change with a reboot, so only a full match counts
		}
		if otherBirth {
			f.supplant(p)
			continue
		}
		f.unpark(p)
		if fl.birth == 0 {
			// Nobody can tell whether it was truncated or is another file. If it is, what was rotated away since is
			// younger than the one that is gone.
			f.haunt(&parked{position: p.position, lastPath: p.lastPath})
		}
		path := fl.path
		fl.resume(&p.position)
		f.truncated(fl, "it is not what it was when it was read last")
		fl.path = path
	}
	return nil
}

// supplant notes that the inode number of a position belongs to another file now: the one that was read is gone.
func (f *Follower) supplant(p *parked) {
	f.unpark(p)
	f.removals = append(f.removals, p.id)
	f.haunt(p)
}

// haunt keeps what is known of a file that is gone, because what was rotated away since is younger than it. Of several
// at one path the oldest is kept.
func (f *Follower) haunt(p *parked) {
	p.node = inode{}
	if g := f.ghosts[p.path]; g == nil || olderFirst(&p.position, &g.position) < 0 {
		f.ghosts[p.path] = p
	}
}

// isStill reports whether the file begins as the position says and has what was read of it.
func (f *Follower) isStill(fl *file, p *position) (bool, error) {
	if fl.size < p.offset || fl.size < int64(p.head.n) {
		return false, nil
	}
	start := f.scratch[:p.head.n]
	n, err := readAt(fl.fd, start, 0)
	if err != nil || !p.head.matches(start[:n]) {
		return false, err
	}
	before := f.scratch[headBytes : headBytes+p.tail.n]
	n, err = readAt(fl.fd, before, p.offset-int64(len(before)))
	if err != nil {
		return false, err
	}
	return p.tail.n == 0 || p.tail.matches(before[:n]), nil
}

// search looks in the directories of known files for what no pattern matches and is ours all the same: files that were
// renamed and grew, and generations that came and went between two scans.
func (f *Follower) search(s *scanned) {
	known := f.generations(s.fresh)
	alive := make(map[*parked]bool)
	for _, node := range s.occupants {
		f.markAlive(alive, node, "")
	}
	listed := make(map[string]bool)
	for path := range known {
		dir := filepath.Dir(path)
		if _, done := listed[dir]; done {
			continue
		}
		_, err := match(dir, "*", func(path string) { f.searchPath(path, s, known, alive) })
		listed[dir] = err == nil
	}
	if f.scans == 1 {
		for _, p := range f.ghosts {
			f.noteGone(p, known)
		}
	}
	for _, list := range f.parked {
		for _, p := range slices.Clone(list) {
			if f.scans == 1 && !alive[p] && listed[filepath.Dir(p.path)] {
				f.noteGone(p, known)
			}
			f.forgetGone(p, alive[p] || !listed[filepath.Dir(p.path)], s.now)
		}
	}
}

// generations returns the positions that are known of each path, those of the files in fresh with them.
func (f *Follower) generations(fresh []*file) map[string][]*position {
	known := make(map[string][]*position)
	for _, files := range [][]*file{f.ring, fresh} {
		for _, fl := range files {
			path := f.familyOf(fl.path)
			known[path] = append(known[path], &fl.position)
		}
	}
	for _, list := range f.parked {
		for _, p := range list {
			path := f.familyOf(p.path)
			known[path] = append(known[path], &p.position)
		}
	}
	for path, p := range f.ghosts {
		known[path] = append(known[path], &p.position)
	}
	return known
}

func (f *Follower) searchPath(path string, s *scanned, known map[string][]*position, alive map[*parked]bool) {
	f.looked++
	if _, matched := s.occupants[path]; matched {
		return
	}
	st, err := statPath(path)
	if err != nil || refusal(st.mode) != "" {
		return
	}
	if fl := f.files[st.inode]; fl != nil {
		if fl.rotated && fl.seenAt != path {
			f.mu.Lock()
			fl.seenAt = path
			f.mu.Unlock()
		}
		return
	}
	if len(f.files) >= f.opt.MaxFiles || excluded(f.opt.Exclude, path) {
		f.markAlive(alive, st.inode, path)
		return
	}
	p, err := f.recognize(path, st, s.now)
	if err != nil {
		f.markAlive(alive, st.inode, path) // the next search tells more
		return
	}
	if p != nil {
		alive[p], p.lastPath = true, path
		if st.size != p.offset {
			f.reopen(path, p, s)
		}
		return
	}
	f.takeMissed(path, st, s, known)
}

// recognize returns the position of the file at path, nil if it has none. An inode number alone proves nothing, the
// file system uses it again: the birth times must be the same, or, where there are none, the content. An error says
// that the file could not be looked at.
func (f *Follower) recognize(path string, st status, now time.Time) (*parked, error) {
	for _, p := range slices.Clone(f.parked[st.ino]) {
		if p.node != st.inode {
			continue
		}
		if p.recognized == st {
			return p, nil
		}
		same, err := f.isFileOf(path, p, now)
		if err != nil {
			return nil, err
		}
		if same {
			p.recognized = st
			return p, nil
		}
		f.supplant(p)
	}
	return nil, nil
}

// isFileOf reports whether the file at path is the one of a position that has its inode number.
func (f *Follower) isFileOf(path string, p *parked, now time.Time) (bool, error) {
	fd, st, err := openFile(path)
	if err != nil {
		return false, err
	}
	defer closeFile(fd)
	fl := newFile(fd, st, f.birthOf(fd), path, now)
	if p.birth != 0 && fl.birth != 0 {
		return p.birth == fl.birth, nil
	}
	return f.isStill(fl, &p.position)
}

// markAlive notes that the file of a position seems to be there, and where if path is not empty.
func (f *Follower) markAlive(alive map[*parked]bool, node inode, path string) {
	for _, p := range f.parked[node.ino] {
		if p.node == node {
			alive[p] = true
			if path != "" {
				p.lastPath = path
			}
		}
	}
}

// reopen takes up a rotated file that has more than was read of it. One that changed otherwise is nobody's log any
// more.
func (f *Follower) reopen(path string, p *parked, s *scanned) {
	fd, st, err := openFile(path)
	if err != nil {
		return // it went away again, or the next search tells more
	}
	fl := newFile(fd, st, f.birthOf(fd), path, s.now)
	same, err := f.isStill(fl, &p.position)
	if err != nil || !same || st.inode != p.node {
		closeFile(fd)
		return
	}
	f.unpark(p)
	fl.resume(&p.position)
	f.addRotated(fl, s)
}

// takeMissed takes up a generation that came and went between two scans: a file nobody knows whose name is a rotated
// one of a path that we follow, and that was born after the oldest generation that we know of that path. As long as
// that one still stands at the path itself nothing was rotated, and the file is a copy.
func (f *Follower) takeMissed(path string, st status, s *scanned, known map[string][]*position) {
	dir, name := filepath.Split(path)
	for _, base := range originals(name) {
		original := dir + base
		generations := known[original]
		if len(generations) == 0 {
			continue
		}
		oldest := slices.MinFunc(generations, olderFirst)
		if s.occupants[original] == oldest.node {
			return
		}
		fd, st, err := openFile(path)
		if err != nil {
			return
		}
		fl := newFile(fd, st, f.birthOf(fd), original, s.now)
		if olderFirst(oldest, &fl.position) > 0 || f.isCopy(fl, generations) {
			closeFile(fd)
			return
		}
		fl.seenAt = path
		f.addRotated(fl, s)
		return
	}
}

func olderFirst(a, b *position) int {
	if a.birth != 0 && b.birth != 0 {
		return int(min(1, max(-1, a.birth-b.birth)))
	}
	return int(min(1, max(-1, a.mtime-b.mtime)))
}

// isCopy reports whether the file holds what was read from another generation.
func (f *Follower) isCopy(fl *file, generations []*position) bool {
	for _, p := range generations {
		if p.head.n > 0 {
			if same, err := f.isStill(fl, p); same || err != nil {
				return true
			}
		}
	}
	return false
}

func (f *Follower) addRotated(fl *file, s *scanned) {
	fl.rotated = true
	fl.scan = f.scans
	f.files[fl.node] = fl
	s.fresh = append(s.fresh, fl)
}

// noteGone says at the start that a file which was read is not there any more: it was deleted or compressed while
// nobody followed it, and what was written to it meanwhile is lost. If a younger generation was being read already this
// one was read to its end; else the first record of the next generation tells of it.
func (f *Follower) noteGone(p *parked, known map[string][]*position) {
	family := f.familyOf(p.path)
	for _, q := range known[family] {
		if q != &p.position && q.id != (fileID{}) && q.id != p.id && olderFirst(&p.position, q) < 0 {
			f.log.Debug("a file that was read to its end is gone", "path", p.lastPath, "offset", p.offset)
			return
		}
	}
	f.log.Warn("a file that was being read is gone: what was written to it behind the offset, if anything, is lost; "+
		"let rotation delay compression", "path", p.lastPath, "offset", p.offset)
	f.lost[family] = true
}

// forgetGone removes the position of a file that is gone for long enough.
func (f *Follower) forgetGone(p *parked, there bool, now time.Time) {
	switch {
	case there:
		p.goneSince = time.Time{}
	case p.goneSince.IsZero():
		p.goneSince = now
	case now.Sub(p.goneSince) >= forgetAfter:
		f.unpark(p)
		f.removals = append(f.removals, p.id)
		f.log.Info("forgetting a file that is gone", "path", p.lastPath, "offset", p.offset)
	}
}
