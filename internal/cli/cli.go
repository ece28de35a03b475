// Package cli is the command line. Each command has its own file with three parts:
// newXCommand defines the command, a struct holds its options, and runX runs it.
//
// Answers go to standard output, messages to standard error. A command is a value that
// tests run with their own [Env]. Only [Main] reads the state of the process.
package cli

import (
	"cmp"
	"context"
	"errors"
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

// Env is the environment of a command.
type Env struct {
	In                io.Reader
	Out, Err          io.Writer
	InTerminal        bool // whether In is a terminal: then a person would have to type the input
	OutTerminal       bool
	ErrTerminal       bool
	Columns           func() int       // current width of the terminal in columns; 0 when unknown
	RedrawEvery       time.Duration    // how often the line about a watched job is drawn again; 0 for only when the job changes
	Program           string           // how the user calls the program, for commands to copy; "" for meanwhile
	Environ           []string         // as returned by os.Environ
	Now               func() time.Time // current time, for the age of jobs
	CompletionTimeout time.Duration    // how long a shell completion waits for the server
}

// Main runs the command line of the process and returns its exit status. The first
// interrupt stops the command in good order, the second one ends the process.
func Main() int {
	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer release()
	context.AfterFunc(ctx, release) // the second signal then has its default effect
	env := &Env{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		InTerminal: isTerminal(os.Stdin), OutTerminal: isTerminal(os.Stdout), ErrTerminal: isTerminal(os.Stderr),
		Columns: func() int { return cmp.Or(columns(os.Stderr), columns(os.Stdout)) },
		Environ: os.Environ(), Now: time.Now, CompletionTimeout: completionTimeout, RedrawEvery: redrawEvery,
		Program: programName(os.Args[0]),
	}
	return Run(ctx, env, os.Args[1:])
}

// Run runs one command line and returns its exit status.
func Run(ctx context.Context, env *Env, args []string) int {
	root := NewRoot(env)
	root.SetArgs(append([]string{}, args...)) // with nil, cobra would read os.Args
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(err)
	if text := env.errorText(err); text != "" {
		env.printError(text)
	}
	// The command's help shows the correct usage. After other errors, also those that the
	// server has found, it would not help.
	if errors.As(err, new(usageError)) {
		fmt.Fprintf(env.Err, "See '%s --help'.\n", env.commandText(cmd.CommandPath()))
	}
	return code
}

// printError prints an error on standard error.
func (e *Env) printError(text string) {
	text = printable("meanwhile: " + text)
	if e.ErrTerminal {
		text = wrapText(text, e.wrapWidth())
	}
	if rest, ok := strings.CutPrefix(text, "meanwhile:"); ok {
		text = e.styleFor(e.ErrTerminal).paint(red, "meanwhile:") + rest
	}
	fmt.Fprintln(e.Err, text)
}

// NewRoot makes the root command with all other commands.
func NewRoot(env *Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "meanwhile",
		Short: "Run slow work in the background and watch it from anywhere",
		Long: `Meanwhile runs slow work for an application. It stores each request on disk, answers
at once with an id, runs the work in the background, and lets anyone watch it.

  meanwhile serve                                        run a server
  meanwhile submit chat "How do tides work?" --watch     ask it something

` + exitHelp(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          usageCheck(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	// Errors in flags are usage errors too, and have their exit status.
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
		newMigrateCommand(env),
		newMoveCommand(env),
		newKeyCommand(env),
		newTenantCommand(env),
		newRotateKeyCommand(env),
		newListenCommand(env),
		newEncryptionCommand(env),
		newSimUpstreamCommand(env),
		newBenchCommand(env),
		newBenchFloorCommand(env),
		newVersionCommand(env),
	)
	if width := env.wrapWidth(); env.OutTerminal && width > 0 {
		wrapHelp(root, width)
	}
	return root
}

// wrapHelp breaks the lines of all help for a terminal of this width.
func wrapHelp(cmd *cobra.Command, width int) {
	cmd.Long = wrapText(cmd.Long, width)
	if !cmd.HasParent() { // the others inherit it
		cmd.SetUsageTemplate(strings.ReplaceAll(cmd.UsageTemplate(), ".FlagUsages", fmt.Sprintf(".FlagUsagesWrapped %d", width)))
	}
	for _, sub := range cmd.Commands() {
		wrapHelp(sub, width)
	}
}

// getenv returns a variable of the environment; "" when it is not set.
func (e *Env) getenv(name string) string {
	for _, pair := range e.Environ {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

// wrapWidth returns the number of columns after which lines of a terminal are broken; 0 when
// it is unknown.
func (e *Env) wrapWidth() int {
	if n, err := strconv.Atoi(e.getenv("COLUMNS")); err == nil && n >= 20 {
		return n
	}
	return e.Columns()
}

// terminalWidth returns the number of columns: from COLUMNS, or from the terminal. When
// both are unknown it returns 40, so that a progress bar fits any terminal.
func (e *Env) terminalWidth() int {
	if n := e.wrapWidth(); n > 1 {
		return n
	}
	return 40
}
