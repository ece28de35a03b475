package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

const (
	completionTimeout = time.Second // limits how long the shell is blocked
	maxCompletions    = 100         // number of proposed jobs
)

// completionFunc proposes words to a shell. It prints no errors: a message would disturb
// the command line that a user is typing.
type completionFunc = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// completeQueues proposes the server's queues for the first argument.
func completeQueues(env *Env, o *connection) completionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return completeFromServer(cmd, env, o, prefix, func(ctx context.Context, c *client.Client) (words []string, err error) {
			queues, err := c.Queues(ctx)
			for _, q := range queues {
				words = append(words, q.Name+"\t"+q.Executor)
			}
			return words, err
		})
	}
}

// completeJobs proposes the newest jobs for which wanted returns true; all when wanted is
// nil.
func completeJobs(env *Env, o *connection, wanted func(*client.Job) bool) completionFunc {
	return func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return completeFromServer(cmd, env, o, prefix, func(ctx context.Context, c *client.Client) (words []string, err error) {
			page, err := c.Page(ctx, client.ListOptions{Limit: maxCompletions})
			if err != nil {
				return nil, err
			}
			for i := range page.Jobs {
				if j := &page.Jobs[i]; wanted == nil || wanted(j) {
					words = append(words, j.ID+"\t"+j.Queue+", "+string(j.Status)+", "+formatAge(env.Now().Sub(j.CreatedAt)))
				}
			}
			return words, nil
		})
	}
}

// completeJob proposes jobs for the first argument only.
func completeJob(env *Env, o *connection) completionFunc {
	all := completeJobs(env, o, nil)
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return all(cmd, args, prefix)
	}
}

// completeFromServer calls ask for words, each followed by a tab and a description, and
// returns those that begin with prefix.
func completeFromServer(cmd *cobra.Command, env *Env, o *connection, prefix string, ask func(context.Context, *client.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	// Retries would block the shell for too long.
	c, err := o.newClient(env, client.WithRetries(0))
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), env.CompletionTimeout)
	defer cancel()
	words, err := ask(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var matching []string
	for _, word := range words {
		if strings.HasPrefix(word, prefix) {
			// Names come from the server. Control characters in them would reach the terminal.
			matching = append(matching, printable(word))
		}
	}
	return matching, cobra.ShellCompDirectiveNoFileComp
}

// completeFilters proposes values for the flags --queue and --status.
func completeFilters(env *Env, o *connection, cmd *cobra.Command) {
	queues := completeQueues(env, o)
	completeFlag(cmd, "queue", func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return queues(cmd, nil, prefix)
	})
	completeFlag(cmd, "status", cobra.FixedCompletions([]string{
		"scheduled", "queued", "parked", "running", "succeeded", "failed", "cancelled", "expired",
	}, cobra.ShellCompDirectiveNoFileComp))
}

// completeFlag proposes values for a flag. It panics when the command has no such flag.
func completeFlag(cmd *cobra.Command, flag string, c completionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, c); err != nil {
		panic(err)
	}
}
