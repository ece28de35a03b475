package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

func newRetryCommand(env *Env) *cobra.Command {
	return newActionCommand(env, action{
		use: "retry [ID…]", short: "Run failed, cancelled or expired jobs again",
		long: `Queue failed, cancelled or expired jobs again, with a new set of attempts.`,
		do: func(ctx context.Context, c *client.Client, id string) (any, string, error) {
			j, err := c.Retry(ctx, id)
			if err != nil {
				return nil, "", err
			}
			return j, statusText(j), nil
		},
		question: "Run again?", doneText: "to run again", doAll: (*client.Client).RetryAll,
		changes: func(j *client.Job) bool { return j.Status.Ended() && j.Status != client.Succeeded },
	})
}
