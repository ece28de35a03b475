package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

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
	after      int64

	job          client.Job      // of the last event that had a job
	started      bool            // the first snapshot has arrived
	startCursor  int64           // the cursor of the job when the watch began
	pending      []pendingOutput // output that is not printed yet
	streaming    bool            // output is printed when it arrives
	printed      bool            // text of the current attempt was printed
	damaged      bool            // that text has characters that stand for other bytes
	disconnected bool            // the server is unavailable, and the user was informed
	failure      client.Failure  // the last failure of an attempt that was reported
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
	f.liveOutput, f.streaming = false, false
	f.screen.hide()
}

// run watches the job to its end. It returns an error unless the job succeeded.
func (f *follower) run(ctx context.Context, c *client.Client, id string, after int64) error {
	f.after = after
	stop := f.startRedrawing(ctx, id)
	defer stop()
	for e, err := range c.Watch(ctx, id, after) {
		if err != nil {
			return f.watchError(id, err)
		}
		if f.disconnected {
			f.disconnected = false
			f.screen.noteIn(dim, "The server is available again.")
		}
		if err := f.show(e); err != nil {
			return err
		}
	}
	stop()
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
		return errors.Join(err, f.screen.failure())
	}
	f.screen.note("The job continues. To watch it again: %s", f.watchCommand(f.env, id))
	return quiet{err}
}

// serverUnavailable is the retry hook. It informs the user once per outage. Before the
// watch has begun it reports only waits of a second or more.
func (f *follower) serverUnavailable(r client.Retry) {
	switch {
	case f.started && !f.disconnected:
		f.disconnected = true
		f.screen.noteIn(yellow, "The server is unavailable; waiting for it…")
	case !f.started && r.Delay >= time.Second:
		f.screen.noteIn(yellow, "%v; trying again in %s…", r.Err, r.Delay.Round(time.Second))
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
		f.screen.job(e.Job)
		f.showFailure(e.Job)
	case client.OutputEvent:
		f.addOutput(*e.Entry)
	case client.ProgressEvent:
		f.screen.progress(e.Entry.Progress())
	case client.AttemptEvent:
		f.attemptBegan(e.Entry.Attempt)
	}
	// An attempt event up to startCursor may still supersede the pending output.
	if f.liveOutput && f.started && e.Cursor >= f.startCursor {
		f.printPending()
	}
	return f.screen.failure()
}

// showFailure reports the failed attempt of a job that waits to be tried again. While an
// upstream keeps asking to wait, the same attempt fails again and again: that is reported
// once.
func (f *follower) showFailure(j *client.Job) {
	if j.Error == nil || j.Status.Ended() || *j.Error == f.failure {
		return
	}
	f.failure = *j.Error
	next := "the next try follows"
	switch j.Status {
	case client.Scheduled:
		next = "next try in " + formatSpan(j.RunAt.Sub(f.env.Now()))
	case client.Running:
		next = fmt.Sprintf("attempt %d runs", j.Attempt)
	}
	f.screen.noteIn(yellow, "attempt %d failed: %s; %s", j.Error.Attempt, failureText(j.Error), next)
}

// failureText returns the message of a failure, without its last full stop, and its code.
func failureText(f *client.Failure) string {
	return strings.TrimRight(f.Message, ". \n") + " (" + f.Code + ")"
}

// startRedrawing keeps the line about the job's state up to date, until stop is called. stop
// may be called again.
func (f *follower) startRedrawing(ctx context.Context, id string) (stop func()) {
	if f.json || !f.env.ErrTerminal || f.env.RedrawEvery == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.redraw(ctx, id)
	}()
	return func() {
		cancel()
		<-done
	}
}

// placeEvery is how often the server is asked for the place of a waiting job. Snapshots do
// not have it.
const placeEvery = 2 * time.Second

// redraw moves the spinner and asks for the place of a waiting job, until ctx ends.
func (f *follower) redraw(ctx context.Context, id string) {
	// A client without retries: an outage is reported by the watch.
	c, err := f.newClient(f.env, client.WithRetries(0))
	if err != nil {
		return
	}
	defer c.Close()
	tick := time.NewTicker(f.env.RedrawEvery)
	defer tick.Stop()
	var asked time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		f.screen.tick()
		if !f.screen.waits() || time.Since(asked) < placeEvery {
			continue
		}
		asked = time.Now()
		if j, err := c.Get(ctx, id); err == nil {
			f.screen.place(j)
		}
	}
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
			f.print(p.text)
		case client.KindLog:
			f.screen.noteIn(dim, "log: %s", p.text)
		}
	}
	f.pending = nil
}

func (f *follower) print(text string) {
	f.printed = f.printed || text != ""
	f.damaged = f.damaged || strings.ContainsRune(text, utf8.RuneError)
	f.screen.write(text)
}

// attemptBegan discards the pending output. It prints a note if earlier output was
// already printed.
func (f *follower) attemptBegan(attempt int) {
	f.pending = nil
	// The user has seen output of an earlier attempt: tell them that it no longer counts.
	if f.all || f.printed {
		f.screen.endLine()
		f.screen.noteIn(yellow, "--- attempt %d begins; the output above no longer counts ---", attempt)
	}
	f.printed, f.damaged = false, false
}

// printEnd prints the pending output of an ended job, or the result of a job without
// text output.
func (f *follower) printEnd(ctx context.Context, c *client.Client) error {
	f.screen.clear()
	exact, err := f.exactResult(ctx, c)
	if err != nil {
		return errors.Join(err, f.screen.failure())
	}
	if exact != nil {
		f.pending = slices.DeleteFunc(f.pending, func(p pendingOutput) bool { return p.kind == client.KindText })
		f.printPending()
		f.screen.writeExact(exact)
		return f.screen.failure()
	}
	f.printPending()
	// Without text output, print the result: the user wants to see something.
	if f.job.Status == client.Succeeded && !f.printed {
		text, err := resultText(ctx, c, &f.job)
		if err != nil {
			return errors.Join(err, f.screen.failure())
		}
		f.print(text)
	}
	f.screen.endLine()
	if f.damaged && f.job.Status == client.Succeeded {
		f.screen.note("A � may stand for bytes that are no text. The exact result: %s > FILE", f.env.commandText("meanwhile get "+f.job.ID+" --result")+f.flagsText())
	}
	return errors.Join(f.screen.failure(), endError(&f.job))
}

// exactResult returns the result of a job whose output is not printed yet, if it is neither
// text nor JSON; nil otherwise. What watchers see of such an output has U+FFFD for bytes that
// are no text: as a file it would be broken. A terminal gets what watchers see.
func (f *follower) exactResult(ctx context.Context, c *client.Client) ([]byte, error) {
	if f.job.Status != client.Succeeded || f.liveOutput || f.env.OutTerminal || f.after > 0 || len(f.job.Result) > 0 {
		return nil, nil
	}
	r, err := c.Result(ctx, f.job.ID)
	if err != nil || strings.HasPrefix(r.ContentType, "text/") || json.Valid(r.Body) {
		return nil, err
	}
	return r.Body, nil
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
