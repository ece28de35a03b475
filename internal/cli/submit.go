package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

type submitOptions struct {
	connection
	key, idempotencyKey string
	priority            int
	delay               time.Duration
	at                  string
	maxAttempts         int
	timeouts, retry     []string
	metadata            []string
	wait, watch, follow bool
	abandonAfter        time.Duration
	callback            string
	lines               string   // path of a file, or - for standard input
	files               []string // paths of files to submit with the job
}

func newSubmitCommand(env *Env) *cobra.Command {
	var o submitOptions
	cmd := &cobra.Command{
		Use:   "submit QUEUE [INPUT|-]",
		Short: "Submit a job and print its id, or a job for each line of a file",
		Long: `Submit a job and print its id once the job is on the server's disk.

INPUT is JSON. For a queue with the executor llm, such as "chat", it may also be
plain text: the question. With -, and without INPUT when standard input is not a
terminal, it is read from standard input. A job with a --file needs no INPUT; its
input is then null.

--watch prints the output of the job as it comes. --wait prints it at the end, or
the result of a job without text output. An interrupt leaves the job running.

With --lines every line of a file is the INPUT of a separate job. The lines are
sent in batches, and the ids are printed in the order of the lines. While the queue
is full, the command waits and submits again. A refused line is reported on
standard error; the other lines are still submitted. With --idempotency-key KEY the
key of a line is KEY/ and the number of the line, so that the same file can be sent
again after an interrupt.

` + policyHelp(),
		Example: `  meanwhile submit chat "How do tides work?" --watch
  meanwhile submit sim '{"duration_ms": 2000, "tokens": 20}'
  meanwhile submit chat --wait < question.txt > answer.txt
  meanwhile submit ocr --file scan.png --watch
  meanwhile submit sim --lines jobs.jsonl --idempotency-key monday > ids.txt`,
		Args: usageCheck(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.lines != "" {
				return runLines(cmd.Context(), env, o, args)
			}
			return runSubmit(cmd.Context(), env, o, args)
		},
		ValidArgsFunction: completeQueues(env, &o.connection),
	}
	f := cmd.Flags()
	f.BoolVar(&o.watch, "watch", false, "print the output of the job as it comes")
	f.BoolVar(&o.wait, "wait", false, "wait until the job has ended, and print its output or result")
	f.BoolVar(&o.follow, "follow", false, followUsage+"; implies --watch")
	f.StringVar(&o.key, "key", "", "groups jobs for fair order: the keys of a queue take turns")
	f.IntVar(&o.priority, "priority", 0, "1 runs first, 9 last (default 5)")
	f.Func("delay", "do not run the job before this `DURATION` has passed, such as 90s or 2h", func(text string) (err error) {
		o.delay, err = delay(text)
		return err
	})
	f.StringVar(&o.at, "at", "", "do not run the job before this `TIME`, such as 2030-01-31T09:00:00Z")
	f.IntVar(&o.maxAttempts, "max-attempts", 0, "number of failed attempts before the job fails (default: the queue's)")
	f.StringArrayVar(&o.timeouts, "timeout", nil, "set a clock, `NAME=DURATION`; see above")
	f.StringArrayVar(&o.retry, "retry", nil, "set the retry policy, `NAME=VALUE`; see above")
	f.StringArrayVar(&o.metadata, "metadata", nil, "a `NAME=VALUE` to store with the job; up to 16 times")
	f.Func("abandon-after", "cancel the job when no client watched or read it for this `DURATION`; at least 2m, off for never", func(text string) (err error) {
		o.abandonAfter, err = duration(text)
		return err
	})
	f.StringVar(&o.callback, "callback", "", "send the end of the job to this `URL`")
	f.StringVar(&o.lines, "lines", "", "submit a job for each line of this `FILE`, or of standard input: -")
	f.StringArrayVar(&o.files, "file", nil, "the `PATH` of a file to submit with the job; up to 32 times")
	f.StringVar(&o.idempotencyKey, "idempotency-key", "", "a second submission with this key creates no second job")
	o.addFlags(cmd)
	cmd.PreRunE = exclusiveFlags([]string{"delay", "at"}, []string{"wait", "watch"}, []string{"wait", "follow"},
		[]string{"lines", "wait"}, []string{"lines", "watch"}, []string{"lines", "follow"}, []string{"lines", "file"})
	return cmd
}

