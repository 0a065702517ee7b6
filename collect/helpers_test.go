package collect

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

// got is a copy of a record, to be kept after its batch is gone.
type got struct {
	Raw     string
	Product string
	Peer    netip.Addr
	Path    string
	Format  audit.Format
	Part    int
	Marks   audit.Marks
}

// store stands for the relay.
type store struct {
	mu      sync.Mutex
	records []got
	batches int
	gate    func(ctx context.Context, batch int) error // called before a batch is stored; its error is what put returns
}

func (s *store) put(ctx context.Context, b *audit.Records) (audit.Number, error) {
	s.mu.Lock()
	s.batches++
	batch, gate := s.batches, s.gate
	s.mu.Unlock()
	if gate != nil {
		if err := gate(ctx, batch); err != nil {
			return 0, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range b.List {
		r := &b.List[i]
		s.records = append(s.records, got{
			string(r.Raw), r.Product, r.Peer, r.Origin.Path, r.Origin.Format, r.Part, r.Marks,
		})
	}
	return audit.Number(len(s.records)), nil
}

func (s *store) all() []got {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]got(nil), s.records...)
}

func (s *store) raws() (list []string) {
	for _, r := range s.all() {
		list = append(list, r.Raw)
	}
	return list
}

func (s *store) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.records)
}

func (s *store) wait(t *testing.T, want ...string) {
	t.Helper()
	require.Eventually(t, func() bool { return s.count() >= len(want) }, 10*time.Second, time.Millisecond, "records")
	require.Equal(t, want, s.raws())
}

// run starts a collector and returns what ends it and waits for it.
func run(t *testing.T, c Collector, put PutFunc) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, put) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			require.NoError(t, err)
		case <-time.After(10 * time.Second):
			require.Fail(t, "Run does not return")
		}
	}
	t.Cleanup(stop)
	return stop
}

func eventually(t *testing.T, condition func() bool, what string) {
	t.Helper()
	require.Eventually(t, condition, 10*time.Second, time.Millisecond, what)
}
