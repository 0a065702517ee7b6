// Command auditrelay collects audit records, understands them, makes them durable and delivers them to a SIEM.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// Exit codes, after sysexits.h.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 64
	exitUnreachable = 69
	exitDisk        = 74
	exitLocked      = 75
	exitPermission  = 77
	exitConfig      = 78
)

// streams are the standard files of the process.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// exitError is an error with the code that the process ends with. A nil cause prints nothing more.
type exitError struct {
	code  int
	cause error
}

func (e *exitError) Error() string {
	if e.cause == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.cause.Error()
}

func (e *exitError) Unwrap() error { return e.cause }

func main() {
	os.Exit(run(context.Background(), os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, std streams) int {
	root := newRoot(std)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		exit = &exitError{code: exitUsage, cause: fmt.Errorf("%w\nsee auditrelay --help", err)}
	}
	if exit.cause != nil {
		fmt.Fprintf(std.err, "auditrelay: %v\n", exit.cause)
	}
	return exit.code
}

func newRoot(std streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "auditrelay",
		Short: "Collects audit records, understands them, and delivers them to a SIEM without losing any",
		Long: "auditrelay collects audit records from files and syslog, understands every event of the products it knows,\n" +
			"makes them durable on disk, and delivers them as CEF or JSON until the receiver has them.",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(std.in)
	root.SetOut(std.out)
	root.SetErr(std.err)
	root.PersistentFlags().StringP("config", "c", defaultConfigPath, "configuration file")
	root.AddCommand(newRunCommand(std), newCheckCommand(std), newExplainCommand(std), newStatusCommand(std), newQueueCommand(std),
		newReplayCommand(std), newSchemaCommand(std), newVersionCommand(std))
	return root
}
