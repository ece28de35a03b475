// Package sim is the executor that simulates work. It is for trying things out, for tests and
// for benchmarks. Its input sets how long an attempt takes, what it writes and whether it
// fails. Every field is optional; `{}` ends at once.
//
//	duration_ms    waits this long first, reporting progress
//	tokens         then writes this number of words
//	tokens_per_s   words per second; 0 writes all at once
//	fail_attempts  then fails, in the first attempts up to this number
//	fail_code      the code of that failure ("sim_failure"). The prefix "final:", "wait:"
//	               or "timeout:" sets its class; without one the job is retried later.
//	               A wait costs no attempt, so it repeats until retry.for has passed
//	ignore_cancel  goes on even when asked to stop
//	echo           any JSON value, returned in the result
//
// The result is a JSON object. It has "echo" if the input has it, "text" with the words if
// there are any, and "attempt" if the input asks for failures: for `{"echo": 1}` it is
// `{"echo":1}`.
package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Executor simulates work. Its zero value is ready to use.
type Executor struct{}

// Kind is "sim".
func (Executor) Kind() string { return "sim" }

// TakesFiles is false: simulated work reads nothing.
func (Executor) TakesFiles() bool { return false }

// Check refuses an input that the package comment does not describe.
func (Executor) Check(input []byte) error {
	if _, err := parseInput(input); err != nil {
		return err
	}
	return nil
}

// Execute simulates one attempt.
func (Executor) Execute(ctx context.Context, t exec.Task, out exec.Sink) error {
	p, refusal := parseInput(t.Input)
	if refusal != nil {
		return &job.Fault{Code: "invalid_input", Message: refusal.Message, Class: job.Final}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// Without its context and without the sink's errors, nothing stops the work.
	if p.ignoreCancel {
		ctx, out = context.WithoutCancel(ctx), ignoreErrors{out}
	}
	a := attempt{params: p, out: out}
	if err := a.run(ctx); err != nil {
		return err
	}
	if t.Job.Attempt <= p.failAttempts {
		return &job.Fault{Code: p.failCode, Class: p.failClass,
			Message: fmt.Sprintf("attempt %d failed, as the input asked for", t.Job.Attempt)}
	}
	out.Result(job.Result{ContentType: "application/json", Body: a.result(t.Job.Attempt)})
	return nil
}

// ignoreErrors is a sink that drops errors, for work that ignores a cancel.
type ignoreErrors struct{ exec.Sink }

func (s ignoreErrors) Text(piece string) error       { _ = s.Sink.Text(piece); return nil }
func (s ignoreErrors) Progress(p job.Progress) error { _ = s.Sink.Progress(p); return nil }

type attempt struct {
	params
	out     exec.Sink
	text    []byte
	percent float64 // the last percentage reported
}

func (a *attempt) run(ctx context.Context) error {
	if a.duration > 0 {
		if err := a.wait(ctx); err != nil {
			return err
		}
	}
	if a.tokens > 0 {
		return a.writeWords(ctx)
	}
	return nil
}

// wait waits for the duration. It reports progress at most a hundred times, and at most ten
// times a second.
func (a *attempt) wait(ctx context.Context) error {
	start, step := time.Now(), max(a.duration/100, 100*time.Millisecond)
	for passed := time.Duration(0); passed < a.duration; {
		passed = min(passed+step, a.duration)
		if err := sleepUntil(ctx, start.Add(passed)); err != nil {
			return err
		}
		if err := a.reportProgress(a.waitShare() * float64(passed) / float64(a.duration)); err != nil {
			return err
		}
	}
	return nil
}

// writeWords writes the words. Each word is due at a fixed time after the first, so that a late
// word does not delay the others.
func (a *attempt) writeWords(ctx context.Context) error {
	start := time.Now()
	for i := range a.tokens {
		if err := sleepUntil(ctx, start.Add(a.wordDue(i))); err != nil {
			return err
		}
		word := words[i%len(words)]
		if i > 0 {
			word = " " + word
		}
		a.text = append(a.text, word...)
		if err := a.out.Text(word); err != nil {
			return err
		}
		if err := a.reportProgress(a.waitShare() + (1-a.waitShare())*float64(i+1)/float64(a.tokens)); err != nil {
			return err
		}
	}
	return nil
}

// wordDue returns when word i is due, counted from the first.
func (a *attempt) wordDue(i int) time.Duration {
	if a.perSecond == 0 {
		return 0
	}
	return time.Duration(min(float64(i)/a.perSecond*float64(time.Second), float64(job.MaxDuration)))
}

// waitShare returns the part of the whole time that passes before the first word.
func (a *attempt) waitShare() float64 {
	if a.tokens == 0 {
		return 1
	}
	whole := a.duration + a.wordDue(a.tokens-1)
	if whole == 0 {
		return 0
	}
	return float64(a.duration) / float64(whole)
}

// reportProgress reports the progress done, from 0 to 1, if it is at least one percent higher
// than the last.
func (a *attempt) reportProgress(done float64) error {
	percent := math.Floor(done * 100)
	if percent <= a.percent {
		return nil
	}
	a.percent = percent
	return a.out.Progress(job.Progress{Percent: percent, Status: "Simulating"})
}

func (a *attempt) result(attempt int) []byte {
	body := make([]byte, 1, len(a.echo)+len(a.text)+64)
	body[0] = '{'
	member := func(name string, value []byte) {
		if len(body) > 1 {
			body = append(body, ',')
		}
		body = append(append(strconv.AppendQuote(body, name), ':'), value...)
	}
	if a.failAttempts > 0 {
		member("attempt", strconv.AppendInt(nil, int64(attempt), 10))
	}
	if a.echo != nil {
		member("echo", a.echo)
	}
	if a.text != nil {
		text, _ := json.Marshal(string(a.text))
		member("text", text)
	}
	return append(body, '}')
}

func sleepUntil(ctx context.Context, at time.Time) error {
	d := time.Until(at)
	if d <= 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var words = [...]string{
	"The", "work", "takes", "its", "time,", "and", "nobody", "has", "to", "stand", "and", "wait:",
	"what", "is", "said", "is", "kept,", "and", "can", "be", "read", "from", "where", "you", "left.",
}
