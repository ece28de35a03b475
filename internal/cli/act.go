package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

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
