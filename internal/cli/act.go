package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

func newCancelCommand(env *Env) *cobra.Command {
	return newActCommand(env, action{
		use: "cancel ID…", short: "Cancel jobs",
		long: `Cancel jobs. A job that waits is cancelled at once; a running one is told to stop
and ends as cancelled within its grace, whether it obeys or not; one that has
ended stays as it is.`,
		do: func(ctx context.Context, c *client.Client, id string) (any, string, error) {
			j, err := c.Cancel(ctx, id)
			if err != nil {
				return nil, "", err
			}
			return j, statusText(j), nil
		},
	})
}

func newRetryCommand(env *Env) *cobra.Command {
	return newActCommand(env, action{
		use: "retry ID…", short: "Run failed, cancelled or expired jobs again",
		long: `Queue failed, cancelled or expired jobs again, with all their attempts.`,
		do: func(ctx context.Context, c *client.Client, id string) (any, string, error) {
			j, err := c.Retry(ctx, id)
			if err != nil {
				return nil, "", err
			}
			return j, statusText(j), nil
		},
	})
}

func newDeleteCommand(env *Env) *cobra.Command {
	type deleted struct {
		ID      string `json:"id"`
		Deleted bool   `json:"deleted"`
	}
	return newActCommand(env, action{
		use: "delete ID…", short: "Delete jobs with all they left",
		long: `Delete jobs with their input, output and result. A running job is cancelled
first. Deleting a job again is no error.`,
		do: func(ctx context.Context, c *client.Client, id string) (any, string, error) {
			return deleted{id, true}, "deleted", c.Delete(ctx, id)
		},
	})
}

// action is something that is done to jobs, one after another.
type action struct {
	use, short, long string
	// do returns the answer as JSON has it, and in words.
	do func(ctx context.Context, c *client.Client, id string) (answer any, words string, err error)
}

func newActCommand(env *Env, a action) *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use: a.use, Short: a.short, Long: a.long,
		Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, ids []string) error { return runAct(cmd.Context(), env, o, a, ids) },
	}
	o.addFlags(cmd)
	return cmd
}

// runAct does it to each job. One that cannot be helped does not keep the others
// from it; the exit status is the first error's.
func runAct(ctx context.Context, env *Env, o connection, a action, ids []string) error {
	c, err := o.open(env)
	if err != nil {
		return err
	}
	defer c.Close()
	var errs []error
	for _, id := range ids {
		answer, words, err := a.do(ctx, c, id)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", id, err))
		case o.json:
			errs = append(errs, printJSON(env.Out, answer))
		default:
			fmt.Fprintf(env.Out, "%s %s\n", printable(id), printable(words))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}
