package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
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
	return finish()
}

// jobPrinter returns a function that prints a job, as JSON or as a row of a table, and one
// that finishes the table.
func jobPrinter(env *Env, asJSON bool) (print func(*client.Job) error, finish func() error) {
	if asJSON {
		return func(j *client.Job) error { return printJSON(env.Out, j) }, func() error { return nil }
	}
	t := newTable(env.Out, "ID", "QUEUE", "STATUS", "ATTEMPT", "PROGRESS", "AGE")
	return func(j *client.Job) error {
		return t.row(j.ID, j.Queue, string(j.Status), attemptText(j.Attempt, "/", j.MaxAttempts),
			progressText(j), formatAge(env.Now().Sub(j.CreatedAt)))
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

// progressText returns the progress of a running job, or the error code of a job that
// ended without success. It ignores the error of an earlier attempt of a waiting job.
func progressText(j *client.Job) string {
	switch {
	case j.Status == client.Running:
		return fmt.Sprintf("%.0f%% %s", j.Progress.Percent, j.Progress.Status)
	case j.Status.Ended() && j.Status != client.Succeeded && j.Error != nil:
		return j.Error.Code
	}
	return "-"
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

// table prints aligned columns. It removes control characters and line breaks from cells.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, head ...string) table {
	t := table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	_ = t.row(head...) // buffered: flush returns the error
	return t
}

func (t table) row(cells ...string) error {
	for i, cell := range cells {
		end := "\t"
		if i == len(cells)-1 {
			end = "\n"
		}
		if _, err := io.WriteString(t.w, oneLine(cell, 48)+end); err != nil {
			return err
		}
	}
	return nil
}

func (t table) flush() error { return t.w.Flush() }
