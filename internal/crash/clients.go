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

// clients submit, watch, wait, cancel and retry jobs, and record every answer. Watchers
// continue through restarts; submitters stop when the server is killed.
type clients struct {
	// set once
	rec      *record
	noRetry  *client.Client // without retries: a call without an answer leaves the outcome unknown
	retrying *client.Client // retries through restarts

	watchers sync.WaitGroup
	slots    chan struct{} // limits the number of watchers
}

func newClients(in *serverProcess, rec *record) (*clients, error) {
	noRetry, err := in.client(client.WithRetries(0))
	if err != nil {
		return nil, err
	}
	retrying, err := in.client(client.WithRetries(100))
	return &clients{rec: rec, noRetry: noRetry, retrying: retrying, slots: make(chan struct{}, 64)}, err
}

// task is one job and the client's action on it.
type task struct {
	sub             client.Submission
	action          action
	wait            time.Duration // before the action
	disconnectAfter int           // a watcher disconnects once after this many events, and connects again
}

// action is a client's treatment of a submitted job.
type action uint8

const (
	ignore        action = iota // nothing reads the job until the end
	submitAndWait               // the submission waits for the end of the job (Prefer: wait)
	watch                       // watched to its end
	cancel                      // cancelled while it is watched
	retry                       // fails, and is then retried
)

// maxFailures is how many attempts of a job fail at most before one succeeds.
const maxFailures = 2

// taskSource generates the tasks of one client in one round. The same seed gives the same
// tasks.
type taskSource struct {
	rng  *rand.Rand
	name string // of the client in its round; part of its idempotency keys
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
		MaxAttempts:    maxFailures + 1, // a kill is a lost attempt, which does not count as failed
		Retry:          client.RetryPolicy{Backoff: 20 * time.Millisecond, BackoffMax: 100 * time.Millisecond},
		Metadata:       map[string]string{"client": s.name},
	}
	if s.rng.IntN(10) == 0 {
		t.sub.Delay = time.Duration(s.rng.IntN(400)) * time.Millisecond
	}
	t.sub.Input = s.input(t.action)
	return t
}

// input returns the input of a job. Its echo identifies the job, so that a result can be
// checked.
func (s *taskSource) input(action action) json.RawMessage {
	in := map[string]any{"echo": fmt.Sprintf("%s-%d", s.name, s.n)}
	switch {
	case action == retry:
		in["fail_attempts"], in["fail_code"] = 1, "final:asked_for"
	case s.rng.IntN(3) == 0: // no work: the job ends at once
	case s.rng.IntN(2) == 0:
		in["tokens"], in["tokens_per_s"] = 1+s.rng.IntN(60), 50+s.rng.IntN(400)
	default:
		in["duration_ms"], in["tokens"], in["fail_attempts"] = s.rng.IntN(500), s.rng.IntN(5), s.rng.IntN(maxFailures+1)
	}
	text, err := json.Marshal(in)
	if err != nil {
		panic(err) // the map has only values that JSON can encode
	}
	return text
}

// submitUntil runs the tasks until ctx ends and returns when all submitters have stopped.
// runCtx is for the watchers, which continue in the next round.
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

// run runs one task. When the server is killed, the task ends at the failing call.
func (c *clients) run(runCtx context.Context, t task) {
	// Record it first: the job may exist although the answer never comes.
	c.rec.recordSubmission(t.sub)
	submit := c.noRetry.Submit
	if t.action == submitAndWait {
		submit = c.noRetry.SubmitAndWait
	}
	j, err := submit(runCtx, t.sub)
	if err != nil {
		c.recordFailedSubmit(t.sub, err)
		return
	}
	c.rec.recordAcknowledgement(t.sub, j.ID)
	c.rec.observe(j, snapshot{})
	if t.action == ignore || t.action == submitAndWait {
		return
	}
	// Do not wait for a slot: the load must go on until the kill.
	select {
	case c.slots <- struct{}{}:
		c.watchers.Go(func() {
			defer func() { <-c.slots }()
			c.followUp(runCtx, j.ID, t)
		})
	default: // enough watchers already
	}
}

// recordFailedSubmit records a failed submission. Without an answer the outcome is unknown: the
// job may exist.
func (c *clients) recordFailedSubmit(s client.Submission, err error) {
	switch client.CodeOf(err) {
	case client.CodeUnreachable, "":
		// The job may have been stored. The record keeps the submission as unanswered.
	case client.CodeQueueFull, client.CodeOverloaded, "shutting_down":
		c.rec.recordRefusal(s)
	default:
		c.rec.recordRefusal(s)
		c.rec.addViolation("a submission was refused: %v", err)
	}
}

// followUp runs the action on an acknowledged job, through restarts.
func (c *clients) followUp(ctx context.Context, id string, t task) {
	switch t.action {
	case cancel:
		sleep(ctx, t.wait)
		if j, err := c.retrying.Cancel(ctx, id); err == nil {
			c.rec.recordCancel(j)
		}
	case retry:
		if j, err := c.retrying.Wait(ctx, id); err == nil {
			c.rec.observe(j, snapshot{})
			// Record it first: the retry may happen although its answer never comes.
			c.rec.recordRetry(id)
			_, _ = c.noRetry.Retry(ctx, id) // without an answer the retry may or may not have happened; the record allows both
		}
	}
	c.watch(ctx, id, t.disconnectAfter)
}

// watch follows a job to its end and disconnects once on the way.
func (c *clients) watch(ctx context.Context, id string, cut int) {
	var cursor int64
	n := 0
	for ended := false; !ended && ctx.Err() == nil; {
		for e, err := range c.retrying.Watch(ctx, id, cursor) {
			if err != nil {
				// The end of the run ends this watch: do not record it.
				if ctx.Err() == nil {
					c.rec.addViolation("the watch of %s failed: %v", id, err)
				}
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

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
