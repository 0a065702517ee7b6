package forward

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/config"
)

// standardOutput is the path that means Env.Stdout.
const standardOutput = "-"

// FileMode is the permission bits of a file, written in octal as for chmod: "0640".
type FileMode fs.FileMode

// UnmarshalText reads octal digits.
func (m *FileMode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || n > 0o777 || n&0o200 == 0 {
		return fmt.Errorf("%q is not a mode of a file that its owner may write: use octal digits as in 0640", text)
	}
	*m = FileMode(n)
	return nil
}

// String returns four octal digits.
func (m FileMode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// MarshalText returns String, which UnmarshalText reads.
func (m FileMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// FileSettings are the keys of the kind file.
type FileSettings struct {
	// No other program may write to the file, but any may read it or move it away.
	Path string `yaml:"path" required:"true" doc:"File to append to, or \"-\" for standard output."`
	// A file may become larger by one batch.
	MaxSize config.Bytes `yaml:"max_size" min:"1KiB" doc:"Size from which the file is set aside as path.1."`
	Keep    int          `yaml:"keep" min:"1" max:"1000" doc:"How many files that were set aside are kept."`
	// Without it a power cut loses events.
	Sync bool     `yaml:"sync" doc:"Wait until each batch is on disk."`
	Mode FileMode `yaml:"mode" doc:"Permissions of new files, less the umask."`
}

func newFileSettings() *FileSettings {
	return &FileSettings{MaxSize: 100 * config.MiB, Keep: 10, Sync: true, Mode: 0o640}
}

// Validate says what is wrong with the settings.
func (s *FileSettings) Validate() []config.Invalid {
	if s.Path == standardOutput || s.Path == "" || filepath.IsAbs(s.Path) {
		return nil
	}
	return []config.Invalid{{Key: "path", Message: `is relative: write the path from / on, or "-" for standard output`}}
}

// fileSink appends one event a line to a file. With sync, an event is on disk when Send returns, and a Send that fails
// leaves nothing behind, so that nothing is lost and nothing comes twice. Programs that rename the file away are
// noticed before the next batch.
type fileSink struct {
	settings *FileSettings
	encoder  Encoder
	stdout   *patientWriter // set for standard output

	// Owned by Send.
	lines *lineFile // nil = not open
	buf   []byte

	messages, bytes, rotations, torn atomic.Uint64
}

func newFile(env Env, settings any) (Sink, error) {
	s, ok := settings.(*FileSettings)
	if !ok || s.Path == "" {
		return nil, errors.New("file destination has no path: set path")
	}
	sink := &fileSink{settings: s, encoder: env.Encoder}
	if s.Path == standardOutput {
		if env.Stdout == nil {
			return nil, errors.New("file destination: there is no standard output: set path to a file")
		}
		sink.stdout = newPatientWriter(env.Stdout)
	}
	return sink, nil
}

// Send appends the batch.
func (s *fileSink) Send(ctx context.Context, batch *audit.Events) (Receipt, error) {
	if ctx.Err() != nil {
		return nil, &UnsentError{Err: ctx.Err()}
	}
	s.buf = s.buf[:0]
	for i := range batch.List {
		s.buf = append(s.Render(s.buf, &batch.List[i]), '\n')
	}
	err := s.write(ctx, s.buf)
	if err == nil {
		s.messages.Add(uint64(len(batch.List)))
		s.bytes.Add(uint64(len(s.buf)))
	}
	if cap(s.buf) > keepBytes {
		s.buf = nil
	}
	return nil, err
}

// Close closes the file.
func (s *fileSink) Close() error {
	if s.lines == nil {
		return nil
	}
	err := s.lines.file.Close()
	s.lines = nil
	return err
}

// Render implements Renderer.
func (s *fileSink) Render(dst []byte, ev *audit.Event) []byte {
	return escapeLines(s.encoder.Append(dst, ev), len(dst))
}

// Counts implements Counter.
func (s *fileSink) Counts() Counts {
	return Counts{
		Messages: s.messages.Load(), Bytes: s.bytes.Load(), Rotations: s.rotations.Load(), Torn: s.torn.Load(),
	}
}

// write appends p as a whole or, if cutting back works, not at all.
func (s *fileSink) write(ctx context.Context, p []byte) error {
	if s.stdout != nil {
		return s.stdout.write(ctx, p)
	}
	if err := s.prepare(int64(len(p))); err != nil {
		return &UnsentError{Err: err}
	}
	undone, err := s.lines.write(p, s.settings.Sync)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("write %s: %w", s.settings.Path, errors.Join(err, s.Close()))
	if undone {
		return &UnsentError{Err: err}
	}
	return err
}

// prepare opens the file and sets a full one aside, so that size bytes can be written.
func (s *fileSink) prepare(size int64) error {
	if s.lines != nil && s.lines.replaced(s.settings.Path) {
		if err := s.Close(); err != nil {
			return fmt.Errorf("close %s, which was moved away: %w", s.settings.Path, err)
		}
	}
	if err := s.open(); err != nil {
		return err
	}
	length, err := s.lines.length()
	if err != nil {
		return err
	}
	if length == 0 || length+size <= int64(s.settings.MaxSize) {
		return nil
	}
	if err := errors.Join(s.Close(), s.rotate()); err != nil {
		return fmt.Errorf("set %s aside: %w", s.settings.Path, err)
	}
	s.rotations.Add(1)
	return s.open()
}

func (s *fileSink) open() error {
	if s.lines != nil {
		return nil
	}
	lines, err := openLines(s.settings.Path, fs.FileMode(s.settings.Mode))
	if err != nil {
		return err // names the path
	}
	if lines.torn {
		s.torn.Add(1)
	}
	s.lines = lines
	return nil
}

// rotate renames path.1 to path.2 and so on, which removes the oldest, and path to path.1. A crash in between leaves a
// gap in the numbers, which the next rotation closes or keeps; no file is lost by it.
func (s *fileSink) rotate() error {
	name := func(i int) string { return s.settings.Path + "." + strconv.Itoa(i) }
	free := 1 // the first number that is free: only those below have to move
	for free < s.settings.Keep {
		if _, err := os.Lstat(name(free)); errors.Is(err, fs.ErrNotExist) {
			break
		}
		free++
	}
	for i := free; i > 1; i-- {
		if err := os.Rename(name(i-1), name(i)); err != nil {
			return err
		}
	}
	if err := os.Rename(s.settings.Path, name(1)); err != nil {
		return err
	}
	return syncDir(filepath.Dir(s.settings.Path))
}
