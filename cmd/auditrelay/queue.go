package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/auditrelay/auditrelay/config"
	"github.com/auditrelay/auditrelay/relay"
)

func newQueueCommand(std streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Look into the queue: what is stored, whether it is whole, and for whom it is kept",
		Long: "All but adopt work with a running daemon, over its control socket, and with the data_dir of one that is stopped.\n" +
			"A range is given by numbers, or by times (2026-01-31T12:00:00Z) that are compared with when events were received.",
	}
	cmd.AddCommand(newQueueListCommand(std), newQueueCatCommand(std), newQueueExportCommand(std), newQueueCheckCommand(std),
		newQueueForgetCommand(std), newQueueAdoptCommand(std))
	return cmd
}

// custody is the queue of a daemon, running or stopped.
type custody struct {
	daemon *relay.Client // nil: it does not run
	store  *relay.Store  // of one that does not run
}

// openCustody finds the queue of a configuration. With change the directory of a stopped daemon is opened to be changed.
func openCustody(ctx context.Context, cfg *config.Config, std streams, change bool) (*custody, error) {
	daemon, err := daemonOf(ctx, cfg)
	if daemon != nil || err != nil {
		return &custody{daemon: daemon}, err
	}
	r, err := stoppedRelay(cfg, std)
	if err != nil {
		return nil, err
	}
	store, err := r.OpenStore()
	if err == nil && change {
		// Looking first: opening a directory that is not there would make it.
		if err = store.Close(); err == nil {
			store, err = r.OpenStoreForChange()
		}
	}
	if err != nil {
		return nil, err
	}
	return &custody{store: store}, nil
}

func (c *custody) Close() error {
	if c.store == nil {
		return nil
	}
	return c.store.Close()
}

func (c *custody) list(ctx context.Context) (*relay.QueueList, error) {
	if c.daemon != nil {
		return c.daemon.List(ctx)
	}
	return c.store.List()
}

func (c *custody) check(ctx context.Context, progress func(done, total int64)) (*relay.CheckResult, error) {
	if c.daemon != nil {
		return c.daemon.Check(ctx, progress)
	}
	return c.store.Check(ctx, progress)
}

func (c *custody) forget(ctx context.Context, name string) error {
	if c.daemon != nil {
		return c.daemon.Forget(ctx, name)
	}
	return c.store.Forget(name)
}

func (c *custody) entries(ctx context.Context, r *rangeFlags, format string, yield func(relay.Entry) error) (*relay.Selected, error) {
	if c.daemon != nil {
		return c.daemon.Entries(ctx, r.from, r.to, format, yield)
	}
	sel, err := r.selection()
	if err != nil {
		return nil, err
	}
	return c.store.Entries(ctx, sel, format, yield)
}

// withCustody runs work on the queue of the command's configuration.
func withCustody(cmd *cobra.Command, std streams, change bool, work func(ctx context.Context, c *custody) error) error {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	ctx, stop := untilSignal(cmd.Context())
	defer stop()
	c, err := openCustody(ctx, cfg, std, change)
	if err == nil {
		err = work(ctx, c)
		if closeErr := c.Close(); err == nil {
			err = closeErr
		}
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("stopped by a signal: %w", err)
	}
	return classifyCommand(cfg, err)
}

// rangeFlags are the two ends of a range.
type rangeFlags struct{ from, to string }

func (r *rangeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.from, "from", "", "first number, or time received; default: the oldest that is stored")
	cmd.Flags().StringVar(&r.to, "to", "", "last number, or time received; default: the newest")
}

func (r *rangeFlags) selection() (relay.Selection, error) {
	sel, err := relay.SelectionOf(r.from, r.to)
	if err != nil {
		return sel, &exitError{exitUsage, err}
	}
	return sel, nil
}

func newQueueListCommand(std streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List segments and cursors",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withCustody(cmd, std, false, func(ctx context.Context, c *custody) error {
				list, err := c.list(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return writeJSON(std.out, list)
				}
				return list.WriteText(std.out)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return cmd
}

