package relay

import (
	"github.com/auditrelay/auditrelay/collect"
	"github.com/auditrelay/auditrelay/forward"
)

// Notice is a count of something that was not as it should be and cost or changed something: records in parts, datagrams
// that the kernel dropped, messages that were cut. It counts since the program started.
type Notice struct {
	Source      string `json:"source,omitempty"`
	Destination string `json:"destination,omitempty"`
	Name        string `json:"name,omitempty"` // of the input
	What        string `json:"what"`
	Count       uint64 `json:"count"`
}

// count is one counter with what it counts.
type count struct {
	what string
	n    uint64
}

func inputCounts(in *collect.Input) []count {
	return []count{
		{"datagrams dropped by the kernel, or records that could not be handed over at the stop", in.Dropped},
		{"connections refused", in.Refused},
		{"records with a framing error", in.FramingErrors},
		{"times found truncated", in.Truncations},
		{"parts of records that were too long", in.Parts},
		{"records delivered without their end", in.Partials},
		{"bytes of holes skipped", in.SkippedZeros},
	}
}

func sinkCounts(c forward.Counts, valuesCut uint64) []count {
	return []count{
		{"messages cut to max_message", c.Cut},
		{"values cut or left out because the format cannot hold them", valuesCut},
		{"unfinished last lines of a crash completed", c.Torn},
	}
}

// notices returns the source's counts that are not 0.
func (s *source) notices() (list []Notice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reporter, ok := s.collector.(collect.Reporter)
	if !ok {
		return nil
	}
	inputs := reporter.Inputs()
	for i := range inputs {
		for _, c := range inputCounts(&inputs[i]) {
			if c.n > 0 {
				list = append(list, Notice{Source: s.config.ID, Name: inputs[i].Name, What: c.what, Count: c.n})
			}
		}
	}
	return list
}

// notices returns the destination's counts that are not 0.
func (d *destination) notices() (list []Notice) {
	_, forwarder := d.parts()
	for _, c := range sinkCounts(forwarder.Stats().Sink, d.encoder.Cut()) {
		if c.n > 0 {
			list = append(list, Notice{Destination: d.config.ID, What: c.what, Count: c.n})
		}
	}
	return list
}
