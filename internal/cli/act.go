package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

// action is something that is done to jobs: to those that are named, one after
// another, or to all that are selected.
type action struct {
	use, short, long string
	// do returns the answer as JSON has it, and in words.
	do func(ctx context.Context, c *client.Client, id string) (answer any, words string, err error)

	// many does it to all that are selected and says to how many; changes says of which
	// of them it would make something else.
	many     func(c *client.Client, ctx context.Context, f client.Filter) (int, error)
	changes  func(*client.Job) bool
	question string // "Cancel?"
	past     string // "cancelled": what follows their number
}

type actOptions struct {
	connection
	filterFlags
	all, yes bool
}

// selectHelp follows what an action says of itself.
const selectHelp = `

Instead of the jobs' ids, flags may say which jobs are meant: those that all of
them select, or, with --all, every one. On a terminal they are counted and asked
about first; elsewhere --yes says that they are meant.`

func newActCommand(env *Env, a action) *cobra.Command {
	var o actOptions
	cmd := &cobra.Command{
		Use: a.use, Short: a.short, Long: a.long + selectHelp,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, ids []string) error {
			if err := o.read(cmd); err != nil {
				return err
			}
			return runAct(cmd.Context(), env, o, a, ids)
		},
		ValidArgsFunction: completeJobs(env, &o.connection, a.changes),
	}
	o.filterFlags.addFlags(env, cmd)
	cmd.Flags().BoolVar(&o.all, "all", false, "all jobs")
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask before many jobs are changed")
	o.connection.addFlags(cmd)
	completeFilters(env, &o.connection, cmd)
	return cmd
}

func runAct(ctx context.Context, env *Env, o actOptions, a action, ids []string) error {
	selected := o.given || o.all
	switch {
	case len(ids) > 0 && selected:
		return usagef("give the ids of jobs, or say which are meant, not both")
	case o.given && o.all:
		return usagef("--all means every job; leave out the other flags, or --all")
	case len(ids) == 0 && !selected:
		return usagef("give the ids of jobs, or say which are meant: --queue, --status and the like, or --all")
	}
	c, err := o.open(env)
	if err != nil {
		return err
	}
	defer c.Close()
	if selected {
		return actOnMany(ctx, env, c, o, a)
	}
	return actOnEach(ctx, env, c, o.json, a, ids)
}

// actOnEach does it to each job. One that cannot be helped does not keep the others
// from it; the exit status is the first error's.
func actOnEach(ctx context.Context, env *Env, c *client.Client, asJSON bool, a action, ids []string) error {
	var errs []error
	for _, id := range ids {
		answer, words, err := a.do(ctx, c, id)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", id, err))
		case asJSON:
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

// actOnMany does it to all that are selected, and prints to how many.
func actOnMany(ctx context.Context, env *Env, c *client.Client, o actOptions, a action) error {
	f := o.filter
	f.All = o.all
	if !o.yes {
		if err := confirm(ctx, env, c, a, f); err != nil {
			return err
		}
	}
	done, err := a.many(c, ctx, f)
	if err != nil && done > 0 {
		err = fmt.Errorf("%s %s so far: %w", jobCount(done), a.past, err)
	}
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(env.Out, struct {
			Done int `json:"done"`
		}{done})
	}
	fmt.Fprintf(env.Out, "%s %s\n", jobCount(done), a.past)
	return nil
}

func jobCount(n int) string {
	if n == 1 {
		return "1 job"
	}
	return fmt.Sprintf("%d jobs", n)
}
