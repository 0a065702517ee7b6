package relay

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/collect"
	"github.com/auditrelay/auditrelay/forward"
	"github.com/auditrelay/auditrelay/normalize"
)

// ExplainRequest says which records to explain and how they come in.
type ExplainRequest struct {
	Collect string // id of the collector in whose name they come; empty = as files, product found out or Product
	Product string // without Collect: the catalogue to use
	Path    string // file that holds them
}

// Explained is one record's way through the program, as far as it can be shown without storing anything.
type Explained struct {
	Record       string                `json:"record"` // its bytes, with what is not text escaped
	Origin       string                `json:"origin"` // how it was framed
	Why          normalize.Explanation `json:"why"`
	Event        json.RawMessage       `json:"event"` // native JSON
	Destinations []Rendered            `json:"destinations,omitempty"`
}

// Rendered is what one destination would be sent for it.
type Rendered struct {
	ID     string `json:"id"`
	Type   string `json:"type"`
	Format string `json:"format"`
	Bytes  string `json:"bytes"`
}

// explainLog and the numbers 1, 2, 3 … stand in for a place in a log: nothing is stored.
const explainLog = audit.LogID(0)

// Explain collects the records of a file as the collector would, runs them through the normalizer and the destinations'
// encoders, and calls yield for each. It touches neither the data directory nor a destination.
func (r *Relay) Explain(ctx context.Context, req ExplainRequest, yield func(Explained) error) error {
	native, err := normalize.NewEncoder("json", r.encoderOptions(explainLog))
	if err != nil {
		return err
	}
	outputs, err := r.explainOutputs()
	if err != nil {
		return err
	}
	number := audit.Number(0)
	put := func(_ context.Context, batch *audit.Records) (audit.Number, error) {
		batch.Source = req.Collect
		if req.Product != "" {
			for i := range batch.List {
				batch.List[i].Product = req.Product
			}
		}
		events := audit.GetEvents()
		defer events.Release()
		for i, why := range r.normalizer.Explain(events, batch) {
			ev := &events.List[i]
			number++
			ev.Number = number
			if ev.ID.IsZero() {
				ev.ID = audit.PlaceID(explainLog, number)
			}
			x := Explained{Record: printable(batch.List[i].Raw), Origin: origin(&batch.List[i]), Why: why, Event: native.Append(nil, ev)}
			for _, out := range outputs {
				out.Rendered.Bytes = printable(out.render(ev))
				x.Destinations = append(x.Destinations, out.Rendered)
			}
			if err := yield(x); err != nil {
				return 0, err
			}
		}
		return number, nil
	}
	return r.collectFile(ctx, req, put)
}

// collectFile reads the file once, framed as the named collector frames its input.
func (r *Relay) collectFile(ctx context.Context, req ExplainRequest, put collect.PutFunc) error {
	for _, s := range r.sources {
		if s.config.ID == req.Collect {
			return collect.ReadFile(ctx, req.Path, s.config.Settings, put)
		}
	}
	if req.Collect != "" {
		return fmt.Errorf("no collector %q in the configuration", req.Collect)
	}
	return collect.ReadFile(ctx, req.Path, nil, put)
}

// output is one destination's sink, never connected.
type output struct {
	Rendered
	render func(ev *audit.Event) []byte
}

func (r *Relay) explainOutputs() (list []output, err error) {
	for _, cfg := range r.config.Forward {
		sink, _, err := r.newSink(cfg, explainLog)
		if err != nil {
			return nil, fmt.Errorf("destination %s: %w", cfg.ID, err)
		}
		renderer, ok := sink.(forward.Renderer)
		if !ok {
			continue
		}
		list = append(list, output{
			Rendered: Rendered{ID: cfg.ID, Type: cfg.Type, Format: cfg.Format},
			render:   func(ev *audit.Event) []byte { return renderer.Render(nil, ev) },
		})
	}
	return list, nil
}

// origin says in words how a record was framed.
func origin(rec *audit.Record) string {
	text := "format unknown"
	if rec.Origin != nil {
		text = rec.Origin.Format.String() + " from " + rec.Origin.Path
	}
	if rec.Offset >= 0 {
		text += fmt.Sprintf(", record %d at byte %d", rec.Row, rec.Offset)
	}
	if rec.Part > 0 {
		text += fmt.Sprintf(", part %d", rec.Part)
	}
	return text
}
