package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

func newCancelCommand(env *Env) *cobra.Command {
	return newActionCommand(env, action{
		use: "cancel [ID…]", short: "Cancel jobs",
		long: `Cancel jobs. A waiting job is cancelled at once. A running job is asked to stop and
is cancelled at the end of its grace time at the latest. A job that has ended does
not change.`,
		do: func(ctx context.Context, c *client.Client, id string) (any, string, error) {
			j, err := c.Cancel(ctx, id)
			if err != nil {
				return nil, "", err
			}
			return j, statusText(j), nil
		},
		question: "Cancel?", doneText: "cancelled, or asked to stop", doAll: (*client.Client).CancelAll,
		changes: func(j *client.Job) bool { return !j.Status.Ended() && j.CancelRequestedAt.IsZero() },
	})
}
