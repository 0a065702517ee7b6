package collect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/collect/tail"
)

// ReadFile reads one regular file from start to end, cut into records as a collector with these settings does it, and
// returns when put has taken everything. settings is what the Settings of a Kind returned, or nil for those of kind
// file with their defaults. Nothing is waited for: a last record without its end comes out, marked. An error says why
// the file was not read to its end; put's own error is among them.
func ReadFile(ctx context.Context, path string, settings any, put PutFunc) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	once := func(ctx context.Context, batch *audit.Records) (audit.Number, error) {
		through, err := put(ctx, batch)
		if err != nil {
			cancel(err)
		}
		return through, err
	}
	var err error
	switch s := settings.(type) {
	case nil:
		err = readAsFile(ctx, path, NewFileSettings(), once)
	case *FileSettings:
		err = readAsFile(ctx, path, s, once)
	case *SyslogSettings:
		err = readAsStream(ctx, path, s, once)
	default:
		return fmt.Errorf("BUG: settings of type %T", settings)
	}
	return errors.Join(err, context.Cause(ctx))
}

func readAsFile(ctx context.Context, path string, s *FileSettings, put PutFunc) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	opt := s.options()
	opt.Paths, opt.Exclude, opt.StartAtEnd = []string{tail.Literal(path)}, nil, false
	opt.Once, opt.PartialAfter = true, time.Nanosecond
	f, err := tail.New(opt)
	if err != nil {
		return err
	}
	if err := f.Run(ctx, put); err != nil {
		return err
	}
	for _, file := range f.Files() {
		if file.Problem != "" {
			return fmt.Errorf("read %s: %s", path, file.Problem)
		}
	}
	return nil
}

// readAsStream reads the file as if its bytes had come over one TCP connection.
func readAsStream(ctx context.Context, path string, s *SyslogSettings, put PutFunc) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	origin := &audit.Origin{Path: path, Format: audit.FormatSyslog}
	framer := framer{mode: s.framing(), max: int(s.MaxMessage)}
	buf := make([]byte, 0, max(busyBytes, framer.max+frameOverhead))
	batch := audit.GetRecords("")
	defer batch.Release()
	for last := false; !last; {
		n, err := file.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		last = err != nil
		used := 0
		for more := true; more; {
			f := framer.next(buf[used:], last)
			used += f.used
			more = f.used > 0
			if len(f.raw) > 0 {
				appendFrame(batch, origin, f).Received = time.Now()
			}
			full := !more || batch.Bytes() >= batchBytes || len(batch.List) >= batchRecords
			if !full || len(batch.List) == 0 {
				continue
			}
			if _, err := put(ctx, batch); err != nil {
				return nil // it is the cause why ctx ended
			}
			batch.Reset()
		}
		buf = append(buf[:0], buf[used:]...)
	}
	return nil
}
