package cli

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// follower prints the events of a watched job.
//
// The output of an attempt counts only until the next attempt begins. So the follower
// collects output and discards it when an attempt begins. It prints the collected output
// when the job has ended. With liveOutput it prints earlier: first all output from before the
// watch, then each piece of output when it arrives.
type follower struct {
	// set once
	connection
	env        *Env
	screen     *screen
	all        bool // print every attempt
	liveOutput bool // print output before it is certain that it counts

	job          client.Job      // of the last event that had a job
	started      bool            // the first snapshot has arrived
	startCursor  int64           // the cursor of the job when the watch began
	pending      []pendingOutput // output that is not printed yet
	streaming    bool            // output is printed when it arrives
	printed      bool            // text of the current attempt was printed
	disconnected bool            // the server is unavailable, and the user was informed
}

// pendingOutput is an output entry that is not printed yet: text or a log line.
type pendingOutput struct {
	kind client.Kind
	text string
}

func newFollower(env *Env, c connection, all bool) *follower {
	return &follower{connection: c, env: env, screen: newScreen(env), all: all, liveOutput: all || env.OutTerminal, streaming: all}
}

// onlyAtEnd makes the follower print only at the end, without a progress bar.
func (f *follower) onlyAtEnd() {
	f.liveOutput, f.streaming, f.screen.errTerm = false, false, false
}

// run watches the job to its end. It returns an error unless the job succeeded.
func (f *follower) run(ctx context.Context, c *client.Client, id string, after int64) error {
	for e, err := range c.Watch(ctx, id, after) {
		if err != nil {
			return f.watchError(id, err)
		}
		if f.disconnected {
			f.disconnected = false
			f.screen.note("The server is available again.")
		}
		if err := f.show(e); err != nil {
			return err
		}
	}
	if f.json {
		return quietError(endError(&f.job))
	}
	return f.printEnd(ctx, c)
}

// watchError handles the error that ended the watch. After an interrupt it prints how to
// watch the job again.
func (f *follower) watchError(id string, err error) error {
	f.screen.clear()
	// After an interrupt by the user, the job still runs.
	if !errors.Is(err, context.Canceled) {
		return errors.Join(err, f.screen.writeErr)
	}
	f.screen.note("The job continues. To watch it again: %s", f.watchCommand(id))
	return quiet{err}
}

// serverUnavailable is the retry hook. It informs the user once per outage. Before the
// watch has begun it reports only waits of a second or more.
func (f *follower) serverUnavailable(r client.Retry) {
	switch {
	case f.started && !f.disconnected:
		f.disconnected = true
		f.screen.note("The server is unavailable; waiting for it…")
	case !f.started && r.Delay >= time.Second:
		f.screen.note("%v; trying again in %s…", r.Err, r.Delay.Round(time.Second))
	}
}

// show prints one event.
func (f *follower) show(e client.Event) error {
	if e.Job != nil {
		f.job = *e.Job
	}
	if f.json {
		f.started = true
		return printJSON(f.env.Out, e)
	}
	switch e.Type {
	case client.SnapshotEvent:
		// Only the first snapshot counts. Later ones come after a reconnect.
		if !f.started {
			f.started, f.startCursor = true, e.Job.Cursor
		}
		f.screen.progress(e.Job.Progress, e.Job.Status)
	case client.OutputEvent:
		f.addOutput(*e.Entry)
	case client.ProgressEvent:
		f.screen.progress(e.Entry.Progress(), client.Running)
	case client.AttemptEvent:
		f.attemptBegan(e.Entry.Attempt)
	}
	// An attempt event up to startCursor may still supersede the pending output.
	if f.liveOutput && f.started && e.Cursor >= f.startCursor {
		f.printPending()
	}
	return f.screen.writeErr
}

// addOutput adds an output entry, and prints it when streaming.
func (f *follower) addOutput(e client.Entry) {
	f.pending = append(f.pending, pendingOutput{e.Kind, e.Text()})
	if f.streaming {
		f.printPending()
	}
}

// printPending prints the pending output and starts streaming.
func (f *follower) printPending() {
	f.streaming = true
	for _, p := range f.pending {
		switch p.kind {
		case client.KindText:
			f.printed = f.printed || p.text != ""
			f.screen.write(p.text)
		case client.KindLog:
			f.screen.note("log: %s", p.text)
		}
	}
	f.pending = nil
}

// attemptBegan discards the pending output. It prints a note if earlier output was
// already printed.
func (f *follower) attemptBegan(attempt int) {
	f.pending = nil
	// The user has seen output of an earlier attempt: tell them that it no longer counts.
	if f.all || f.printed {
		f.screen.endLine()
		f.screen.note("--- attempt %d begins; the output above no longer counts ---", attempt)
	}
	f.printed = false
}

// printEnd prints the pending output of an ended job, or the result of a job without
// text output.
func (f *follower) printEnd(ctx context.Context, c *client.Client) error {
	f.screen.clear()
	f.printPending()
	// Without text output, print the result: the user wants to see something.
	if f.job.Status == client.Succeeded && !f.printed {
		text, err := resultText(ctx, c, &f.job)
		if err != nil {
			return errors.Join(err, f.screen.writeErr)
		}
		f.screen.write(text)
	}
	f.screen.endLine()
	return errors.Join(f.screen.writeErr, endError(&f.job))
}

// resultText returns the result of a job as text; "" for null.
func resultText(ctx context.Context, c *client.Client, j *client.Job) (string, error) {
	if r := j.Result; len(r) > 0 && string(r) != "null" {
		return string(r), nil
	}
	r, err := c.Result(ctx, j.ID)
	if err != nil {
		return "", err
	}
	// null is the result of work that returns nothing.
	if json.Valid(r.Body) && string(r.Body) == "null" {
		return "", nil
	}
	return string(r.Body), nil
}

// quietError wraps err so that it is not printed. It returns nil for nil.
func quietError(err error) error {
	if err == nil {
		return nil
	}
	return quiet{err}
}
