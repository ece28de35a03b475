package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

// The exit statuses. Scripts depend on them: they must not change.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitNotFound    = 4
	exitFailed      = 5
	exitCancelled   = 6
	exitFull        = 7
	exitInterrupted = 130
)

// exitTable explains each status, for the help and the documentation.
var exitTable = []struct {
	code    int
	meaning string
}{
	{exitOK, "done"},
	{exitError, "any other error; standard error has the message"},
	{exitUsage, "the command line or its input is wrong"},
	{exitUnreachable, "the server cannot be reached"},
	{exitNotFound, "the job or queue does not exist"},
	{exitFailed, "the awaited job failed"},
	{exitCancelled, "the awaited job was cancelled, or expired before it ran"},
	{exitFull, "the queue or the server is full (429, 503); try again later"},
	{exitInterrupted, "interrupted; a watched job continues"},
}

func exitHelp() string {
	var b strings.Builder
	b.WriteString("Exit status:\n")
	for _, e := range exitTable {
		fmt.Fprintf(&b, "  %-4d %s\n", e.code, e.meaning)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// usageError is an error in the command line or its input.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// usageCheck converts the errors of an argument check to usage errors that show the syntax
// of the command.
func usageCheck(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			// The root command has arguments only if the command is unknown. Cobra's message
			// names it.
			if !cmd.HasParent() {
				return usageError{err}
			}
			return usagef("use '%s'", cmd.UseLine())
		}
		// As by "$ID" where the shell has no such variable.
		if len(args) > 0 && args[0] == "" {
			return usagef("the first argument is empty; use '%s'", cmd.UseLine())
		}
		return nil
	}
}

// exclusiveFlags refuses a command line with two flags of one set.
func exclusiveFlags(sets ...[]string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		for _, names := range sets {
			given := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !cmd.Flags().Changed(name) })
			if len(given) > 1 {
				return usagef("give one of --%s, not both", strings.Join(given, " and --"))
			}
		}
		return nil
	}
}

// jobError describes the end of a job that did not succeed.
type jobError struct{ job *client.Job }

func (e jobError) Error() string {
	j := e.job
	switch {
	case j.Status == client.Failed && j.Error != nil:
		return fmt.Sprintf("%s failed in attempt %s: %s", j.ID, attemptText(j.Error.Attempt, " of ", j.MaxAttempts), failureText(j.Error))
	case j.Status == client.Expired:
		return j.ID + " expired: it waited longer than it was allowed to"
	case j.Status == client.Cancelled:
		return j.ID + " was cancelled"
	}
	return fmt.Sprintf("%s is %s", j.ID, j.Status)
}

// endError returns nil for a job that succeeded, and a jobError for any other.
func endError(j *client.Job) error {
	if j.Status == client.Succeeded {
		return nil
	}
	return jobError{j}
}

// exitCode translates every error to an exit status. No other code does so.
func exitCode(err error) int {
	var e jobError
	var refused *client.Error
	switch {
	// Usage errors come first: they may wrap any other error.
	case errors.As(err, new(usageError)):
		return exitUsage
	case errors.As(err, &e) && e.job.Status == client.Failed:
		return exitFailed
	case errors.As(err, &e):
		return exitCancelled
	case errors.As(err, &refused):
		return refusalExitCode(refused)
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitError
}

func refusalExitCode(e *client.Error) int {
	switch {
	case e.Code == client.CodeUnreachable:
		return exitUnreachable
	case e.Code == client.CodeInvalid || e.Code == client.CodeTooLarge || e.Code == client.CodeIdempotencyMismatch:
		return exitUsage // the server found what is wrong with the command line or its input
	case e.Code == client.CodeNotFound || e.Code == client.CodeUnknownQueue:
		return exitNotFound
	case e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable:
		return exitFull
	}
	return exitError
}

// errorText returns the message for an error, with advice for some errors. It returns "" for
// an error that was already printed.
func (e *Env) errorText(err error) string {
	var refusal *client.Error
	switch {
	case errors.As(err, new(quiet)):
		return ""
	case errors.As(err, &refusal) && refusal.Code == client.CodeUnreachable:
		return fmt.Sprintf("%s: is '%s' running? (%v)", refusal.Message, e.commandText("meanwhile serve"), refusal.Err)
	case errors.As(err, &refusal) && refusal.RetryAfter > 0:
		return fmt.Sprintf("%v; try again in %s", err, refusal.RetryAfter.Round(time.Second))
	case errors.Is(err, context.Canceled) && refusal == nil:
		// If the chain has an error of the client, its message is better.
		return "interrupted"
	}
	return err.Error()
}

// quiet is an error that was already printed. It only sets the exit status.
type quiet struct{ error }

func (q quiet) Unwrap() error { return q.error }
