package tail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

// got is a copy of a record, to be kept after its batch is gone.
type got struct {
	Raw    string
	Key    string
	Path   string
	Header string
	Comma  byte
	Format audit.Format
	Offset int64
	Row    int64
	Part   int
	Marks  audit.Marks
}

// store stands for the relay: what was put is durable with its positions, all or none.
type store struct {
	mu        sync.Mutex
	records   []got
	positions map[string][]byte
	batches   int

	// before and after are called around the storing; an error is what put returns.
	before, after func(batch int) error
}

var errKilled = errors.New("killed")

func newStore() *store { return &store{positions: make(map[string][]byte)} }

func (s *store) put(_ context.Context, b *audit.Records) (audit.Number, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches++
	if s.before != nil {
		if err := s.before(s.batches); err != nil {
			return 0, err
		}
	}
	for i := range b.List {
		r := &b.List[i]
		s.records = append(s.records, got{
			Raw: string(r.Raw), Key: string(r.Key),
			Path: r.Origin.Path, Header: string(r.Origin.Header), Comma: r.Origin.Comma, Format: r.Origin.Format,
			Offset: r.Offset, Row: r.Row, Part: r.Part, Marks: r.Marks,
		})
	}
	for _, p := range b.Positions {
		if len(p.Value) == 0 {
			delete(s.positions, string(p.Key))
		} else {
			s.positions[string(p.Key)] = bytes.Clone(p.Value)
		}
	}
	if s.after != nil {
		return 0, s.after(s.batches)
	}
	return audit.Number(len(s.records)), nil
}

func (s *store) list() []audit.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []audit.Position
	for key, value := range s.positions {
		list = append(list, audit.Position{Key: []byte(key), Value: value})
	}
	return list
}

func (s *store) raws() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]string, len(s.records))
	for i, r := range s.records {
		list[i] = r.Raw
	}
	return list
}

func (s *store) all() []got {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]got(nil), s.records...)
}

func (s *store) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.records)
}

// fast are options under which nothing waits longer than a test wants to.
func fast(paths ...string) Options {
	return Options{
		Source: "test", Paths: paths,
		PollInterval: 2 * time.Millisecond, PartialAfter: time.Hour, CloseAfter: time.Hour,
	}
}

// running is a follower in its goroutine.
type running struct {
	*Follower
	cancel context.CancelFunc
	ended  chan error
}

func start(t *testing.T, opt Options, s *store) *running {
	t.Helper()
	opt.Positions = s.list()
	f, err := New(opt)
	require.NoError(t, err)
	return startFollower(t, f, s)
}

func startFollower(t *testing.T, f *Follower, s *store) *running {
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Follower: f, cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- f.Run(ctx, s.put) }()
	t.Cleanup(func() { cancel() })
	return r
}

// stop ends the follower and waits for it.
func (r *running) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	select {
	case err := <-r.ended:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		require.Fail(t, "Run does not return")
	}
}

// once reads everything that is there.
func once(t *testing.T, opt Options, s *store) *Follower {
	t.Helper()
	opt.Once = true
	opt.Positions = s.list()
	f, err := New(opt)
	require.NoError(t, err)
	runOnce(t, f, s)
	return f
}

func runOnce(t *testing.T, f *Follower, s *store) {
	t.Helper()
	f.opt.Once = true
	r := &running{Follower: f, cancel: func() {}, ended: make(chan error, 1)}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() { r.ended <- f.Run(ctx, s.put) }()
	require.NoError(t, <-r.ended)
	require.NoError(t, ctx.Err(), "a single run must end by itself")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	require.NoError(t, err)
	_, err = file.WriteString(text)
	require.NoError(t, err)
	require.NoError(t, file.Close())
}

// old gives a file a modification time long ago, so that what it holds has waited long enough.
func old(t *testing.T, path string) {
	t.Helper()
	then := time.Now().Add(-48 * time.Hour)
	require.NoError(t, os.Chtimes(path, then, then))
}

func (s *store) wait(t *testing.T, want ...string) {
	t.Helper()
	require.Eventually(t, func() bool { return s.count() >= len(want) }, 10*time.Second, time.Millisecond, "records")
	require.Equal(t, want, s.raws())
}

func (r *running) file(path string) (File, bool) {
	for _, fl := range r.Files() {
		if fl.Path == path {
			return fl, true
		}
	}
	return File{}, false
}

func numbered(from, to int) (lines []string, text string) {
	var b bytes.Buffer
	for i := from; i < to; i++ {
		line := fmt.Sprintf("line %08d", i)
		lines = append(lines, line)
		b.WriteString(line + "\n")
	}
	return lines, b.String()
}

func eventually(t *testing.T, condition func() bool, what ...any) {
	t.Helper()
	require.Eventually(t, condition, 10*time.Second, time.Millisecond, what...)
}

func logPath(t *testing.T) string { return filepath.Join(t.TempDir(), "app.log") }
