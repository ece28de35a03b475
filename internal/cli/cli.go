// Package cli is the command line: one file per command, each a newXCommand that
// says what there is, a struct of options, and a runX that does it.
//
// Answers go to standard output, everything about them to standard error. A
// command is a value: tests run it with an [Env] of their own, and nothing reads
// the process around it but [Main].
package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// Env is what a command meets around it.
type Env struct {
	In          io.Reader
	Out, Err    io.Writer
	InTerminal  bool // whether a person would have to type what In says
	OutTerminal bool
	ErrTerminal bool
	Columns     func() int       // how wide Err's terminal is now; 0 when nobody knows
	Environ     []string         // as from os.Environ
	Now         func() time.Time // for ages
	Proposing   time.Duration    // how long a completion waits for the server's words
}

// Main runs the process's own command line and returns its exit status. The first
// interrupt ends what is under way in good order, the second the process.
func Main() int {
	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer release()
	context.AfterFunc(ctx, release)
	env := &Env{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		InTerminal: isTerminal(os.Stdin), OutTerminal: isTerminal(os.Stdout), ErrTerminal: isTerminal(os.Stderr),
		Columns: func() int { return columns(os.Stderr) },
		Environ: os.Environ(), Now: time.Now, Proposing: completeTime,
	}
	return Run(ctx, env, os.Args[1:])
}

// Run runs one command line and returns its exit status.
func Run(ctx context.Context, env *Env, args []string) int {
	root := NewRoot(env)
	root.SetArgs(append([]string{}, args...)) // nil would be the process's own
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(err)
	if say := sentence(err); say != "" {
		fmt.Fprintf(env.Err, "meanwhile: %s\n", printable(say))
	}
	if code == exitUsage {
		fmt.Fprintf(env.Err, "See '%s --help'.\n", cmd.CommandPath())
	}
	return code
}

// NewRoot makes the command of which all others are part.
func NewRoot(env *Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "meanwhile",
		Short: "Put slow work on disk, answer at once, and watch it from anywhere",
		Long: `Meanwhile stands between an application and its slow work: a request is put on
disk, answered at once with an id, run in the background, and watched from anywhere.

  meanwhile serve                                        run a server
  meanwhile submit chat "How do tides work?" --watch     ask it something

` + exitHelp(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          usage(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		newServeCommand(env),
		newSubmitCommand(env),
		newWatchCommand(env),
		newGetCommand(env),
		newListCommand(env),
		newCancelCommand(env),
		newRetryCommand(env),
		newDeleteCommand(env),
		newQueuesCommand(env),
		newBackupCommand(env),
		newCheckCommand(env),
		newSimUpstreamCommand(env),
		newBenchCommand(env),
		newBenchFloorCommand(env),
		newVersionCommand(env),
	)
	return root
}

// getenv is a variable of the environment, "" when it is not set.
func (e *Env) getenv(name string) string {
	for _, pair := range e.Environ {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

// width is how many columns the terminal has: as COLUMNS says, or the terminal
// itself. Where nobody says it is a narrow one, which a bar surely fits.
func (e *Env) width() int {
	if n, err := strconv.Atoi(e.getenv("COLUMNS")); err == nil && n >= 20 {
		return n
	}
	if n := e.Columns(); n > 1 {
		return n
	}
	return 40
}
