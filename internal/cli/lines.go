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

// A batch of lines is no larger than this.
const (
	batchLines = 100
	batchBytes = 4 << 20
)

// runLines submits a job for each line.
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
	c, err := o.open(env)
	if err != nil {
		return err
	}
	defer c.Close()
	f := &feed{env: env, c: c, json: o.json, common: s, inputs: reader{c: c, queue: s.Queue}}
	if err := f.all(ctx, in); err != nil {
		f.broken()
		return err
	}
	f.tell("\n")
	return quietly(f.first)
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

// feed submits lines in batches. It is one goroutine's.
type feed struct {
	env    *Env
	c      *client.Client
	json   bool
	common client.Submission // what all jobs share
	inputs reader

	read      int // lines
	batch     []line
	bytes     int // of the batch
	submitted int
	waited    bool  // whether it was said that there is no room
	first     error // the first line's that was refused
}

// line is a line on its way to be a job.
type line struct {
	number int
	ask    client.Submission
	job    *client.Job // once it is stored
	err    error       // why it never will be
}

// all submits every line but the empty ones. The error is of what ends it early.
func (f *feed) all(ctx context.Context, in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), maxInput+1)
	for lines.Scan() {
		f.read++
		text := lines.Bytes()
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		if err := f.add(ctx, bytes.Clone(text)); err != nil {
			return err
		}
		if len(f.batch) == batchLines || f.bytes >= batchBytes {
			if err := f.flush(ctx); err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return errors.Join(f.flush(ctx), usagef("line %d is longer than 1 MiB", f.read+1))
	} else if err != nil {
		return fmt.Errorf("the lines cannot be read: %w", err)
	}
	return f.flush(ctx)
}

// add puts a line into the batch, also one that is no input: it is told in its turn.
func (f *feed) add(ctx context.Context, text []byte) error {
	l := line{number: f.read, ask: f.common}
	var input json.RawMessage
	if input, l.err = f.inputs.understand(ctx, text); l.err != nil && !errors.As(l.err, new(usageError)) {
		return l.err // the server's: it would say so of every line
	}
	l.ask.Input = input
	if f.common.IdempotencyKey != "" {
		l.ask.IdempotencyKey = fmt.Sprintf("%s/%d", f.common.IdempotencyKey, f.read)
	}
	f.batch = append(f.batch, l)
	f.bytes += len(input)
	return nil
}

// flush submits the batch, and what there was no room for again until there is.
func (f *feed) flush(ctx context.Context) error {
	for {
		wait, err := f.submit(ctx)
		if err != nil {
			return err
		}
		if wait == 0 {
			break
		}
		if !f.waited {
			f.waited = true
			f.tell("\n")
			fmt.Fprintln(f.env.Err, "There is no room for more jobs now; waiting for it.")
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := f.print()
	f.tell("")
	return err
}

// submit submits what of the batch is not settled, and says how long to wait for
// room for the rest; 0 when nothing is left.
func (f *feed) submit(ctx context.Context) (wait time.Duration, err error) {
	var left []*line
	var b client.Batch
	for i := range f.batch {
		if l := &f.batch[i]; l.job == nil && l.err == nil {
			left, b.Jobs = append(left, l), append(b.Jobs, l.ask)
		}
	}
	if len(left) == 0 {
		return 0, nil
	}
	became, err := f.c.SubmitBatch(ctx, b)
	if err != nil {
		return 0, err
	}
	for i, s := range became {
		switch {
		case s.Err == nil:
			left[i].job = s.Job
			f.submitted++
		case refusalCode(s.Err) == exitFull:
			wait = max(wait, s.Err.RetryAfter, time.Second)
		default:
			left[i].err = s.Err
		}
	}
	return wait, nil
}

// print empties the batch: it prints its jobs, and why the others are none.
func (f *feed) print() error {
	settled := f.batch
	f.batch, f.bytes = nil, 0
	for _, l := range settled {
		switch {
		case l.job == nil && l.err == nil:
		case l.err != nil:
			f.first = cmp.Or(f.first, l.err)
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

// tell shows how many jobs were submitted to whoever does not see their ids.
func (f *feed) tell(end string) {
	if f.env.ErrTerminal && !f.env.OutTerminal && f.submitted > 0 {
		fmt.Fprintf(f.env.Err, "\r%s submitted%s", jobCount(f.submitted), end)
	}
}

// broken prints what of the batch is settled, and says from which line on nothing
// is known to be submitted.
func (f *feed) broken() {
	from := f.read + 1
	for _, l := range f.batch {
		if l.job == nil && l.err == nil {
			from = l.number
			break
		}
	}
	_ = f.print() // what ended it is said already
	fmt.Fprintf(f.env.Err, "%s submitted; line %d and what follows may not be.\n", jobCount(f.submitted), from)
}
