package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/auditrelay/auditrelay/config"
	"github.com/auditrelay/auditrelay/queue"
	"github.com/auditrelay/auditrelay/relay"
)

func newStatusCommand(std streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the running daemon does: balance sheet, sources, destinations, queue, health",
		Long: "Asks the daemon over the control socket of the configuration (admin.socket). Ends with 0 if the health is green or\n" +
			"yellow, 1 if it is red, 69 if no daemon answers.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			return printStatus(cmd.Context(), cfg, std, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return cmd
}

func printStatus(ctx context.Context, cfg *config.Config, std streams, asJSON bool) error {
	status, err := relay.NewClient(cfg.Admin.Socket).Status(ctx)
	if err != nil {
		return classifyCommand(cfg, err)
	}
	if asJSON {
		err = writeJSON(std.out, status)
	} else {
		err = status.WriteText(std.out)
	}
	switch {
	case err != nil:
		return &exitError{exitFailed, err}
	case status.Health.Level == relay.HealthRed:
		return &exitError{code: exitFailed}
	default:
		return nil
	}
}

func writeJSON(out io.Writer, value any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(value)
}

// classifyCommand gives an error of a command that asks a daemon, or looks into its directory, its exit code and a hint.
func classifyCommand(cfg *config.Config, err error) error {
	var exit *exitError
	switch {
	case err == nil || errors.As(err, &exit):
		return err
	case errors.Is(err, relay.ErrNoDaemon):
		return &exitError{exitUnreachable, fmt.Errorf(
			"%w\nis it running, and with this configuration? auditrelay run -c … starts it", err)}
	case errors.Is(err, queue.ErrLocked):
		return &exitError{exitLocked, fmt.Errorf(
			"%w\na daemon has %s open and does not answer on %s: set admin.socket and start it again, or stop it",
			err, cfg.DataDir, cfg.Admin.Socket)}
	case errors.Is(err, relay.ErrNoDestination):
		return &exitError{exitUsage, err}
	default:
		return classify(err)
	}
}

// daemonOf returns a client for the daemon that has the configuration's data_dir, or nil if it does not run. A daemon
// with another data_dir may answer on the same socket.
func daemonOf(ctx context.Context, cfg *config.Config) (*relay.Client, error) {
	client := relay.NewClient(cfg.Admin.Socket)
	status, err := client.Status(ctx)
	switch {
	case errors.Is(err, relay.ErrNoDaemon):
		return nil, nil
	case err != nil:
		return nil, err
	case filepath.Clean(status.DataDir) != filepath.Clean(cfg.DataDir):
		return nil, nil
	default:
		return client, nil
	}
}

// stoppedRelay builds the relay of a configuration for commands that look into its directory. It starts nothing.
func stoppedRelay(cfg *config.Config, std streams) (*relay.Relay, error) {
	logger := slog.New(slog.NewTextHandler(std.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	r, err := relay.New(cfg, relay.Options{Logger: logger, Stdout: std.out, Version: currentVersion()})
	if err != nil {
		return nil, &exitError{exitConfig, err}
	}
	return r, nil
}

// untilSignal ends the context with SIGINT and SIGTERM.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
}
