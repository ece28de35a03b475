// Package sim is the executor that does nothing, slowly. It is for trying things
// out, for tests and for benchmarks: its input says how long an attempt takes, what
// it says and whether it fails. Every field may be left out; `{}` ends at once.
//
//	duration_ms    waits this long first, reporting progress
//	tokens         then says so many words
//	tokens_per_s   at this pace; 0 for all at once
//	fail_attempts  then, in the first so many attempts, fails
//	fail_code      with this code ("sim_failure"); "final:", "wait:" or "timeout:" before
//	               it says what kind of failure, else it is one to try again later. One
//	               that waits costs no attempt, so it goes on until retry.for has passed
//	ignore_cancel  does all of it even when told to stop
//	echo           any JSON value, given back
//
// The result is a JSON object with what there is of "echo", "text" (the words) and,
// when failures were asked for, "attempt": for `{"echo": 1}` it is `{"echo":1}`.
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

// Executor does nothing. Its zero value is ready.
type Executor struct{}

// Kind is "sim".
func (Executor) Kind() string { return "sim" }

// Check refuses what the package comment does not describe.
func (Executor) Check(input []byte) error {
	if _, err := parse(input); err != nil {
		return err
	}
	return nil
}

// Execute does nothing, as slowly as its input says.
func (Executor) Execute(ctx context.Context, t exec.Task, out exec.Sink) error {
	p, refusal := parse(t.Input)
	if refusal != nil {
		return &job.Fault{Code: "invalid_input", Message: refusal.Message, Class: job.Final}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if p.ignoreCancel {
		ctx, out = context.WithoutCancel(ctx), deaf{out}
	}
	w := work{params: p, out: out}
	if err := w.do(ctx); err != nil {
		return err
	}
	if t.Job.Attempt <= p.failAttempts {
		return &job.Fault{Code: p.failCode, Class: p.failClass,
			Message: fmt.Sprintf("attempt %d failed, as the input asked for", t.Job.Attempt)}
	}
	out.Result(job.Result{ContentType: "application/json", Body: w.result(t.Job.Attempt)})
	return nil
}

// deaf is a sink whose refusals are not heard.
type deaf struct{ exec.Sink }

func (d deaf) Text(piece string) error       { _ = d.Sink.Text(piece); return nil }
func (d deaf) Progress(p job.Progress) error { _ = d.Sink.Progress(p); return nil }

// work is one attempt under way.
type work struct {
	params
	out     exec.Sink
	text    []byte
	percent float64 // reported last
}

func (w *work) do(ctx context.Context) error {
	if w.duration > 0 {
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
	if w.tokens > 0 {
		return w.speak(ctx)
	}
	return nil
}

// wait lets the duration pass, and reports up to a hundred times, ten a second.
func (w *work) wait(ctx context.Context) error {
	start, step := time.Now(), max(w.duration/100, 100*time.Millisecond)
	for passed := time.Duration(0); passed < w.duration; {
		passed = min(passed+step, w.duration)
		if err := sleepUntil(ctx, start.Add(passed)); err != nil {
			return err
		}
		if err := w.report(w.share() * float64(passed) / float64(w.duration)); err != nil {
			return err
		}
	}
	return nil
}

// speak says the words. Every one has its time from the first on, so that a late
// one does not delay the others.
func (w *work) speak(ctx context.Context) error {
	start := time.Now()
	for i := range w.tokens {
		if err := sleepUntil(ctx, start.Add(w.spoken(i))); err != nil {
			return err
		}
		word := words[i%len(words)]
		if i > 0 {
			word = " " + word
		}
		w.text = append(w.text, word...)
		if err := w.out.Text(word); err != nil {
			return err
		}
		if err := w.report(w.share() + (1-w.share())*float64(i+1)/float64(w.tokens)); err != nil {
			return err
		}
	}
	return nil
}

// spoken is when the word of that index is due, counted from the first.
func (w *work) spoken(i int) time.Duration {
	if w.perSecond == 0 {
		return 0
	}
	return time.Duration(min(float64(i)/w.perSecond*float64(time.Second), float64(job.MaxDuration)))
}

// share is the part of the whole time that passes before the first word.
func (w *work) share() float64 {
	if w.tokens == 0 {
		return 1
	}
	whole := w.duration + w.spoken(w.tokens-1)
	if whole == 0 {
		return 0
	}
	return float64(w.duration) / float64(whole)
}

// report tells how much is done, when that is another whole percent.
func (w *work) report(done float64) error {
	percent := math.Floor(done * 100)
	if percent <= w.percent {
		return nil
	}
	w.percent = percent
	return w.out.Progress(job.Progress{Percent: percent, Status: "Simulating"})
}

func (w *work) result(attempt int) []byte {
	body := make([]byte, 1, len(w.echo)+len(w.text)+64)
	body[0] = '{'
	member := func(name string, value []byte) {
		if len(body) > 1 {
			body = append(body, ',')
		}
		body = append(append(strconv.AppendQuote(body, name), ':'), value...)
	}
	if w.failAttempts > 0 {
		member("attempt", strconv.AppendInt(nil, int64(attempt), 10))
	}
	if w.echo != nil {
		member("echo", w.echo)
	}
	if w.text != nil {
		text, _ := json.Marshal(string(w.text))
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
