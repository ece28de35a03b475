package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

type getOptions struct {
	connection
	wait, result bool
}

func newGetCommand(env *Env) *cobra.Command {
	var o getOptions
	cmd := &cobra.Command{
		Use:   "get ID",
		Short: "Show a job",
		Long: `Show a job as it is now, or, with --wait, as it ended. With --result its result is
printed and nothing else, byte for byte.

With --wait or --result the exit status says how the job ended.`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return runGet(cmd.Context(), env, o, args[0]) },

		ValidArgsFunction: completeJob(env, &o.connection),
	}
	cmd.Flags().BoolVar(&o.wait, "wait", false, "wait until the job has ended")
	cmd.Flags().BoolVar(&o.result, "result", false, "print the result")
	o.addFlags(cmd)
	cmd.PreRunE = oneOf([]string{"result", "json"})
	return cmd
}

func runGet(ctx context.Context, env *Env, o getOptions, id string) error {
	c, err := o.open(env)
	if err != nil {
		return err
	}
	defer c.Close()
	get := c.Get
	if o.wait {
		get = c.Wait
	}
	j, err := get(ctx, id)
	if err != nil {
		return err
	}
	switch {
	case o.result:
		return printResult(ctx, env, c, j)
	case o.json:
		err = printJSON(env.Out, j)
	default:
		err = printJob(env.Out, j)
	}
	if o.wait {
		err = errors.Join(err, quietly(endError(j)))
	}
	return err
}

func printResult(ctx context.Context, env *Env, c *client.Client, j *client.Job) error {
	if j.Status.Ended() && j.Status != client.Succeeded {
		return endError(j)
	}
	r, err := c.Result(ctx, j.ID)
	if err != nil {
		return err
	}
	if env.OutTerminal {
		_, err = fmt.Fprintln(env.Out, printable(string(r.Body)))
		return err
	}
	_, err = env.Out.Write(r.Body)
	return err
}

// printJob shows what there is of a job, a line for each thing.
func printJob(w io.Writer, j *client.Job) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, oneLine(fmt.Sprintf(format, args...), 2000))
	}
	text := func(name, value string) {
		if value != "" {
			line(name, "%s", value)
		}
	}
	line("id", "%s", j.ID)
	line("queue", "%s", j.Queue)
	line("status", "%s", statusText(j))
	text("key", j.Key)
	line("priority", "%d", j.Priority)
	line("attempt", "%s", attemptText(j.Attempt, " of ", j.MaxAttempts))
	if j.Status == client.Running {
		line("progress", "%.0f%% %s", j.Progress.Percent, j.Progress.Status)
	}
	if j.EstimatedTimeSeconds != nil {
		line("time left", "about %.1f s", *j.EstimatedTimeSeconds)
	}
	for _, name := range slices.Sorted(maps.Keys(j.Metadata)) {
		line("metadata", "%s=%s", name, j.Metadata[name])
	}
	for _, at := range moments(j) {
		text(at.name, clockText(at.time))
	}
	if j.Error != nil {
		line("error", "%s (%s), in attempt %d", j.Error.Message, j.Error.Code, j.Error.Attempt)
	}
	text("text", j.OutputText)
	text("result", notNull(j.Result))
	text("usage", notNull(j.Usage))
	return t.Flush()
}

// statusText is a job's status with what is known beside it.
func statusText(j *client.Job) string {
	switch {
	case j.Status == client.Queued && j.QueuePosition != nil:
		return fmt.Sprintf("queued, %d before it", *j.QueuePosition) + heldBack(j)
	case j.HeldBackBy != "":
		return string(j.Status) + heldBack(j)
	case j.Status == client.Running && !j.CancelRequestedAt.IsZero():
		return "running, to be cancelled"
	}
	return string(j.Status)
}

// heldBack is what holds a waiting job back, if its status does not say so.
func heldBack(j *client.Job) string {
	switch j.HeldBackBy {
	case "", "turn", "delay":
		return ""
	}
	return ", held back by " + string(j.HeldBackBy)
}

type moment struct {
	name string
	time time.Time
}

func moments(j *client.Job) []moment {
	all := []moment{{"created", j.CreatedAt}, {"started", j.StartedAt}, {"finished", j.FinishedAt}, {"kept until", j.ExpiresAt}}
	if j.Status == client.Scheduled {
		all = append(all, moment{"runs at", j.RunAt})
	}
	return all
}

func clockText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}

func notNull(value []byte) string {
	if string(value) == "null" {
		return ""
	}
	return string(value)
}
