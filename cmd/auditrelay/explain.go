package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/auditrelay/auditrelay/config"
	"github.com/auditrelay/auditrelay/relay"
)

// explainFlags are the flags of the command explain.
type explainFlags struct {
	relay.ExplainRequest
	json bool
}

func newExplainCommand(std streams) *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain [FILE]",
		Short: "Show what becomes of records, step by step",
		Long: "Takes records from FILE or standard input and shows how each is framed, which fields it has and where they go,\n" +
			"its catalogue entry, how severity, outcome and time were decided, and the exact bytes for each configured\n" +
			"destination. The code is that of run; nothing is stored or sent.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				f.Path = args[0]
			}
			return f.run(cmd, std)
		},
	}
	cmd.Flags().StringVar(&f.Collect, "collect", "", "read the records as this collector of the configuration would")
	cmd.Flags().StringVar(&f.Product, "product", "", "without --collect: the catalogue to use")
	cmd.Flags().BoolVar(&f.json, "json", false, "one JSON document per record")
	cmd.MarkFlagsMutuallyExclusive("collect", "product")
	return cmd
}

func (f *explainFlags) run(cmd *cobra.Command, std streams) error {
	cfg, err := f.config(cmd)
	if err != nil {
		return err
	}
	r, err := relay.New(cfg, relay.Options{Logger: slog.New(slog.NewTextHandler(std.err, &slog.HandlerOptions{Level: slog.LevelWarn})), Stdout: io.Discard})
	if err != nil {
		return &exitError{exitConfig, err}
	}
	if f.Path == "" {
		path, remove, err := spool(std.in)
		if err != nil {
			return &exitError{exitFailed, err}
		}
		defer remove()
		f.Path = path
	}
	if _, err := os.Stat(f.Path); err != nil {
		return &exitError{exitFailed, err}
	}
	records := 0
	err = r.Explain(cmd.Context(), f.ExplainRequest, func(x relay.Explained) error {
		records++
		if f.json {
			return json.NewEncoder(std.out).Encode(x)
		}
		return writeExplained(std.out, records, &x)
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		return &exitError{exitFailed, err}
	}
	if records == 0 {
		return &exitError{exitFailed, errors.New("no record found: a CSV needs its header row and at least one record")}
	}
	return nil
}

// config returns the configuration. explain works without one: then there are no destinations.
func (f *explainFlags) config(cmd *cobra.Command) (*config.Config, error) {
	if _, err := os.Stat(defaultConfigPath); err != nil && !cmd.Flags().Changed("config") && f.Collect == "" {
		return new(config.Config), nil
	}
	return loadConfig(cmd)
}

// spool copies standard input to a file, because the collector follows files.
func spool(in io.Reader) (path string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "auditrelay-explain-")
	if err != nil {
		return "", nil, fmt.Errorf("make a place for standard input: %w", err)
	}
	remove = func() { _ = os.RemoveAll(dir) } // a temporary directory of ours; the system clears it otherwise
	path = filepath.Join(dir, "stdin")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err == nil {
		_, err = io.Copy(file, in)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		remove()
		return "", nil, fmt.Errorf("copy standard input: %w", err)
	}
	return path, remove, nil
}

// writeExplained writes one record's way for people.
func writeExplained(out io.Writer, number int, x *relay.Explained) error {
	known := "not in the catalogue"
	if x.Why.Known {
		known = "catalogue entry " + x.Why.Entry
	}
	fmt.Fprintf(out, "record %d   %s\n  %s\n", number, x.Origin, x.Record)
	fmt.Fprintf(out, "  product   %s (%s), read as %s\n", x.Why.Product, x.Why.By, x.Why.Format)
	for _, fact := range x.Why.Facts {
		fmt.Fprintf(out, "            %s\n", fact)
	}
	fmt.Fprintf(out, "  class     %s, %s\n", x.Why.Class, known)
	writeSteps(out, "severity", x.Why.Severity)
	fmt.Fprintf(out, "  outcome   %s\n", x.Why.Outcome)
	writeSteps(out, "time", x.Why.Time)
	for _, mark := range x.Why.Marks {
		fmt.Fprintf(out, "  mark      %s\n", mark)
	}
	for _, field := range x.Why.Fields {
		fmt.Fprintf(out, "  field     %s → %s: %q\n", field.From, field.To, field.Value)
	}
	for _, d := range x.Destinations {
		fmt.Fprintf(out, "  to %s (%s, %s)\n    %s\n", d.ID, d.Type, d.Format, d.Bytes)
	}
	if len(x.Destinations) == 0 {
		fmt.Fprintf(out, "  event     %s\n", x.Event)
	}
	_, err := fmt.Fprintln(out)
	return err
}

func writeSteps(out io.Writer, name string, steps []string) {
	for i, step := range steps {
		if i > 0 {
			name = ""
		}
		fmt.Fprintf(out, "  %-9s %s\n", name, step)
	}
}
