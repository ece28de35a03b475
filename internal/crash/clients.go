package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// clients is the clients: they submit, watch, wait, cancel and retry, and write down
// what they are told. Watchers live through restarts; whoever submits does so until
// the server is gone.
type clients struct {
	// set once
	rec      *record
	noRetry  *client.Client // asks once: what it was not told, it does not know
	retrying *client.Client // goes on through restarts

	watchers sync.WaitGroup
	slots    chan struct{} // one for each watcher at a time
}

func newClients(in *serverProcess, rec *record) (*clients, error) {
	once, err := in.client(client.WithRetries(0))
	if err != nil {
		return nil, err
	}
	patient, err := in.client(client.WithRetries(100))
	return &clients{rec: rec, noRetry: once, retrying: patient, slots: make(chan struct{}, 64)}, err
}

// task is what a client is going to do with one job.
type task struct {
	sub             client.Submission
	action          action
	wait            time.Duration // before it does it
	disconnectAfter int           // a watcher hangs up once, after so many events, and comes back
}

type action uint8

const (
	ignore        action = iota // nobody looks at the job until the end
	submitAndWait               // the submit itself is held until the job has ended
	watch                       // followed by events, to its end
	cancel                      // watched, and cancelled meanwhile
	retry                       // made to fail, then retried
)

// maxFailures is how often a job is told to fail before it succeeds.
const maxFailures = 2

// taskSource is what a client is going to do in a round: the same for the same seed.
type taskSource struct {
	rng  *rand.Rand
	name string // of the client in its round, and so of its idempotency keys
	n    int
}

func (s *taskSource) next() task {
	s.n++
	t := task{
		action:          []action{ignore, ignore, ignore, submitAndWait, watch, watch, cancel, retry}[s.rng.IntN(8)],
		wait:            time.Duration(s.rng.IntN(200)) * time.Millisecond,
		disconnectAfter: 1 + s.rng.IntN(12),
	}
	t.sub = client.Submission{
		Queue:          "sim",
		IdempotencyKey: fmt.Sprintf("%s-%d", s.name, s.n),
		Key:            fmt.Sprintf("key-%d", s.rng.IntN(5)),
		Priority:       1 + s.rng.IntN(9),
		MaxAttempts:    maxFailures + 1, // which a kill does not use up: it is a loss, and no failure
		Retry:          client.RetryPolicy{Backoff: 20 * time.Millisecond, BackoffMax: 100 * time.Millisecond},
		Metadata:       map[string]string{"client": s.name},
	}
	if s.rng.IntN(10) == 0 {
		t.sub.Delay = time.Duration(s.rng.IntN(400)) * time.Millisecond
	}
	t.sub.Input = s.input(t.action)
	return t
}

// input is what a job is to do. Its echo says whose it is, so that a result can be
// told from another's.
func (s *taskSource) input(action action) json.RawMessage {
	in := map[string]any{"echo": fmt.Sprintf("%s-%d", s.name, s.n)}
	switch {
	case action == retry:
		in["fail_attempts"], in["fail_code"] = 1, "final:asked_for"
	case s.rng.IntN(3) == 0: // nothing to do
	case s.rng.IntN(2) == 0:
		in["tokens"], in["tokens_per_s"] = 1+s.rng.IntN(60), 50+s.rng.IntN(400)
	default:
		in["duration_ms"], in["tokens"], in["fail_attempts"] = s.rng.IntN(500), s.rng.IntN(5), s.rng.IntN(maxFailures+1)
	}
	text, err := json.Marshal(in)
	if err != nil {
		panic(err) // there is nothing in it that JSON cannot say
	}
	return text
}

// submitUntil keeps clients busy until ctx ends, and returns when the last has
// noticed. life is the context of those who watch longer than that.
func (c *clients) submitUntil(ctx, runCtx context.Context, scripts []*taskSource) {
	var all sync.WaitGroup
	for _, s := range scripts {
		all.Go(func() {
			for ctx.Err() == nil {
				c.run(runCtx, s.next())
			}
		})
	}
	all.Wait()
}

// run does one task. A server that is gone ends it wherever it stands.
func (c *clients) run(runCtx context.Context, t task) {
	c.rec.submitting(t.sub)
	submit := c.noRetry.Submit
	if t.action == submitAndWait {
		submit = c.noRetry.SubmitAndWait
	}
	j, err := submit(runCtx, t.sub)
	if err != nil {
		c.submitFailed(t.sub, err)
		return
	}
	c.rec.acknowledged(t.sub, j.ID)
	c.rec.observe(j, snapshot{})
	if t.action == ignore || t.action == submitAndWait {
		return
	}
	select {
	case c.slots <- struct{}{}:
		c.watchers.Go(func() {
			defer func() { <-c.slots }()
			c.followUp(runCtx, j.ID, t)
		})
	default: // enough watch already
	}
}

// submitFailed sorts what a submit may come to. Without an answer nothing is known.
func (c *clients) submitFailed(s client.Submission, err error) {
	switch client.CodeOf(err) {
	case client.CodeUnreachable, "":
		// A submit that was to be held may have been stored: it stays open.
	case client.CodeQueueFull, client.CodeOverloaded, "shutting_down":
		c.rec.refused(s)
	default:
		c.rec.refused(s)
		c.rec.violate("a submit was refused: %v", err)
	}
}

// followUp does what is to be done with a job that was acknowledged, through restarts.
func (c *clients) followUp(ctx context.Context, id string, t task) {
	switch t.action {
	case cancel:
		sleep(ctx, t.wait)
		if j, err := c.retrying.Cancel(ctx, id); err == nil {
			c.rec.cancelled(j)
		}
	case retry:
		if j, err := c.retrying.Wait(ctx, id); err == nil {
			c.rec.observe(j, snapshot{})
			c.rec.retrying(id)
			_, _ = c.noRetry.Retry(ctx, id) // an answer that does not come leaves it open, which the record allows
		}
	}
	c.watch(ctx, id, t.disconnectAfter)
}

// watch follows a job to its end, hanging up once on the way.
func (c *clients) watch(ctx context.Context, id string, cut int) {
	var cursor int64
	n := 0
	for ended := false; !ended && ctx.Err() == nil; {
		for e, err := range c.retrying.Watch(ctx, id, cursor) {
			if err != nil {
				c.watchFailed(ctx, id, err)
				return
			}
			cursor = e.Cursor
			if e.Entry != nil {
				c.rec.observeEntry(id, *e.Entry)
			}
			if e.Job != nil {
				c.rec.observe(e.Job, snapshot{})
			}
			ended = e.Type == client.DoneEvent
			if n++; n == cut {
				break
			}
		}
	}
}

func (c *clients) watchFailed(ctx context.Context, id string, err error) {
	if ctx.Err() == nil {
		c.rec.violate("the watch of %s broke: %v", id, err)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
