// Package normalize turns records into events and events into the formats that other systems read. What it knows about
// a product (which of its fields means what, which events it has and what they mean) is data: the catalogues. It never
// fails and never loses a record: what cannot be understood comes out as an event of class unreadable, with its bytes.
//
// It collects nothing, stores nothing and sends nothing.
package normalize

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/auditrelay/auditrelay/audit"
)

// Source is what the configuration says about one collector's records.
type Source struct {
	Product  string         // catalogue to use for records that do not name one; empty = find out for each record
	Location *time.Location // zone of times that have none; nil = Options.Local
}

// Options are the settings of a Normalizer.
type Options struct {
	Catalogs *Catalogs         // nil = the built-in ones
	Sources  map[string]Source // by collector id, which is Records.Source
	Salt     func(p []byte)    // fills p with random bytes; must be safe for concurrent use; nil = crypto/rand
	Local    *time.Location    // nil = time.Local
}

// Normalizer turns records into events. It is safe for concurrent use and starts nothing.
type Normalizer struct {
	catalogs *Catalogs
	generic  *product
	sources  map[string]boundSource
	local    *time.Location
	saltFunc func(p []byte)
	pool     sync.Pool // of *scratch

	mu    sync.RWMutex
	plans map[planKey]*plan // guarded by mu
}

type boundSource struct {
	product  *product // nil = find out
	location *time.Location
}

// New returns a normalizer. It fails if a source names a product that has no catalogue.
func New(opt Options) (*Normalizer, error) {
	if opt.Catalogs == nil {
		catalogs, err := LoadCatalogs()
		if err != nil {
			return nil, err
		}
		opt.Catalogs = catalogs
	}
	if opt.Local == nil {
		opt.Local = time.Local
	}
	n := &Normalizer{
		catalogs: opt.Catalogs, generic: opt.Catalogs.product(genericProduct), local: opt.Local, saltFunc: opt.Salt,
		sources: make(map[string]boundSource, len(opt.Sources)), plans: map[planKey]*plan{},
	}
	for id, source := range opt.Sources {
		bound := boundSource{location: source.Location}
		if bound.location == nil {
			bound.location = opt.Local
		}
		if source.Product != "" {
			if bound.product = opt.Catalogs.product(source.Product); bound.product == nil {
				return nil, fmt.Errorf("collector %s: product %q has no catalogue: use %s, or add one to normalize.catalogs",
					id, source.Product, strings.Join(opt.Catalogs.Products(), ", "))
			}
		}
		n.sources[id] = bound
	}
	n.pool.New = func() any { return newScratch(n) }
	return n, nil
}

// Normalize appends one event to dst for each record of src, in their order. The events' bytes point into the memory of
// both batches, so src must not be released before dst. It does not block, and neither batch is kept.
func (n *Normalizer) Normalize(dst *audit.Events, src *audit.Records) {
	s := n.pool.Get().(*scratch)
	s.dst = dst
	source := n.source(src.Source)
	for i := range src.List {
		s.record(dst.Add(), &src.List[i], src.Source, source)
	}
	s.release()
	n.pool.Put(s)
}

// Explain does what Normalize does and says for each record how its event came about.
func (n *Normalizer) Explain(dst *audit.Events, src *audit.Records) []Explanation {
	s := n.pool.Get().(*scratch)
	s.dst = dst
	source := n.source(src.Source)
	explanations := make([]Explanation, len(src.List))
	for i := range src.List {
		s.trace = &explanations[i]
		ev := dst.Add()
		s.record(ev, &src.List[i], src.Source, source)
		s.trace.finish(s, ev)
	}
	s.release()
	n.pool.Put(s)
	return explanations
}

func (n *Normalizer) source(id string) boundSource {
	if source, ok := n.sources[id]; ok {
		return source
	}
	return boundSource{location: n.local}
}

// record makes ev from rec.
func (s *scratch) record(ev *audit.Event, rec *audit.Record, id string, source boundSource) {
	s.marks = rec.Marks | textMarks(rec.Raw)
	if rec.Part > 0 {
		s.marks |= audit.MarkPart
	}
	s.understand(rec, source)
	e, class := s.classify()
	*ev = audit.Event{
		Received: rec.Received.UTC().Truncate(time.Millisecond), Source: id, Product: s.product.id, Class: class,
		Known: e.known, Raw: rec.Raw,
	}
	if len(rec.Key) > 0 {
		ev.ID = audit.KeyID(ev.Product, rec.Key)
	}
	s.salt(ev.Salt[:])
	s.time(ev, source.location)
	s.judge(ev, e)
	if e.targetType != nil {
		s.set(audit.KeyTargetType, e.targetType)
	}
	s.apply(e.rules)
	if e.ActorClaimed && ev.Outcome == audit.OutcomeFailure && s.has(audit.KeyActorName) && !s.hostUser() {
		s.marks |= audit.MarkActorClaimed
	}
	s.describe(ev, e)
	s.whence(rec)
	s.emit(ev)
	ev.Marks = s.marks
}

// hostUser reports whether the actor is who sits at the machine: nobody typed that name to be let in.
func (s *scratch) hostUser() bool {
	return s.has(audit.KeyActorType) && string(s.table[audit.KeyActorType]) == "host_user"
}

// describe fills what the catalogue says about the event.
func (s *scratch) describe(ev *audit.Event, e *entry) {
	name := e.name
	if len(name) == 0 {
		name = s.dst.Copy([]byte(ev.Class))
	}
	s.set(audit.KeyName, name)
	s.set(audit.KeyCategory, e.category)
	if e.Never {
		s.marks |= audit.MarkUnexpectedType
	}
	if e.Module != "" && s.product.moduleSlot != 0 {
		if module := trimSpace(s.value(s.product.moduleSlot)); !equalFoldASCII(module, e.Module) {
			s.marks |= audit.MarkSourceMismatch
		}
	}
}

// whence fills where the record came from.
func (s *scratch) whence(rec *audit.Record) {
	if rec.Origin != nil && rec.Origin.Path != "" && rec.Offset >= 0 {
		if s.origin != rec.Origin {
			s.origin, s.path = rec.Origin, []byte(rec.Origin.Path)
		}
		s.set(audit.KeySourcePath, s.path)
		s.set(audit.KeySourceOffset, s.integer(rec.Offset))
	}
	if rec.Row > 0 {
		s.set(audit.KeySourceRecord, s.integer(rec.Row))
	}
	if rec.Part > 0 {
		s.set(audit.KeySourcePart, s.integer(int64(rec.Part)))
	}
	if rec.Peer.IsValid() {
		s.set(audit.KeySourcePeer, rec.Peer.Unmap().WithZone("").AppendTo(s.dst.Alloc(40)[:0]))
	}
}
