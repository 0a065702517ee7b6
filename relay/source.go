package relay

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/auditrelay/auditrelay/collect"
	"github.com/auditrelay/auditrelay/config"
	"github.com/auditrelay/auditrelay/queue"
)

// The pause between two starts of a collector that ended with an error doubles from the first to the second.
const (
	restartAfterMin = 500 * time.Millisecond
	restartAfterMax = 30 * time.Second
)

// source is one way in: a collector that is started again when it fails, and its intake.
type source struct {
	config config.Collector
	kind   collect.Kind
	intake *intake
	logger *slog.Logger

	mu        sync.Mutex
	collector collect.Collector // the one that runs; guarded by mu
	failure   string            // why none runs; guarded by mu
}

// supervise runs the collector until ctx is done. With once it returns when the collector has put all that is there.
func (s *source) supervise(ctx context.Context, q *queue.Queue, once bool) {
	for wait := restartAfterMin; ; wait = min(2*wait, restartAfterMax) {
		err := s.runCollector(ctx, q, once)
		if ctx.Err() != nil || (once && err == nil) {
			return
		}
		s.logger.Error("collector ended, it will be started again", "error", err, "after", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

func (s *source) runCollector(ctx context.Context, q *queue.Queue, once bool) error {
	c, err := s.kind.New(collect.Env{
		ID: s.config.ID, Product: s.config.Product, Logger: s.logger, Once: once, Positions: positions(q, s.config.ID),
	}, s.config.Settings)
	s.set(c, err)
	if err != nil {
		return err
	}
	err = c.Run(ctx, s.intake.put)
	if err != nil {
		s.set(nil, err)
	}
	return err
}

func (s *source) set(c collect.Collector, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.collector, s.failure = c, ""
	if err != nil {
		s.collector, s.failure = nil, err.Error()
	}
}

// degraded returns the inputs of the source that are not read as they should be, with the reason.
func (s *source) degraded() (list []Input) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != "" {
		return []Input{{Source: s.config.ID, Name: s.config.Type, State: collect.StateDegraded.String(), Reason: s.failure}}
	}
	reporter, ok := s.collector.(collect.Reporter)
	if !ok {
		return nil
	}
	for _, in := range reporter.Inputs() {
		if in.State == collect.StateDegraded {
			list = append(list, Input{Source: s.config.ID, Name: in.Name, State: in.State.String(), Reason: in.Reason})
		}
	}
	return list
}
