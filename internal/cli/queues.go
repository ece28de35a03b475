package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

func newQueuesCommand(env *Env) *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use:   "queues [NAME]",
		Short: "Show, pause and resume the server's queues",
		Long: `Show the server's queues: the executor, the numbers of running, queued, parked and
scheduled jobs, the totals of succeeded and failed jobs, and how long the oldest
queued job has waited. A parked job waits until its key has fewer running jobs.`,
		Args: usageCheck(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return runQueues(cmd.Context(), env, o, args) },

		ValidArgsFunction: completeQueues(env, &o),
	}
	o.addFlags(cmd)
	cmd.AddCommand(
		newPauseCommand(env, "pause", "Stop a queue from giving jobs to workers", `Stop a queue from giving jobs to workers until it is resumed, also across restarts
of the server. Running jobs continue, and the queue accepts new jobs.`, (*client.Client).Pause),
		newPauseCommand(env, "resume", "Resume a paused queue", "Let a paused queue give jobs to workers again.", (*client.Client).Resume),
	)
	return cmd
}

// newPauseCommand makes the command 'pause' or 'resume'.
func newPauseCommand(env *Env, name, short, long string, do func(*client.Client, context.Context, string) (*client.Queue, error)) *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use: name + " NAME", Short: short, Long: long,
		Args: usageCheck(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.newClient(env)
			if err != nil {
				return err
			}
			defer c.Close()
			q, err := do(c, cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return printQueueState(env, o.json, q)
		},
		ValidArgsFunction: completeQueues(env, &o),
	}
	o.addFlags(cmd)
	return cmd
}

func printQueueState(env *Env, asJSON bool, q *client.Queue) error {
	if asJSON {
		return printJSON(env.Out, q)
	}
	state := "is resumed"
	if q.Paused {
		state = "is paused"
	}
	_, err := fmt.Fprintf(env.Out, "%s %s\n", printable(q.Name), state)
	return err
}

func runQueues(ctx context.Context, env *Env, o connection, args []string) error {
	c, err := o.newClient(env)
	if err != nil {
		return err
	}
	defer c.Close()
	queues, err := findQueues(ctx, c, args)
	if err != nil {
		return err
	}
	if o.json {
		for _, q := range queues {
			if err := printJSON(env.Out, q); err != nil {
				return err
			}
		}
		return nil
	}
	t := newTable(env, "QUEUE", "EXECUTOR", "RUNNING", "QUEUED", "PARKED", "SCHEDULED", "SUCCEEDED", "FAILED", "OLDEST")
	for _, q := range queues {
		t.row(queueLabel(&q), q.Executor, fmt.Sprintf("%d/%d", q.Counts.Running, q.Concurrency),
			fmt.Sprintf("%d/%d", q.Counts.Queued, q.Limits.MaxDepth), strconv.FormatInt(q.Counts.Parked, 10), strconv.FormatInt(q.Counts.Scheduled, 10),
			strconv.FormatInt(q.Totals.Succeeded, 10), strconv.FormatInt(q.Totals.Failed, 10), oldest(&q))
	}
	return t.flush()
}

func findQueues(ctx context.Context, c *client.Client, names []string) ([]client.Queue, error) {
	if len(names) == 0 {
		return c.Queues(ctx)
	}
	q, err := c.Queue(ctx, names[0])
	if err != nil {
		return nil, err
	}
	return []client.Queue{*q}, nil
}

// queueLabel returns the name of a queue, marked when it is paused or not configured.
func queueLabel(q *client.Queue) string {
	switch {
	case !q.Configured:
		return q.Name + " (not configured)"
	case q.Paused:
		return q.Name + " (paused)"
	}
	return q.Name
}

func oldest(q *client.Queue) string {
	if q.Counts.Queued == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1fs", q.OldestQueuedS)
}
