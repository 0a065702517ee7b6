package collect

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/collect/tail"
	"github.com/auditrelay/auditrelay/config"
)

// FileSettings are the settings of kind file.
type FileSettings struct {
	// Patterns have * ? and [a-z] in any part of the path. A rotated file is read to its end even if its new name
	// matches none.
	Paths []string `yaml:"paths" required:"true" example:"[\"/srv/app/audit*.csv\"]" doc:"Patterns of files to follow."`
	// Patterns of whole paths, or of names if there is no slash in them.
	Exclude []string `yaml:"exclude" example:"[\"*.gz\"]" doc:"Patterns of files to leave out."`
	// auto: csv by the name or a header row that we know, json if the first character is "{", else lines.
	Format string `yaml:"format" oneof:"auto csv json text" doc:"How records are told apart."`
	// For files that are there when their pattern is seen for the first time. Those that come later begin at their
	// beginning.
	StartAt string `yaml:"start_at" oneof:"beginning end" doc:"Where to begin in files that are there already."`

	MaxRecord config.Bytes `yaml:"max_record" min:"1KiB" max:"8MiB" doc:"Longest record; a longer one comes in parts."`
	// File notifications make it quicker where there are any.
	PollInterval config.Duration `yaml:"poll_interval" min:"10ms" max:"1h" doc:"Time between two looks at the files."`
	PartialAfter config.Duration `yaml:"partial_after" min:"100ms" doc:"Age at which half a record is delivered."`
	// Longer than programs take to reopen their log after a rotation.
	CloseAfter config.Duration `yaml:"close_after" min:"1s" doc:"Age at which an idle rotated file is closed."`
}

// NewFileSettings returns the settings with their defaults.
func NewFileSettings() *FileSettings {
	return &FileSettings{
		Format:       audit.FormatAuto.String(),
		StartAt:      "beginning",
		MaxRecord:    tail.DefaultMaxRecord,
		PollInterval: config.Duration(tail.DefaultPollInterval),
		PartialAfter: config.Duration(tail.DefaultPartialAfter),
		CloseAfter:   config.Duration(tail.DefaultCloseAfter),
	}
}

// Validate checks the patterns.
func (s *FileSettings) Validate() []config.Invalid {
	var list []config.Invalid
	for i, p := range s.Paths {
		key := fmt.Sprintf("paths[%d]", i)
		if err := tail.CheckPattern(p); err != nil {
			list = append(list, config.Invalid{Key: key, Message: err.Error()})
		} else if !filepath.IsAbs(p) {
			list = append(list, config.Invalid{Key: key, Message: fmt.Sprintf("%q is relative: begin it with /", p)})
		}
	}
	for i, p := range s.Exclude {
		key := fmt.Sprintf("exclude[%d]", i)
		if err := tail.CheckPattern(p); err != nil {
			list = append(list, config.Invalid{Key: key, Message: err.Error()})
		} else if strings.Contains(p, "/") && !filepath.IsAbs(p) {
			message := fmt.Sprintf("%q matches nothing: begin it with /, or leave the directory out", p)
			list = append(list, config.Invalid{Key: key, Message: message})
		}
	}
	return list
}

// File is the collector of kind file. It follows files and stores in each batch how far it has read.
type File struct {
	follower *tail.Follower
}

// NewFile makes a collector of kind file. An error means that a stored position cannot be read, or that a pattern is
// malformed.
func NewFile(env Env, s *FileSettings) (*File, error) {
	opt := s.options()
	opt.Source, opt.Product = env.ID, env.Product
	opt.Once, opt.Positions, opt.Logger = env.Once, env.Positions, env.logger()
	follower, err := tail.New(opt)
	if err != nil {
		return nil, err
	}
	return &File{follower}, nil
}

// options returns what the settings say of following.
func (s *FileSettings) options() tail.Options {
	format := audit.FormatAuto
	for _, f := range []audit.Format{audit.FormatCSV, audit.FormatJSON, audit.FormatText} {
		if s.Format == f.String() {
			format = f
		}
	}
	return tail.Options{
		Paths: s.Paths, Exclude: s.Exclude,
		Format: format, StartAtEnd: s.StartAt == "end",
		MaxRecord:    int(s.MaxRecord),
		PollInterval: time.Duration(s.PollInterval),
		PartialAfter: time.Duration(s.PartialAfter),
		CloseAfter:   time.Duration(s.CloseAfter),
	}
}

// Run implements Collector.
func (c *File) Run(ctx context.Context, put PutFunc) error { return c.follower.Run(ctx, put) }

// Inputs implements Reporter: one for each file that is followed, and one for each pattern or path that leads to none.
func (c *File) Inputs() []Input {
	files := c.follower.Files()
	list := make([]Input, len(files))
	for i, f := range files {
		in := Input{
			Name: f.Path, Reason: f.Problem, Records: f.Records, Bytes: f.Bytes, Offset: f.Offset, Size: f.Size,
			Skipped: f.Blank, Parts: f.Parts, Partials: f.Partials, Truncations: f.Truncations, SkippedZeros: f.Zeros,
		}
		switch {
		case f.Missing:
			in.State = StateWaiting
		case f.Problem != "":
			in.State = StateDegraded
		}
		list[i] = in
	}
	return list
}
