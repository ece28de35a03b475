package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
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
		Long: `Show the current state of a job. --wait first waits for its end. --result prints
only the result, byte for byte.

With --wait or --result the exit status says how the job ended.`,
		Args: usageCheck(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return runGet(cmd.Context(), env, o, args[0]) },

		ValidArgsFunction: completeJob(env, &o.connection),
	}
	cmd.Flags().BoolVar(&o.wait, "wait", false, "wait until the job has ended")
	cmd.Flags().BoolVar(&o.result, "result", false, "print the result")
	o.addFlags(cmd)
	cmd.PreRunE = exclusiveFlags([]string{"result", "json"})
	return cmd
}

func runGet(ctx context.Context, env *Env, o getOptions, id string) error {
	c, err := o.newClient(env)
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
		err = printJob(env, j)
	}
	if o.wait {
		err = errors.Join(err, quietError(endError(j)))
	}
	return err
}

func printResult(ctx context.Context, env *Env, c *client.Client, j *client.Job) error {
	// The server would refuse with a conflict. The job's end is a better message.
	if j.Status.Ended() && j.Status != client.Succeeded {
		return endError(j)
	}
	r, err := c.Result(ctx, j.ID)
	if err != nil {
		return err
	}
	// A terminal would execute control characters. A file or a pipe gets the exact bytes.
	if env.OutTerminal {
		_, err = fmt.Fprintln(env.Out, printable(string(r.Body)))
		return err
	}
	_, err = env.Out.Write(r.Body)
	return err
}

// nameColumns are the columns of the longest name of a field, and the space after it.
const nameColumns = len("kept until") + 2

// printJob prints the fields of a job that are set, one per line.
func printJob(env *Env, j *client.Job) error {
	t := tabwriter.NewWriter(env.Out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		value := oneLine(fmt.Sprintf(format, args...), 2000)
		if env.OutTerminal {
			value = strings.ReplaceAll(wrapText(value, env.wrapWidth()-nameColumns), "\n", "\n\t")
		}
		fmt.Fprintf(t, "%s\t%s\n", name, value)
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
		line("time left", "about %s", formatSpan(time.Duration(*j.EstimatedTimeSeconds*float64(time.Second))))
	}
	for _, name := range slices.Sorted(maps.Keys(j.Metadata)) {
		line("metadata", "%s=%s", name, j.Metadata[name])
	}
	for _, at := range jobTimes(j) {
		text(at.name, formatTime(at.time))
	}
	if j.Error != nil {
		line("error", "%s, in attempt %d", failureText(j.Error), j.Error.Attempt)
	}
	text("text", j.OutputText)
	text("result", nonNullText(j.Result))
	text("usage", nonNullText(j.Usage))
	return t.Flush()
}

// statusText returns the status of a job with its queue position or hold reason.
func statusText(j *client.Job) string {
	switch {
	case j.Status == client.Queued && j.QueuePosition != nil:
		return "queued, " + placeText(*j.QueuePosition) + holdText(j)
	case j.HeldBackBy != "":
		return string(j.Status) + holdText(j)
	case j.Status == client.Running && !j.CancelRequestedAt.IsZero():
		return "running, to be cancelled"
	}
	return string(j.Status)
}

// holdText returns the hold reason of a waiting job; "" when the status implies it.
func holdText(j *client.Job) string {
	switch j.HeldBackBy {
	case "", "turn", "delay":
		return ""
	case "resource":
		return ", held back by its model " + j.Resource
	}
	return ", held back by " + string(j.HeldBackBy)
}

type jobTime struct {
	name string
	time time.Time
}

func jobTimes(j *client.Job) []jobTime {
	all := []jobTime{{"created", j.CreatedAt}, {"started", j.StartedAt}, {"finished", j.FinishedAt}, {"kept until", j.ExpiresAt}}
	// RunAt of other jobs is in the past and of no use.
	if j.Status == client.Scheduled {
		all = append(all, jobTime{"runs at", j.RunAt})
	}
	return all
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}

func nonNullText(value []byte) string {
	if string(value) == "null" {
		return ""
	}
	return string(value)
}
