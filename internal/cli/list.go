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
		Args:  usage(cobra.NoArgs),
	}
	f := cmd.Flags()
	o.filterFlags.addFlags(env, cmd)
	f.IntVar(&o.limit, "limit", 20, "at most so many")
	f.BoolVar(&o.all, "all", false, "all of them")
	o.connection.addFlags(cmd)
	completeFilters(env, &o.connection, cmd)
	cmd.PreRunE = oneOf([]string{"limit", "all"})
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
		return usagef("--limit is at least 1; --all lists all")
	}
	c, err := o.open(env)
	if err != nil {
		return err
	}
	defer c.Close()
	asked := client.ListOptions{Filter: o.filter, Limit: 100}
	if !o.all {
		asked.Limit = min(o.limit, 100)
	}
	print, finish := jobPrinter(env, o.json)
	n := 0
	for j, err := range c.List(ctx, asked) {
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

// jobPrinter prints jobs as they come: as JSON, or as a table that finish ends.
func jobPrinter(env *Env, asJSON bool) (print func(*client.Job) error, finish func() error) {
	if asJSON {
		return func(j *client.Job) error { return printJSON(env.Out, j) }, func() error { return nil }
	}
	t := newTable(env.Out, "ID", "QUEUE", "STATUS", "ATTEMPT", "PROGRESS", "AGE")
	return func(j *client.Job) error {
		return t.row(j.ID, j.Queue, string(j.Status), attemptText(j.Attempt, "/", j.MaxAttempts),
			progressText(j), age(env.Now().Sub(j.CreatedAt)))
	}, t.flush
}

// attemptText is an attempt's number and how often the job may fail. The number passes
// that when attempts were lost: then it stands alone.
func attemptText(attempt int, of string, failures int) string {
	if attempt > failures {
		return strconv.Itoa(attempt)
	}
	return strconv.Itoa(attempt) + of + strconv.Itoa(failures)
}

// progressText is how far a job is that runs, or why it ended without success. Why
// an earlier attempt failed is no news of one that is to run again.
func progressText(j *client.Job) string {
	switch {
	case j.Status == client.Running:
		return fmt.Sprintf("%.0f%% %s", j.Progress.Percent, j.Progress.Status)
	case j.Status.Ended() && j.Status != client.Succeeded && j.Error != nil:
		return j.Error.Code
	}
	return "-"
}

// age is a duration as people say it, to one unit.
func age(d time.Duration) string {
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

// table aligns columns. Its cells are printable and on one line.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, head ...string) table {
	t := table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	_ = t.row(head...) // into memory; flush has the error
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