func newQueueCatCommand(std streams) *cobra.Command {
	var r rangeFlags
	var format string
	cmd := &cobra.Command{
		Use:   "cat",
		Short: "Print stored events, one a line",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "json" && format != "cef" {
				return &exitError{exitUsage, fmt.Errorf("--format %q: use json or cef", format)}
			}
			if _, err := r.selection(); err != nil {
				return err
			}
			return withCustody(cmd, std, false, func(ctx context.Context, c *custody) error {
				out := bufio.NewWriter(std.out)
				found, err := c.entries(ctx, &r, format, func(e relay.Entry) error { return writeLine(out, e.Line) })
				if err = errors.Join(err, out.Flush()); err != nil {
					return err
				}
				return reportMissing(std, found.Missing)
			})
		},
	}
	r.add(cmd)
	cmd.Flags().StringVar(&format, "format", "json", "json or cef")
	return cmd
}

// writeLine writes a line. The line is borrowed.
func writeLine(out io.Writer, line []byte) error {
	if _, err := out.Write(line); err != nil {
		return err
	}
	_, err := out.Write([]byte{'\n'})
	return err
}

// reportMissing names what was asked for and is not there. Then not all was done, so the exit code is 1.
func reportMissing(std streams, missing []relay.Missing) error {
	if len(missing) == 0 {
		return nil
	}
	for _, m := range missing {
		fmt.Fprintf(std.err, "auditrelay: %s\n", m)
	}
	return &exitError{code: exitFailed}
}

func newQueueCheckCommand(std streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Read everything that is stored and name every damaged range",
		Long:  "Changes nothing. Ends with 0 if all is whole and 1 if something is damaged.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withCustody(cmd, std, false, func(ctx context.Context, c *custody) error {
				bar := newProgressLine(std.err)
				result, err := c.check(ctx, func(done, total int64) { bar.show("%d%% of %d bytes", percent(done, total), total) })
				bar.end()
				if err != nil {
					return err
				}
				return printCheck(std, result, asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return cmd
}

func percent(done, total int64) int64 {
	if total <= 0 {
		return 100
	}
	return int64(float64(done) / float64(total) * 100)
}

func printCheck(std streams, result *relay.CheckResult, asJSON bool) error {
	if asJSON {
		if err := writeJSON(std.out, result); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(std.out, "%d segments, %d frames, %d events, %d bytes: %d damaged ranges\n",
			result.Segments, result.Frames, result.Entries, result.Bytes, len(result.Damage))
		for _, d := range result.Damage {
			lost := "no event is known to be lost"
			if d.First > 0 {
				lost = fmt.Sprintf("events %d..%d are lost", d.First, d.Last)
			}
			fmt.Fprintf(std.out, "%s, %d bytes at %d: %s: %s\n", d.File, d.Bytes, d.Offset, lost, d.Reason)
		}
	}
	if len(result.Damage) > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}

func newQueueForgetCommand(std streams) *cobra.Command {
	return &cobra.Command{
		Use:   "forget ID",
		Short: "Delete the cursor of a destination and give up its backlog",
		Long: "For a destination that will not come back. One that is in the configuration of the running daemon has its cursor\n" +
			"open: take it out of the configuration and start the daemon again first.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withCustody(cmd, std, true, func(ctx context.Context, c *custody) error {
				if err := c.forget(ctx, args[0]); err != nil {
					return err
				}
				fmt.Fprintf(std.out, "cursor %s is deleted\n", args[0])
				return nil
			})
		},
	}
}

func newQueueAdoptCommand(std streams) *cobra.Command {
	return &cobra.Command{
		Use:   "adopt",
		Short: "Give a copied or restored queue directory a new log id",
		Long: "Two directories with one log id would give one id to two different events. The daemon must be stopped. Events that\n" +
			"have an id of their own keep it; those named by log id and number get new ones.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			r, err := stoppedRelay(cfg, std)
			if err != nil {
				return err
			}
			id, err := r.Adopt()
			if err != nil {
				return classifyCommand(cfg, err)
			}
			fmt.Fprintf(std.out, "the queue in %s is log %s now\n", cfg.DataDir, id)
			return nil
		},
	}
}

// progressLine shows how far long work is, on a terminal only.
type progressLine struct {
	out   io.Writer // nil: not a terminal
	shown bool
}

func newProgressLine(out io.Writer) *progressLine {
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return &progressLine{out: out}
		}
	}
	return &progressLine{}
}

// progressWidth fits the usual terminal: a longer line would wrap and could not be replaced.
const progressWidth = 78

// show replaces the line.
func (p *progressLine) show(format string, args ...any) {
	if p.out != nil {
		p.shown = true
		text := []rune(fmt.Sprintf(format, args...))
		fmt.Fprintf(p.out, "\r%s\x1b[K", string(text[:min(len(text), progressWidth)]))
	}
}

// end wipes the line.
func (p *progressLine) end() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
