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

// The exit statuses. They are promised: scripts act on them.
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

// exitTable says what each status means, for help and documentation.
var exitTable = []struct {
	code    int
	meaning string
}{
	{exitOK, "done"},
	{exitError, "something else went wrong; standard error says what"},
	{exitUsage, "the command line, or what it was given to read, is wrong"},
	{exitUnreachable, "the server cannot be reached"},
	{exitNotFound, "there is no such job or queue"},
	{exitFailed, "the job that was waited for failed"},
	{exitCancelled, "the job that was waited for was cancelled, or expired before it ran"},
	{exitFull, "refused for now (429, 503): the queue or the server is full; try again later"},
	{exitInterrupted, "interrupted; a job that was watched goes on"},
}

func exitHelp() string {
	var b strings.Builder
	b.WriteString("Exit status:\n")
	for _, e := range exitTable {
		fmt.Fprintf(&b, "  %-4d %s\n", e.code, e.meaning)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// usageError is what is wrong with a command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// usage makes the errors of a check of arguments usage errors, which show how the
// command is written.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			if !cmd.HasParent() {
				return usageError{err}
			}
			return usagef("it is written '%s'", cmd.UseLine())
		}
		return nil
	}
}

// oneOf refuses flags of which only one of a set may be given.
func oneOf(sets ...[]string) func(*cobra.Command, []string) error {
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

// ended is how a job that was waited for ended, when it did not succeed.
type ended struct{ job *client.Job }

func (e ended) Error() string {
	j := e.job
	switch {
	case j.Status == client.Failed && j.Error != nil:
		return fmt.Sprintf("%s failed in attempt %s: %s (%s)", j.ID, attemptText(j.Error.Attempt, " of ", j.MaxAttempts), j.Error.Message, j.Error.Code)
	case j.Status == client.Expired:
		return j.ID + " expired: it waited longer than it was allowed to"
	case j.Status == client.Cancelled:
		return j.ID + " was cancelled"
	}
	return fmt.Sprintf("%s is %s", j.ID, j.Status)
}

// endError is nil for a job that succeeded.
func endError(j *client.Job) error {
	if j.Status == client.Succeeded {
		return nil
	}
	return ended{j}
}

// exitCode is the one translation of errors to statuses.
func exitCode(err error) int {
	var e ended
	var refused *client.Error
	switch {
	case errors.As(err, new(usageError)):
		return exitUsage
	case errors.As(err, &e) && e.job.Status == client.Failed:
		return exitFailed
	case errors.As(err, &e):
		return exitCancelled
	case errors.As(err, &refused):
		return refusalCode(refused)
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitError
}

func refusalCode(e *client.Error) int {
	switch {
	case e.Code == client.CodeUnreachable:
		return exitUnreachable
	case e.Code == client.CodeNotFound || e.Code == client.CodeUnknownQueue:
		return exitNotFound
	case e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable:
		return exitFull
	}
	return exitError
}

// sentence is what a person is told of an error, with what to do where something
// can be done; "" when all was said before.
func sentence(err error) string {
	var e *client.Error
	switch {
	case errors.As(err, new(quiet)):
		return ""
	case errors.As(err, &e) && e.Code == client.CodeUnreachable:
		return fmt.Sprintf("%s: is 'meanwhile serve' running? (%v)", e.Message, e.Err)
	case errors.As(err, &e) && e.RetryAfter > 0:
		return fmt.Sprintf("%v; try again in %s", err, e.RetryAfter.Round(time.Second))
	case errors.Is(err, context.Canceled) && e == nil:
		return "interrupted"
	}
	return err.Error()
}

// quiet is an error of which everything has been said.
type quiet struct{ error }

func (q quiet) Unwrap() error { return q.error }