func runSubmit(ctx context.Context, env *Env, o submitOptions, args []string) error {
	s, err := o.submission(args[0])
	if err != nil {
		return err
	}
	f := newFollower(env, o.connection, o.follow)
	a, err := attach(o.files, f.screen)
	if err != nil {
		return err
	}
	c, err := o.newClient(env, client.WithRetryHook(a.withoutBar(f.serverUnavailable)))
	if err != nil {
		return err
	}
	defer c.Close()
	// A job with files needs no input. Standard input is then not read.
	if len(args) > 1 || len(a.files) == 0 {
		if s.Input, err = readInput(ctx, env, c, args); err != nil {
			return err
		}
	}
	j, err := a.submit(ctx, c, s)
	if err != nil {
		return o.submitError(env, f.screen, err)
	}
	switch {
	case o.watch || o.follow:
		// The id goes to standard error, because standard output is for the job's output.
		if !o.json {
			f.screen.note("%s", j.ID)
		}
		return f.run(ctx, c, j.ID, 0)
	case o.wait:
		return waitAndPrint(ctx, c, j.ID, f)
	case o.json:
		return printJSON(env.Out, j)
	}
	fmt.Fprintln(env.Out, j.ID)
	// A script does not need this hint.
	if env.OutTerminal && env.ErrTerminal {
		fmt.Fprintln(env.Err, wrapText("To watch it: "+o.watchCommand(env, j.ID), env.wrapWidth()))
	}
	return nil
}

// submitError adds to an interrupt that the server may have stored the job.
func (o *submitOptions) submitError(env *Env, s *screen, err error) error {
	if !errors.Is(err, context.Canceled) {
		return err
	}
	s.clear()
	s.note("Interrupted. The job may have been submitted; to see the newest: %s", env.commandText("meanwhile list")+o.flagsText())
	return quiet{err}
}

// readInput reads and parses the input of the job.
func readInput(ctx context.Context, env *Env, c *client.Client, args []string) (json.RawMessage, error) {
	text, err := inputText(env, args[1:])
	if err != nil {
		return nil, err
	}
	inputs := inputReader{c: c, queue: args[0]}
	return inputs.parse(ctx, text)
}

// waitAndPrint waits until a job has ended and prints its output or result.
func waitAndPrint(ctx context.Context, c *client.Client, id string, f *follower) error {
	j, err := c.Wait(ctx, id)
	if err != nil {
		return f.watchError(id, err)
	}
	if f.json {
		return errors.Join(printJSON(f.screen.out, j), quietError(endError(j)))
	}
	f.onlyAtEnd()
	// Without output there are no events to read.
	if f.job = *j; j.Cursor == 0 {
		return f.printEnd(ctx, c)
	}
	return f.run(ctx, c, id, 0)
}

// submission builds the submission from the flags.
func (o *submitOptions) submission(queue string) (client.Submission, error) {
	s := client.Submission{
		Queue: queue, Key: o.key, Priority: o.priority, Delay: o.delay,
		MaxAttempts: o.maxAttempts, IdempotencyKey: o.idempotencyKey, AbandonAfter: o.abandonAfter,
	}
	if o.callback != "" {
		s.Callback = &client.Callback{URL: o.callback}
	}
	var errs [4]error
	if o.at != "" {
		s.RunAt, errs[0] = time.Parse(time.RFC3339, o.at)
	}
	errs[1] = setTimeouts(&s.Timeouts, o.timeouts)
	errs[2] = setRetry(&s.Retry, o.retry)
	s.Metadata, errs[3] = pairs("--metadata", o.metadata)
	if err := errors.Join(errs[:]...); err != nil {
		return s, usageError{err}
	}
	return s, nil
}
