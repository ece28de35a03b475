package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

// action is a command that changes jobs: either the jobs named by id, one after another,
// or all jobs that the flags select.
type action struct {
	use, short, long string
	// do changes one job. It returns the answer for --json and the text for people.
	do func(ctx context.Context, c *client.Client, id string) (answer any, text string, err error)

	// doAll changes all selected jobs and returns their number. changes reports whether
	// the action would change a job; the confirmation counts such jobs.
	doAll    func(c *client.Client, ctx context.Context, f client.Filter) (int, error)
	changes  func(*client.Job) bool
	question string // "Cancel?"
	doneText string // "cancelled", printed after the number of jobs
}

type actionOptions struct {
	connection
	filterFlags
	all, yes bool
}

// selectHelp is the part of the help that all actions share.
const selectHelp = `

Instead of ids, flags can select the jobs: a job must match all of them. --all
selects every job. On a terminal the command counts the jobs and asks before it
changes them. Without a terminal it requires --yes.`

func newActionCommand(env *Env, a action) *cobra.Command {
	var o actionOptions
	cmd := &cobra.Command{
		Use: a.use, Short: a.short, Long: a.long + selectHelp,
		Args: usageCheck(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, ids []string) error {
			if err := o.read(cmd); err != nil {
				return err
			}
			return runAction(cmd.Context(), env, o, a, ids)
		},
		ValidArgsFunction: completeJobs(env, &o.connection, a.changes),
	}
	o.filterFlags.addFlags(env, cmd)
	cmd.Flags().BoolVar(&o.all, "all", false, "all jobs")
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask before the selected jobs are changed")
	o.connection.addFlags(cmd)
	completeFilters(env, &o.connection, cmd)
	return cmd
}

func runAction(ctx context.Context, env *Env, o actionOptions, a action, ids []string) error {
	selected := o.anySet || o.all
	switch {
	case len(ids) > 0 && selected:
		return usagef("give the ids of jobs, or flags that select jobs, not both")
	case o.anySet && o.all:
		return usagef("--all means every job; leave out the other flags, or --all")
	case len(ids) == 0 && !selected:
		return usagef("give the ids of jobs, or select jobs with --queue, --status and other flags, or --all")
	}
	c, err := o.newClient(env)
	if err != nil {
		return err
	}
	defer c.Close()
	if selected {
		return actOnAll(ctx, env, c, o, a)
	}
	return actOnEach(ctx, env, c, o.json, a, ids)
}

// actOnEach changes each job. It goes on after a job that fails. The exit status is that
// of the first error.
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
		// After an interrupt the remaining jobs would all fail with the same error.
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// actOnAll changes all selected jobs and prints their number.
func actOnAll(ctx context.Context, env *Env, c *client.Client, o actionOptions, a action) error {
	f := o.filter
	// The server refuses an empty filter, so a forgotten flag cannot change every job.
	f.All = o.all
	if !o.yes {
		if err := confirm(ctx, env, c, a, f); err != nil {
			return err
		}
	}
	done, err := a.doAll(c, ctx, f)
	// Some jobs may have changed before the error. The user has to know how many.
	if err == nil && done == 0 {
		err = checkQueue(ctx, c, f.Queue)
	}
	if err != nil && done > 0 {
		err = fmt.Errorf("%s %s so far: %w", jobCount(done), a.doneText, err)
	}
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(env.Out, struct {
			Done int `json:"done"`
		}{done})
	}
	fmt.Fprintf(env.Out, "%s %s\n", jobCount(done), a.doneText)
	return nil
}

func jobCount(n int) string {
	if n == 1 {
		return "1 job"
	}
	return fmt.Sprintf("%d jobs", n)
}
