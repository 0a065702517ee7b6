// Package relay wires the parts together: it builds collectors, normalizer, queue and forwarders from a configuration,
// owns every goroutine, and stops them in order. It keeps the balance sheet. It understands no formats and no protocols.
package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/collect"
	"github.com/auditrelay/auditrelay/config"
	"github.com/auditrelay/auditrelay/forward"
	"github.com/auditrelay/auditrelay/normalize"
	"github.com/auditrelay/auditrelay/queue"
)

// Options is what a relay needs besides its configuration.
type Options struct {
	Logger *slog.Logger
	Stdout io.Writer          // what a file destination with path "-" writes to
	Notify func(state string) // tells the service manager (READY=1 …); nil = nobody is told
	// Version is the program's, for the status.
	Version string
}

// Relay is one daemon: the sources and destinations of one configuration around one queue.
type Relay struct {
	config     *config.Config
	opt        Options
	normalizer *normalize.Normalizer
	catalogs   *normalize.Catalogs

	sources      []*source
	destinations []*destination
	queue        *queue.Queue  // from open on
	committed    chan struct{} // capacity 1; told after each commit of a destination
	started      time.Time     // from open on
	own          *ownEvents
}

// Kinds returns the kinds of collectors and destinations that a configuration may use.
func Kinds() config.Kinds {
	var k config.Kinds
	for _, c := range collect.Kinds() {
		k.Collect = append(k.Collect, config.Kind{Name: c.Name, Doc: c.Doc, Settings: c.Settings})
	}
	for _, f := range forward.Kinds() {
		k.Forward = append(k.Forward, config.Kind{Name: f.Name, Doc: f.Doc, Settings: f.Settings})
	}
	return k
}

// New checks everything that can be checked without touching the data directory, a listener or a destination. It starts
// nothing.
func New(cfg *config.Config, opt Options) (*Relay, error) {
	catalogs, err := normalize.LoadCatalogs(cfg.Normalize.Catalogs...)
	if err != nil {
		return nil, fmt.Errorf("load catalogs: %w", err)
	}
	r := &Relay{config: cfg, opt: opt, catalogs: catalogs, committed: make(chan struct{}, 1)}
	if err := crossCheck(cfg, catalogs); err != nil {
		return nil, err
	}
	if r.normalizer, err = newNormalizer(cfg, catalogs); err != nil {
		return nil, err
	}
	r.own = newOwnEvents(opt.Logger, r.wake)
	for _, c := range cfg.Collect {
		kind, err := collectKind(c.Type)
		if err != nil {
			return nil, err
		}
		r.sources = append(r.sources, &source{
			config: c, kind: kind, logger: opt.Logger.With("collect", c.ID),
			intake: &intake{source: c.ID, normalizer: r.normalizer},
		})
	}
	return r, nil
}

func newNormalizer(cfg *config.Config, catalogs *normalize.Catalogs) (*normalize.Normalizer, error) {
	sources := make(map[string]normalize.Source, len(cfg.Collect))
	for _, c := range cfg.Collect {
		sources[c.ID] = normalize.Source{Product: c.Product, Location: c.Timezone.Location()}
	}
	return normalize.New(normalize.Options{Catalogs: catalogs, Sources: sources})
}

func collectKind(name string) (collect.Kind, error) {
	for _, k := range collect.Kinds() {
		if k.Name == name {
			return k, nil
		}
	}
	return collect.Kind{}, fmt.Errorf("no collector of type %q", name)
}

func forwardKind(name string) (forward.Kind, error) {
	for _, k := range forward.Kinds() {
		if k.Name == name {
			return k, nil
		}
	}
	return forward.Kind{}, fmt.Errorf("no destination of type %q", name)
}

