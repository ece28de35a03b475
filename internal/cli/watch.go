package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

const followUsage = "print every attempt as it comes, not only the last"

type watchOptions struct {
	connection
	after  int64
	follow bool
}

func newWatchCommand(env *Env) *cobra.Command {
	var o watchOptions
	cmd := &cobra.Command{
		Use:   "watch ID",
		Short: "Print what a job says until it has ended",
		Long: `Print what a job says until it has ended, from its beginning. A connection that
is lost, also through a restart of the server, is made again, and nothing is
missed or printed twice. An interrupt leaves the job running.

When an attempt fails and another begins, what the first one said no longer
counts. On a terminal words are printed as they come and a line says when that
happens. Elsewhere they are printed once it is sure that they count: when the job
has ended. --follow prints every attempt as it comes in both cases.

A job that says nothing prints its result. Log lines go to standard error. With
--json every event is printed, one a line: snapshot, output, progress, attempt
and done, each with the cursor that --after takes.`,
		Args: usageCheck(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return runWatch(cmd.Context(), env, o, args[0]) },

		ValidArgsFunction: completeJob(env, &o.connection),
	}
	cmd.Flags().Int64Var(&o.after, "after", 0, "begin after the output entry of this `NUMBER`")
	cmd.Flags().BoolVar(&o.follow, "follow", false, followUsage)
	o.addFlags(cmd)
	return cmd
}

func runWatch(ctx context.Context, env *Env, o watchOptions, id string) error {
	if o.after < 0 {
		return usagef("--after takes the number of an output entry, not %d", o.after)
	}
	f := newFollower(env, o.connection, o.follow)
	c, err := o.newClient(env, client.WithRetryHook(f.serverUnavailable))
	if err != nil {
		return err
	}
	defer c.Close()
	return f.run(ctx, c, id, o.after)
}
