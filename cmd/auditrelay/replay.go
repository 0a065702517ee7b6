package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/auditrelay/auditrelay/relay"
)

func newReplayCommand(std streams) *cobra.Command {
	var r rangeFlags
	var destination string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Send stored events to one destination once more",
		Long: "The events keep their ids and numbers. The destination's place in the queue does not move, and the replay is counted\n" +
			"apart. It runs in the daemon if one runs, else in this command, which then has the data_dir for itself. It is retried\n" +
			"until the destination has all of it; SIGINT and SIGTERM stop it and tell how far it came. What it did is printed to\n" +
			"standard error. Ends with 1 if a part of the range is not stored any more or is damaged; the rest is sent.\n\n" +
			"Times are compared with when the events were received.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if destination == "" {
				return &exitError{exitUsage, errors.New("--destination is missing: name one of the configuration")}
			}
			if _, err := r.selection(); err != nil {
				return err
			}
			return withCustody(cmd, std, true, func(ctx context.Context, c *custody) error {
				bar := newProgressLine(std.err)
				var last relay.Progress
				result, err := c.replay(ctx, destination, &r, func(p relay.Progress) {
					last = p
					bar.show("%s", &p)
				})
				bar.end()
				if err != nil && last.Last > 0 && result.Destination == "" {
					// The answer of the daemon was cut off, by a signal or because it stopped: what it last said counts.
					result = &relay.ReplayResult{Destination: destination, Delivered: last.Delivered}
				}
				return printReplay(std, result, err, asJSON)
			})
		},
	}
	r.add(cmd)
	cmd.Flags().StringVar(&destination, "destination", "", "id of the destination")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

// showEvery is how often the progress of a replay in this process is shown.
const showEvery = 250 * time.Millisecond

// replay returns what was sent also with an error, if it is known.
func (c *custody) replay(
	ctx context.Context, destination string, r *rangeFlags, progress func(relay.Progress),
) (*relay.ReplayResult, error) {
	if c.daemon != nil {
		return c.daemon.Replay(ctx, destination, r.from, r.to, progress)
	}
	sel, err := r.selection()
	if err != nil {
		return nil, err
	}
	pass, err := c.store.NewReplay(destination, sel)
	if err != nil {
		return nil, err
	}
	return pass.RunWatched(ctx, showEvery, progress)
}

func printReplay(std streams, result *relay.ReplayResult, err error, asJSON bool) error {
	if result == nil || result.Destination == "" {
		return err // it did not begin, or the daemon went away
	}
	if asJSON {
		err = errors.Join(err, writeJSON(std.err, result))
	} else {
		end := "complete"
		if !result.Complete {
			end = "not complete"
		}
		fmt.Fprintf(std.err, "replayed to %s: %d events sent, %d refused for good, %d sent more than once; %s\n",
			result.Destination, result.Delivered, result.DeadLettered, result.Resent, end)
	}
	if err != nil {
		return err
	}
	return reportMissing(std, result.Missing)
}
