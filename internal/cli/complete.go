package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

const (
	completeTime = time.Second // a shell waits no longer for words
	completeMost = 100         // jobs
)

// completion proposes words to a shell. It is silent when it knows none: whoever
// presses Tab wants no message.
type completion = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// completeQueues proposes the server's queues, once.
func completeQueues(env *Env, o *connection) completion {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return propose(cmd, env, o, begun, func(ctx context.Context, c *client.Client) (words []string, err error) {
			queues, err := c.Queues(ctx)
			for _, q := range queues {
				words = append(words, q.Name+"\t"+q.Executor)
			}
			return words, err
		})
	}
}

// completeJobs proposes the newest jobs that are wanted, all when wanted is nil.
func completeJobs(env *Env, o *connection, wanted func(*client.Job) bool) completion {
	return func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return propose(cmd, env, o, begun, func(ctx context.Context, c *client.Client) (words []string, err error) {
			page, err := c.Page(ctx, client.ListOptions{Limit: completeMost})
			if err != nil {
				return nil, err
			}
			for i := range page.Jobs {
				if j := &page.Jobs[i]; wanted == nil || wanted(j) {
					words = append(words, j.ID+"\t"+j.Queue+", "+string(j.Status)+", "+age(env.Now().Sub(j.CreatedAt)))
				}
			}
			return words, nil
		})
	}
}

// completeJob proposes one job.
func completeJob(env *Env, o *connection) completion {
	all := completeJobs(env, o, nil)
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return all(cmd, args, begun)
	}
}

// propose asks the server for words, each with a tab and what it is, and keeps
// those that go on as was begun.
func propose(cmd *cobra.Command, env *Env, o *connection, begun string, ask func(context.Context, *client.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	c, err := o.open(env, client.WithRetries(0))
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), env.Proposing)
	defer cancel()
	words, err := ask(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var fitting []string
	for _, word := range words {
		if strings.HasPrefix(word, begun) {
			fitting = append(fitting, printable(word))
		}
	}
	return fitting, cobra.ShellCompDirectiveNoFileComp
}

// completeFilters proposes values for the flags that select jobs.
func completeFilters(env *Env, o *connection, cmd *cobra.Command) {
	queues := completeQueues(env, o)
	completeFlag(cmd, "queue", func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return queues(cmd, nil, begun)
	})
	completeFlag(cmd, "status", cobra.FixedCompletions([]string{
		"scheduled", "queued", "parked", "running", "succeeded", "failed", "cancelled", "expired",
	}, cobra.ShellCompDirectiveNoFileComp))
}

// completeFlag proposes a flag's values. A command without the flag is a defect.
func completeFlag(cmd *cobra.Command, flag string, c completion) {
	if err := cmd.RegisterFlagCompletionFunc(flag, c); err != nil {
		panic(err)
	}
}
