package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

type listOptions struct {
	connection
	filterFlags
	limit int
	all   bool
}

func newListCommand(env *Env) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List jobs, newest first",
		Args:  usageCheck(cobra.NoArgs),
	}
	f := cmd.Flags()
	o.filterFlags.addFlags(env, cmd)
	f.IntVar(&o.limit, "limit", 20, "maximum number of jobs")
	f.BoolVar(&o.all, "all", false, "all jobs")
	o.connection.addFlags(cmd)
	completeFilters(env, &o.connection, cmd)
	cmd.PreRunE = exclusiveFlags([]string{"limit", "all"})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.read(cmd); err != nil {
			return err
		}
		return runList(cmd.Context(), env, o)
	}
	return cmd
}

func runList(ctx context.Context, env *Env, o listOptions) error {
	if o.limit < 1 {
		return usagef("--limit must be at least 1; --all lists all jobs")
	}
	c, err := o.newClient(env)
	if err != nil {
		return err
	}
	defer c.Close()
	// The largest page needs the fewest requests. A smaller limit needs no larger page.
	options := client.ListOptions{Filter: o.filter, Limit: 100}
	if !o.all {
		options.Limit = min(o.limit, 100)
	}
	print, finish := jobPrinter(env, o.json)
	n := 0
	for j, err := range c.List(ctx, options) {
		if err == nil {
			err = print(&j)
		}
		if err != nil {
			return err
		}
		if n++; n == o.limit && !o.all {
			break
		}
	}
	if n == 0 {
		// A misspelt name would look like a queue without jobs.
		if err := checkQueue(ctx, c, o.filter.Queue); err != nil {
			return err
		}
	}
	return finish()
}

// checkQueue returns the error of the server, which lists the queues, if there is no queue of
// this name. "" is no name. A queue that is no longer configured may still have jobs, so it is
// called only when none was found.
func checkQueue(ctx context.Context, c *client.Client, name string) error {
	if name == "" {
		return nil
	}
	_, err := c.Queue(ctx, name)
	return err
}

// jobPrinter returns a function that prints a job, as JSON or as a row of a table, and one
// that finishes the table.
func jobPrinter(env *Env, asJSON bool) (print func(*client.Job) error, finish func() error) {
	if asJSON {
		return func(j *client.Job) error { return printJSON(env.Out, j) }, func() error { return nil }
	}
	t := newTable(env, "ID", "QUEUE", "STATUS", "ATTEMPT", "PROGRESS", "AGE")
	return func(j *client.Job) error {
		now := env.Now()
		t.row(j.ID, j.Queue, string(j.Status), attemptText(j.Attempt, "/", j.MaxAttempts), progressText(j, now), formatAge(now.Sub(j.CreatedAt)))
		t.colour(2, statusColour(j.Status))
		return nil
	}, t.flush
}

// attemptText returns the number of an attempt and the maximum of failed attempts. Lost
// attempts do not count as failed, so that the number can exceed the maximum; then it
// returns only the number.
func attemptText(attempt int, of string, failures int) string {
	if attempt > failures {
		return strconv.Itoa(attempt)
	}
	return strconv.Itoa(attempt) + of + strconv.Itoa(failures)
}

// progressText returns the progress of a running job, the error code of a job that ended
// without success, or why a waiting job has to be tried again.
func progressText(j *client.Job, now time.Time) string {
	switch {
	case j.Status == client.Running:
		return fmt.Sprintf("%.0f%% %s", j.Progress.Percent, j.Progress.Status)
	case j.Status == client.Succeeded || j.Error == nil:
		return "-"
	case j.Status.Ended():
		return j.Error.Code
	}
	text := "Waiting to try again: " + j.Error.Code
	if j.Status == client.Scheduled {
		text += ", in " + formatSpan(j.RunAt.Sub(now))
	}
	return text
}

// statusColour returns the colour of a status; "" for none.
func statusColour(s client.Status) string {
	switch s {
	case client.Running:
		return cyan
	case client.Succeeded:
		return green
	case client.Failed:
		return red
	case client.Cancelled, client.Expired:
		return yellow
	}
	return ""
}

// formatAge formats a duration in one unit.
func formatAge(d time.Duration) string {
	switch {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}