// open opens the queue and what hangs on it. On an error everything is closed again.
func (r *Relay) open() (err error) {
	r.started = time.Now()
	opt := r.queueOptions()
	opt.Damaged = r.own.damaged
	if r.queue, err = queue.Open(r.queueDir(), opt); err != nil {
		return fmt.Errorf("open the queue in data_dir: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	r.own.queue = r.queue
	if err = r.own.intake.open(r.queue); err != nil {
		return err
	}
	for _, s := range r.sources {
		if err = s.intake.open(r.queue); err != nil {
			return err
		}
	}
	r.openShedding()
	for _, cfg := range r.config.Forward {
		d, err := r.openDestination(cfg)
		if err != nil {
			return fmt.Errorf("destination %s: %w", cfg.ID, err)
		}
		r.destinations = append(r.destinations, d)
	}
	return nil
}

// reserveBytes is what the queue keeps back for a full disk: room for the head of a segment with the positions of some
// hundred files.
const reserveBytes = 64 << 10

// queueOptions are those of the configuration.
func (r *Relay) queueOptions() queue.Options {
	return queue.Options{
		MaxBytes:      int64(r.config.Queue.MaxSize),
		KeepDelivered: time.Duration(r.config.Queue.KeepDelivered),
		ReserveBytes:  reserveBytes,
		Logger:        r.opt.Logger.With("part", "queue"),
	}
}

// close closes sinks, cursors and the queue, in this order. The parts must have stopped.
func (r *Relay) close() error {
	var errs []error
	for _, d := range r.destinations {
		cur, _ := d.parts()
		errs = append(errs, d.sink.Close(), cur.reader.Close())
	}
	r.destinations = nil
	return errors.Join(append(errs, r.queue.Close())...)
}

// encoderOptions are what all encoders of this relay share.
func (r *Relay) encoderOptions(log audit.LogID) normalize.EncoderOptions {
	return normalize.EncoderOptions{
		Names: func(product string) normalize.ProductNames {
			if product == ownProduct {
				return normalize.ProductNames{Vendor: "auditrelay", Name: "auditrelay", Version: r.opt.Version}
			}
			names, _ := r.catalogs.Product(product)
			return names
		},
		RelayID: r.config.Relay.ID,
		Log:     log,
	}
}

// newSink makes a destination's sink with its encoder. It opens and connects nothing.
func (r *Relay) newSink(cfg config.Destination, log audit.LogID) (forward.Sink, normalize.Encoder, error) {
	kind, err := forwardKind(cfg.Type)
	if err != nil {
		return nil, nil, err
	}
	encoder, err := normalize.NewEncoder(cfg.Format, r.encoderOptions(log))
	if err != nil {
		return nil, nil, err
	}
	sink, err := kind.New(forward.Env{
		ID: cfg.ID, Encoder: encoder, Logger: r.opt.Logger.With("destination", cfg.ID), Host: r.config.Relay.ID, Stdout: r.opt.Stdout,
	}, cfg.Settings)
	return sink, encoder, err
}

// Check makes every collector and sink of the configuration without starting any, and returns what they refuse.
func (r *Relay) Check() error {
	var errs []error
	for _, s := range r.sources {
		if _, err := s.kind.New(collect.Env{ID: s.config.ID, Product: s.config.Product, Logger: s.logger}, s.config.Settings); err != nil {
			errs = append(errs, fmt.Errorf("collect.%s: %w", s.config.ID, err))
		}
	}
	for _, cfg := range r.config.Forward {
		sink, _, err := r.newSink(cfg, 0)
		if err != nil {
			errs = append(errs, fmt.Errorf("forward.%s: %w", cfg.ID, err))
			continue
		}
		errs = append(errs, sink.Close())
	}
	return errors.Join(errs...)
}

// wake lets awaitDelivery look again.
func (r *Relay) wake() {
	select {
	case r.committed <- struct{}{}:
	default:
	}
}

// Run works until ctx is done, then stops intake, finishes what is in flight and closes the queue. It does not wait for
// the backlog. It returns an error only if the data directory could not be opened or closed, or if the control socket
// of the configuration could not be made.
func (r *Relay) Run(ctx context.Context) error {
	if err := r.open(); err != nil {
		return err
	}
	control, err := r.openAdmin(ctx)
	if err != nil {
		return errors.Join(err, r.close())
	}
	own, stopOwn := r.startOwn(ctx)
	forwarders, stopForwarders := r.startForwarders(ctx)
	watching, stopWatching := r.startWatching(ctx, control)
	var collectors sync.WaitGroup
	for _, s := range r.sources {
		collectors.Go(func() { s.supervise(ctx, r.queue, false) })
	}
	r.notify("READY=1")
	r.opt.Logger.Info("running", "sources", len(r.sources), "destinations", len(r.destinations), "log", audit.LogID(r.queue.LogID()).String())
	<-ctx.Done()
	r.notify("STOPPING=1")
	r.opt.Logger.Info("stopping: intake first, then what is in flight")
	collectors.Wait()
	stopWatching()
	watching.Wait()
	stopForwarders()
	forwarders.Wait()
	stopOwn()
	own.Wait()
	r.logSheet()
	return r.close()
}

// startOwn writes the relay's own events until the returned function is called: after all else, because the parts find
// the damage.
func (r *Relay) startOwn(ctx context.Context) (*sync.WaitGroup, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { r.own.run(ctx) })
	return &running, cancel
}

// startWatching answers commands, if there is a control socket, and watches the health until the returned function is
// called: both use the queue, which is closed after them.
func (r *Relay) startWatching(ctx context.Context, control *admin) (*sync.WaitGroup, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { r.watch(ctx) })
	if control != nil {
		running.Go(func() { control.run(ctx) })
	}
	return &running, cancel
}

// ErrUndelivered says that run --once could not deliver everything in time.
var ErrUndelivered = errors.New("not everything was delivered in time")

