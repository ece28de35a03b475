package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

const followUsage = "print every attempt as it comes, not only the last one"

type watchOptions struct {
	connection
	after  int64
	follow bool
}

func newWatchCommand(env *Env) *cobra.Command {
	var o watchOptions
	cmd := &cobra.Command{
		Use:   "watch ID",
		Short: "Print the output of a job until it has ended",
		Long: `Print the output of a job from its beginning until the job has ended. When the
connection is lost, also by a restart of the server, the command connects again. It
misses no output and prints none twice. An interrupt leaves the job running.

When an attempt fails and another begins, the output of the first one no longer
counts. On a terminal output is printed as it comes, with a note when an attempt
begins. Elsewhere it is printed when the job has ended, so that it is the output of
the last attempt only. --follow prints every attempt as it comes in both cases.

For a job without text output the command prints the result. Log lines go to
standard error. --json prints every event, one per line: snapshot, output,
progress, attempt and done, each with a cursor for --after.`,
		Args: usageCheck(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return runWatch(cmd.Context(), env, o, args[0]) },

		ValidArgsFunction: completeJob(env, &o.connection),
	}
	cmd.Flags().Int64Var(&o.after, "after", 0, "start after the output entry with this `NUMBER`")
	cmd.Flags().BoolVar(&o.follow, "follow", false, followUsage)
	o.addFlags(cmd)
	return cmd
}

func runWatch(ctx context.Context, env *Env, o watchOptions, id string) error {
	if o.after < 0 {
		return usagef("--after takes the number of an output entry, not %d", o.after)
	}
	// The follower comes first: its retry hook is an option of the client.
	f := newFollower(env, o.connection, o.follow)
	c, err := o.newClient(env, client.WithRetryHook(f.serverUnavailable))
	if err != nil {
		return err
	}
	defer c.Close()
	return f.run(ctx, c, id, o.after)
}
