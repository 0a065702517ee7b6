package relay

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/auditrelay/auditrelay/collect"
	"github.com/auditrelay/auditrelay/config"
	"github.com/auditrelay/auditrelay/forward"
	"github.com/auditrelay/auditrelay/normalize"
)

// crossCheck finds what is wrong between the sections of a configuration: products that nobody knows, records that the
// queue could not take, destinations that feed a source of the same relay, and two that write one file. It returns all
// of it, in the order of the ids.
func crossCheck(cfg *config.Config, catalogs *normalize.Catalogs) error {
	var errs []error
	for _, c := range cfg.Collect {
		if _, known := catalogs.Product(c.Product); c.Product != "" && !known {
			errs = append(errs, fmt.Errorf("line %d: collect.%s.product: %q has no catalogue: use %s, or add one to normalize.catalogs",
				c.Line, c.ID, c.Product, strings.Join(catalogs.Products(), ", ")))
		}
		if err := fitsQueue(c, cfg.Queue.MaxSize); err != nil {
			errs = append(errs, err)
		}
	}
	written := map[string]string{}
	for _, d := range cfg.Forward {
		switch s := d.Settings.(type) {
		case *forward.FileSettings:
			if other, twice := written[s.Path]; twice {
				errs = append(errs, fmt.Errorf("line %d: forward.%s.path: destination %s writes the same file: give each its own",
					d.Line, d.ID, other))
			}
			written[s.Path] = d.ID
			errs = append(errs, loopThroughFile(cfg, d, s.Path))
		case *forward.SyslogSettings:
			errs = append(errs, loopThroughNetwork(cfg, d, s.Endpoints))
		}
	}
	return errors.Join(errs...)
}

// fitsQueue checks that the longest record of a collector fits the queue as an event, which holds it about twice, beside
// the head of the next segment.
func fitsQueue(c config.Collector, maxSize config.Bytes) error {
	key, longest := "", config.Bytes(0)
	switch s := c.Settings.(type) {
	case *collect.FileSettings:
		key, longest = "max_record", s.MaxRecord
	case *collect.SyslogSettings:
		key, longest = "max_message", s.MaxMessage
	}
	if least := 4 * longest; maxSize > 0 && least > maxSize {
		return fmt.Errorf("line %d: collect.%s.%s: records of %s need a queue.max_size of %s or more, it is %s",
			c.Line, c.ID, key, longest, least, maxSize)
	}
	return nil
}

// loopThroughFile finds a file source that would read what the destination writes.
func loopThroughFile(cfg *config.Config, d config.Destination, path string) error {
	for _, c := range cfg.Collect {
		s, ok := c.Settings.(*collect.FileSettings)
		if !ok || matchesAny(s.Exclude, path) || !matchesAny(s.Paths, path) {
			continue
		}
		return fmt.Errorf("line %d: forward.%s.path: collector %s reads this file, so it would feed itself: exclude it there, or write elsewhere",
			d.Line, d.ID, c.ID)
	}
	return nil
}

func matchesAny(patterns []string, path string) bool {
	for _, p := range patterns {
		name := path
		if !strings.Contains(p, "/") {
			name = filepath.Base(path)
		}
		if match, err := filepath.Match(p, name); err == nil && match {
			return true
		}
	}
	return false
}

// loopThroughNetwork finds a listener that would receive what the destination sends.
func loopThroughNetwork(cfg *config.Config, d config.Destination, endpoints []config.URL) error {
	for _, c := range cfg.Collect {
		s, ok := c.Settings.(*collect.SyslogSettings)
		if !ok {
			continue
		}
		for _, listen := range s.Listen {
			for _, to := range endpoints {
				if listen.Port != 0 && listen.Network() == to.Network() && listen.Address() == to.Address() {
					return fmt.Errorf("line %d: forward.%s.endpoints: collector %s listens on %s, so it would feed itself",
						d.Line, d.ID, c.ID, to)
				}
			}
		}
	}
	return nil
}
