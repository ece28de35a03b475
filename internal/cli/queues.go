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
		Short: "Show the server's queues",
		Long: `Show the server's queues: how their jobs are done, how many wait and run now, how
many ever succeeded and failed, and how long the longest-waiting one has waited.`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return runQueues(cmd.Context(), env, o, args) },
	}
	o.addFlags(cmd)
	return cmd
}

func runQueues(ctx context.Context, env *Env, o connection, args []string) error {
	c, err := o.open(env)
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
	t := newTable(env.Out, "QUEUE", "EXECUTOR", "RUNNING", "QUEUED", "SCHEDULED", "SUCCEEDED", "FAILED", "OLDEST")
	for _, q := range queues {
		err := t.row(q.Name, q.Executor, fmt.Sprintf("%d/%d", q.Counts.Running, q.Concurrency),
			fmt.Sprintf("%d/%d", q.Counts.Queued+q.Counts.Parked, q.Limits.MaxDepth), strconv.FormatInt(q.Counts.Scheduled, 10),
			strconv.FormatInt(q.Totals.Succeeded, 10), strconv.FormatInt(q.Totals.Failed, 10), oldest(&q))
		if err != nil {
			return err
		}
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

func oldest(q *client.Queue) string {
	if q.Counts.Queued == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1fs", q.OldestS)
}