// ErrRemainder says that an equation of the balance sheet does not close.
var ErrRemainder = errors.New("the balance sheet does not close")

// RunOnce collects what is there from all sources that are not listeners, delivers all of it, and returns the balance
// sheet, with ErrUndelivered if timeout passed first and ErrRemainder if an equation does not close.
func (r *Relay) RunOnce(ctx context.Context, timeout time.Duration) (*Sheet, error) {
	if err := r.open(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	own, stopOwn := r.startOwn(ctx)
	forwarders, stopForwarders := r.startForwarders(ctx)
	var collectors sync.WaitGroup
	for _, s := range r.sources {
		collectors.Go(func() { s.supervise(ctx, r.queue, true) })
	}
	collectors.Wait()
	r.own.nameShed(ctx)
	r.awaitDelivery(ctx)
	stopForwarders()
	forwarders.Wait()
	stopOwn()
	own.Wait()
	sheet := r.Sheet()
	err := r.close()
	switch {
	case err != nil:
		return sheet, err
	case !sheet.Closes():
		return sheet, ErrRemainder
	case sheet.Undelivered() > 0 || ctx.Err() != nil:
		return sheet, ErrUndelivered
	}
	return sheet, nil
}

// startForwarders runs every forwarder until the returned function is called: they must outlive the collectors.
func (r *Relay) startForwarders(ctx context.Context) (*sync.WaitGroup, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	for _, d := range r.destinations {
		running.Go(func() { r.deliver(ctx, d) })
	}
	return &running, cancel
}

// awaitDelivery waits until every destination has all that is stored, or ctx is done.
func (r *Relay) awaitDelivery(ctx context.Context) {
	for {
		// All that is delivered was read, so damage up to there was found. If nothing of that waits to be written, the
		// second look has the events that name it.
		if r.Sheet().Undelivered() == 0 && r.own.unwritten.Load() == 0 && r.Sheet().Undelivered() == 0 {
			return
		}
		select {
		case <-r.committed:
		case <-ctx.Done():
			return
		}
	}
}

// Sheet returns the balance sheet as it stands. The relay must be running.
func (r *Relay) Sheet() *Sheet {
	sheet := &Sheet{Log: audit.LogID(r.queue.LogID()).String()}
	for _, s := range r.sources {
		sheet.Sources = append(sheet.Sources, NamedSource{s.config.ID, s.intake.Sheet()})
		sheet.Degraded = append(sheet.Degraded, s.degraded()...)
		sheet.Notices = append(sheet.Notices, s.notices()...)
	}
	if own := r.own.intake.Sheet(); own.Accepted > 0 {
		sheet.Sources = append(sheet.Sources, NamedSource{config.OwnSource, own})
	}
	for _, d := range r.destinations {
		sheet.Destinations = append(sheet.Destinations, NamedDestination{d.config.ID, d.sheet(r.queue)})
		sheet.Notices = append(sheet.Notices, d.notices()...)
	}
	return sheet
}

func (r *Relay) logSheet() {
	sheet := r.Sheet()
	for _, s := range sheet.Sources {
		r.opt.Logger.Info("balance", "collect", s.ID, "accepted", s.Accepted, "stored", s.Stored, "filtered", s.Filtered, "shed", s.Shed, "remainder", s.Remainder())
	}
	for _, d := range sheet.Destinations {
		r.opt.Logger.Info("balance", "forward", d.ID, "stored", d.Stored, "delivered", d.Delivered, "dead_lettered", d.DeadLettered, "damaged", d.Damaged, "queued", d.Queued, "remainder", d.Remainder())
	}
	for _, n := range sheet.Notices {
		r.opt.Logger.Warn("notice", "collect", n.Source, "forward", n.Destination, "input", n.Name, "what", n.What, "count", n.Count)
	}
	if !sheet.Closes() {
		r.opt.Logger.Error("the balance sheet does not close: events were lost or doubled", "error", ErrRemainder)
	}
}

func (r *Relay) notify(state string) {
	if r.opt.Notify != nil {
		r.opt.Notify(state)
	}
}

// positionKey is the queue mark that holds a collector's position: "p/", the source's id, "/", the collector's own key.
func positionKey(source string, key []byte) []byte {
	return append([]byte("p/"+source+"/"), key...)
}

// sheetKey is the queue mark that holds a source's line of the balance sheet.
func sheetKey(source string) []byte { return []byte("s/" + source) }

// positions returns what a source had stored of its positions.
func positions(q *queue.Queue, source string) (list []audit.Position) {
	prefix := positionKey(source, nil)
	for key, value := range q.Marks() {
		if own, ok := bytes.CutPrefix(key, prefix); ok {
			list = append(list, audit.Position{Key: bytes.Clone(own), Value: bytes.Clone(value)})
		}
	}
	return list
}
