package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// The limits of a batch.
const (
	batchLines = 100
	batchBytes = 4 << 20
)

// runLines submits a job for each line of the input.
func runLines(ctx context.Context, env *Env, o submitOptions, args []string) error {
	if len(args) > 1 {
		return usagef("give an input, or --lines, not both")
	}
	s, err := o.submission(args[0])
	if err != nil {
		return err
	}
	in, err := openLines(env, o.lines)
	if err != nil {
		return err
	}
	defer in.Close()
	c, err := o.newClient(env)
	if err != nil {
		return err
	}
	defer c.Close()
	f := &lineSubmitter{env: env, c: c, json: o.json, common: s, inputs: inputReader{c: c, queue: s.Queue}}
	if err := f.submitAll(ctx, in); err != nil {
		f.reportPartial()
		return err
	}
	f.showCount("\n")
	return quietError(f.firstErr)
}

func openLines(env *Env, name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(env.In), nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, usageError{err}
	}
	return file, nil
}

// lineSubmitter submits lines in batches. One goroutine uses it.
type lineSubmitter struct {
	env    *Env
	c      *client.Client
	json   bool
	common client.Submission // the fields that all jobs share
	inputs inputReader

	read         int // number of lines
	batch        []line
	bytes        int // size of the batch
	submitted    int
	waitReported bool  // whether the user has seen that the queue is full
	firstErr     error // the first refusal; it sets the exit status
}

// line is one line of the input and the outcome of its submission.
type line struct {
	number     int
	submission client.Submission
	job        *client.Job // set when the job is stored
	err        error       // set when the line is invalid or refused
}

// submitAll submits every line that is not empty. It returns an error when it stops early.
func (f *lineSubmitter) submitAll(ctx context.Context, in io.Reader) error {
	lines := bufio.NewScanner(in)
	// The default limit of a line is 64 KiB, less than an input may have.
	lines.Buffer(make([]byte, 0, 64<<10), maxInput+1)
	for lines.Scan() {
		f.read++
		text := lines.Bytes()
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		// A line that is longer than a batch is submitted alone.
		if len(f.batch) == batchLines || f.bytes+len(text) > batchBytes && len(f.batch) > 0 {
			if err := f.flush(ctx); err != nil {
				return err
			}
		}
		if err := f.add(ctx, bytes.Clone(text)); err != nil {
			return err
		}
	}
	// The lines before the long one are valid and must not be lost.
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return errors.Join(f.flush(ctx), usagef("line %d is longer than 32 MiB", f.read+1))
	} else if err != nil {
		return fmt.Errorf("the lines cannot be read: %w", err)
	}
	return f.flush(ctx)
}

// add adds a line to the batch. It also adds an invalid line, so that its error is printed
// in the order of the lines.
func (f *lineSubmitter) add(ctx context.Context, text []byte) error {
	l := line{number: f.read, submission: f.common}
	var input json.RawMessage
	if input, l.err = f.inputs.parse(ctx, text); l.err != nil && !errors.As(l.err, new(usageError)) {
		return l.err // the request failed, not this line: it would fail for every line
	}
	l.submission.Input = input
	// The line number makes the key unique. Submitting the same file again gives the same
	// keys.
	if f.common.IdempotencyKey != "" {
		l.submission.IdempotencyKey = fmt.Sprintf("%s/%d", f.common.IdempotencyKey, f.read)
	}
	f.batch = append(f.batch, l)
	f.bytes += len(input)
	return nil
}

// flush submits the batch. While the queue is full it waits and submits the rest again.
func (f *lineSubmitter) flush(ctx context.Context) error {
	for {
		wait, err := f.submitBatch(ctx)
		if err != nil {
			return err
		}
		if wait == 0 {
			break
		}
		if !f.waitReported {
			f.waitReported = true
			f.showCount("\n")
			fmt.Fprintln(f.env.Err, "The queue is full; waiting to submit more jobs.")
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := f.flushResults()
	f.showCount("")
	return err
}

// submitBatch submits the lines of the batch that have no outcome yet. wait is the time
// until a retry when the queue is full; 0 when every line has an outcome.
func (f *lineSubmitter) submitBatch(ctx context.Context) (wait time.Duration, err error) {
	var rest []*line
	var b client.Batch
	for i := range f.batch {
		if l := &f.batch[i]; l.job == nil && l.err == nil {
			rest, b.Jobs = append(rest, l), append(b.Jobs, l.submission)
		}
	}
	if len(rest) == 0 {
		return 0, nil
	}
	results, err := f.c.SubmitBatch(ctx, b)
	if err != nil {
		return 0, err
	}
	for i, s := range results {
		switch {
		case s.Err == nil:
			rest[i].job = s.Job
			f.submitted++
		case refusalExitCode(s.Err) == exitFull:
			// A temporary refusal: the line keeps no outcome and is submitted again.
			wait = max(wait, s.Err.RetryAfter, time.Second)
		default:
			rest[i].err = s.Err
		}
	}
	return wait, nil
}

// flushResults prints the jobs and the errors of the batch, and empties it.
func (f *lineSubmitter) flushResults() error {
	finished := f.batch
	f.batch, f.bytes = nil, 0
	for _, l := range finished {
		switch {
		case l.job == nil && l.err == nil:
		case l.err != nil:
			f.firstErr = cmp.Or(f.firstErr, l.err)
			fmt.Fprintf(f.env.Err, "meanwhile: line %d: %s\n", l.number, printable(l.err.Error()))
		case f.json:
			if err := printJSON(f.env.Out, l.job); err != nil {
				return err
			}
		default:
			if _, err := fmt.Fprintln(f.env.Out, l.job.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// showCount shows the number of submitted jobs on a terminal if the ids are not printed there.
func (f *lineSubmitter) showCount(end string) {
	if f.env.ErrTerminal && !f.env.OutTerminal && f.submitted > 0 {
		fmt.Fprintf(f.env.Err, "\r%s submitted%s", jobCount(f.submitted), end)
	}
}

// reportPartial prints the known outcomes of the batch after an error, and the first line
// whose outcome is unknown.
func (f *lineSubmitter) reportPartial() {
	from := f.read + 1
	for _, l := range f.batch {
		if l.job == nil && l.err == nil {
			from = l.number
			break
		}
	}
	_ = f.flushResults() // the caller reports the first error
	fmt.Fprintf(f.env.Err, "%s submitted. Line %d and the lines after it may not be submitted.\n", jobCount(f.submitted), from)
}
