package cli

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// follower shows a job's life to whoever follows it.
//
// What an attempt said counts only while no other has begun. So words are held
// back and dropped when another attempt begins: until the end, or, when they may
// be shown live, until all that was said before we came has been read.
type follower struct {
	// Set once.
	connection
	env    *Env
	screen *screen
	all    bool // show every attempt
	live   bool // words may be shown before it is sure that they count

	job     client.Job // as the last snapshot had it
	began   bool       // a snapshot has come
	history int64      // the cursor when we came
	held    []piece    // words that are not shown yet
	flowing bool       // words are shown as they come
	spoke   bool       // words of this attempt were shown
	lost    bool       // the server is away, and that was said
}

// piece is something that a job said: its words, or a line of its log.
type piece struct {
	kind client.Kind
	text string
}

func newFollower(env *Env, c connection, all bool) *follower {
	return &follower{connection: c, env: env, screen: newScreen(env), all: all, live: all || env.OutTerminal, flowing: all}
}

// atTheEnd makes it print at the end only, and draw no bar.
func (f *follower) atTheEnd() {
	f.live, f.flowing, f.screen.errTerm = false, false, false
}

// submitted says under what id the job was stored.
func (f *follower) submitted(j *client.Job) {
	if !f.json {
		f.screen.note("%s", j.ID)
	}
}

// run follows the job to its end. The error is how it ended, unless it succeeded.
func (f *follower) run(ctx context.Context, c *client.Client, id string, after int64) error {
	for e, err := range c.Watch(ctx, id, after) {
		if err != nil {
			return f.left(id, err)
		}
		if f.lost {
			f.lost = false
			f.screen.note("The server is back.")
		}
		if err := f.show(e); err != nil {
			return err
		}
	}
	if f.json {
		return quietly(endError(&f.job))
	}
	return f.end(ctx, c)
}

// left says how to come back, when it was the user who left.
func (f *follower) left(id string, err error) error {
	f.screen.clear()
	if !errors.Is(err, context.Canceled) {
		return errors.Join(err, f.screen.failed)
	}
	f.screen.note("The job goes on. To come back: %s", f.comeBack(id))
	return quiet{err}
}

// away is told of every wait for a server that cannot be reached, or has no room,
// and says that it is away once until it is back.
// Of a short one before we have begun there is nothing to say.
func (f *follower) away(r client.Retry) {
	switch {
	case f.began && !f.lost:
		f.lost = true
		f.screen.note("The server went away, waiting for it to come back…")
	case !f.began && r.Delay >= time.Second:
		f.screen.note("%v; trying again in %s…", r.Err, r.Delay.Round(time.Second))
	}
}

// show shows one event.
func (f *follower) show(e client.Event) error {
	if e.Job != nil {
		f.job = *e.Job
	}
	if f.json {
		f.began = true
		return printJSON(f.env.Out, e)
	}
	switch e.Type {
	case client.SnapshotEvent:
		if !f.began {
			f.began, f.history = true, e.Job.Cursor
		}
		f.screen.progress(e.Job.Progress, e.Job.Status)
	case client.OutputEvent:
		f.hear(*e.Entry)
	case client.ProgressEvent:
		f.screen.progress(e.Entry.Progress(), client.Running)
	case client.AttemptEvent:
		f.restart(e.Entry.Attempt)
	}
	if f.live && f.began && e.Cursor >= f.history {
		f.flow()
	}
	return f.screen.failed
}

// hear takes in what the job said.
func (f *follower) hear(e client.Entry) {
	f.held = append(f.held, piece{e.Kind, e.Text()})
	if f.flowing {
		f.flow()
	}
}

// flow shows what was held back, and from now on what comes.
func (f *follower) flow() {
	f.flowing = true
	for _, p := range f.held {
		switch p.kind {
		case client.KindText:
			f.spoke = f.spoke || p.text != ""
			f.screen.say(p.text)
		case client.KindLog:
			f.screen.note("log: %s", p.text)
		}
	}
	f.held = nil
}

// restart says that what was said no longer counts.
func (f *follower) restart(attempt int) {
	f.held = nil
	if f.all || f.spoke {
		f.screen.endLine()
		f.screen.note("--- attempt %d begins; what was said above no longer counts ---", attempt)
	}
	f.spoke = false
}

// end shows what is left when the job has ended.
func (f *follower) end(ctx context.Context, c *client.Client) error {
	f.screen.clear()
	f.flow()
	if f.job.Status == client.Succeeded && !f.spoke {
		text, err := resultText(ctx, c, &f.job)
		if err != nil {
			return errors.Join(err, f.screen.failed)
		}
		f.screen.say(text)
	}
	f.screen.endLine()
	return errors.Join(f.screen.failed, endError(&f.job))
}

// resultText is what a job came to.
func resultText(ctx context.Context, c *client.Client, j *client.Job) (string, error) {
	if r := j.Result; len(r) > 0 && string(r) != "null" {
		return string(r), nil
	}
	r, err := c.Result(ctx, j.ID)
	if err != nil {
		return "", err
	}
	if json.Valid(r.Body) && string(r.Body) == "null" {
		return "", nil
	}
	return string(r.Body), nil
}

// quietly is err, with nothing more to be said of it.
func quietly(err error) error {
	if err == nil {
		return nil
	}
	return quiet{err}
}
