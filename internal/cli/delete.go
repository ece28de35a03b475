package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

func newDeleteCommand(env *Env) *cobra.Command {
	type deleted struct {
		ID      string `json:"id"`
		Deleted bool   `json:"deleted"`
	}
	return newActionCommand(env, action{
		use: "delete [ID…]", short: "Delete jobs with their input, output and result",
		long: `Delete jobs with their input, output and result. A running job is cancelled
first. Deleting a job again is no error.`,
		do: func(ctx context.Context, c *client.Client, id string) (any, string, error) {
			return deleted{id, true}, "deleted", c.Delete(ctx, id)
		},
		question: "Delete?", doneText: "deleted", doAll: (*client.Client).DeleteAll,
		changes: func(*client.Job) bool { return true },
	})
}
