package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/auditrelay/auditrelay/relay"
)

// exported is what an export wrote.
type exported struct {
	File    string          `json:"file"`
	Events  uint64          `json:"events"`
	SHA256  string          `json:"sha256"`
	Missing []relay.Missing `json:"missing"`
}

func newQueueExportCommand(std streams) *cobra.Command {
	var r rangeFlags
	var path string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write stored events to a file as native JSON, one a line, and print its checksum",
		Long: "The file appears under its name when it is whole and on disk. Ends with 1 if a part of the range is not stored any\n" +
			"more or is damaged; the file then has the rest.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path == "" {
				return &exitError{exitUsage, errors.New("--out is missing: name the file to write")}
			}
			if _, err := r.selection(); err != nil {
				return err
			}
			return withCustody(cmd, std, false, func(ctx context.Context, c *custody) error {
				result, err := exportTo(ctx, c, &r, path, std)
				if err != nil {
					return err
				}
				if asJSON {
					err = writeJSON(std.out, result)
				} else {
					_, err = fmt.Fprintf(std.out, "%s: %d events, sha256 %s\n", result.File, result.Events, result.SHA256)
				}
				return errors.Join(err, reportMissing(std, result.Missing))
			})
		},
	}
	r.add(cmd)
	cmd.Flags().StringVar(&path, "out", "", "file to write; one that is there is replaced")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

// exportTo writes the range beside path, syncs it, and gives it its name.
func exportTo(ctx context.Context, c *custody, r *rangeFlags, path string, std streams) (result *exported, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeIfThere(f.Name()))
		}
	}()
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(f, sum), 256<<10)
	bar := newProgressLine(std.err)
	written := uint64(0)
	found, err := c.entries(ctx, r, "json", func(e relay.Entry) error {
		if written++; written%4096 == 0 {
			bar.show("%d events", written)
		}
		return writeLine(out, e.Line)
	})
	bar.end()
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return nil, err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("the export is written, but its name may not last: %w", err)
	}
	return &exported{File: path, Events: written, SHA256: hex.EncodeToString(sum.Sum(nil)), Missing: found.Missing}, nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
