package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/auditrelay/auditrelay/relay"
)

func newCheckCommand(std streams) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check the configuration and say all that is wrong with it",
		Long: "Reads the configuration and the catalogues as run would, without touching the data directory, a file to be read,\n" +
			"a listener or a destination. Prints every problem with file, line and column. Exit code 78 if there is one.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			r, err := relay.New(cfg, relay.Options{Logger: slog.New(slog.DiscardHandler), Stdout: io.Discard})
			if err != nil {
				return &exitError{exitConfig, err}
			}
			if err := r.Check(); err != nil {
				return &exitError{exitConfig, err}
			}
			fmt.Fprintf(std.out, "configuration is good: %d sources, %d destinations\n", len(cfg.Collect), len(cfg.Forward))
			return nil
		},
	}
}
