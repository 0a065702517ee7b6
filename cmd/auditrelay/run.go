package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/auditrelay/auditrelay/config"
	"github.com/auditrelay/auditrelay/queue"
	"github.com/auditrelay/auditrelay/relay"
)

// runFlags are the flags of the command run.
type runFlags struct {
	once      bool
	timeout   time.Duration
	json      bool
	logFormat string
	logLevel  string
}

func newRunCommand(std streams) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon, or collect and deliver once",
		Long: "Runs until SIGTERM or SIGINT: intake stops first, what is in flight is finished, the backlog stays in the queue.\n" +
			"A second signal stops at once.\n\n" +
			"With --once it collects what the files hold, delivers all of it, prints the balance sheet to standard error and\n" +
			"ends: 0 all delivered, 69 something could not be delivered in time, 1 an equation of the sheet does not close.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			return f.run(cmd.Context(), cfg, std)
		},
	}
	cmd.Flags().BoolVar(&f.once, "once", false, "collect what is there, deliver it, print the balance sheet, end")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 10*time.Minute, "with --once: give up delivering after this long")
	cmd.Flags().BoolVar(&f.json, "json", false, "with --once: print the balance sheet as JSON")
	cmd.Flags().StringVar(&f.logFormat, "log-format", "text", "text or json")
	cmd.Flags().StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func (f *runFlags) run(ctx context.Context, cfg *config.Config, std streams) error {
	logger, err := f.logger(std)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	if !f.once {
		// A daemon outlives whoever read its standard output: the destination "-" then gets an error and tries again. With
		// --once the process ends like any other in a pipe; what was stored is delivered the next time.
		signal.Ignore(syscall.SIGPIPE)
	}
	if limit := int64(cfg.Relay.MemoryLimit); limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
	ctx, stop := stopOnSignals(ctx, logger)
	defer stop()
	r, err := relay.New(cfg, relay.Options{
		Logger: logger, Stdout: std.out, Notify: notifier(logger), Version: currentVersion(),
	})
	if err != nil {
		return &exitError{exitConfig, err}
	}
	if !f.once {
		return classify(r.Run(ctx))
	}
	sheet, err := r.RunOnce(ctx, f.timeout)
	if sheet != nil {
		if printErr := f.printSheet(sheet, std); printErr != nil {
			return &exitError{exitFailed, printErr}
		}
	}
	return classify(err)
}

func (f *runFlags) printSheet(sheet *relay.Sheet, std streams) error {
	if !f.json {
		return sheet.WriteText(std.err)
	}
	enc := json.NewEncoder(std.err)
	enc.SetIndent("", "  ")
	return enc.Encode(sheet)
}

func (f *runFlags) logger(std streams) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %q: use debug, info, warn or error", f.logLevel)
	}
	opt := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(std.err, opt)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(std.err, opt)), nil
	default:
		return nil, fmt.Errorf("--log-format %q: use text or json", f.logFormat)
	}
}

// stopOnSignals returns a context that ends with the first SIGTERM or SIGINT. The second ends the process.
func stopOnSignals(ctx context.Context, logger *slog.Logger) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		if _, ok := <-signals; !ok {
			return
		}
		cancel()
		if _, ok := <-signals; ok {
			logger.Error("second signal: stopping now; what was acknowledged is on disk")
			os.Exit(exitFailed)
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel()
	}
}

// notifier tells the service manager, if one started us (NOTIFY_SOCKET).
func notifier(logger *slog.Logger) func(string) {
	return func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			logger.Warn("service manager not told", "state", state, "error", err)
		}
	}
}

// classify gives an error of the relay its exit code.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, relay.ErrUndelivered):
		return &exitError{exitUnreachable, err}
	case errors.Is(err, queue.ErrLocked):
		return &exitError{exitLocked, fmt.Errorf("%w\nanother auditrelay uses this data_dir: stop it first, or give this one a data_dir of its own", err)}
	case errors.Is(err, fs.ErrPermission):
		return &exitError{exitPermission, err}
	case errors.Is(err, relay.ErrRemainder):
		return &exitError{exitFailed, err}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EIO), errors.Is(err, syscall.EROFS):
		return &exitError{exitDisk, err}
	default:
		return &exitError{exitFailed, err}
	}
}
