package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// clients submit, watch, wait, cancel and retry jobs, and record every answer. Watchers
// continue through restarts; submitters stop when the server is killed.
type clients struct {
	// set once
	rec      *record
	hist     *history
	receiver *receiver      // of the callbacks of all jobs
	holders  *holders       // nil without the queue "work"
	noRetry  *client.Client // without retries: a call without an answer leaves the outcome unknown
	retrying *client.Client // retries through restarts

	watchers sync.WaitGroup
	slots    chan struct{} // limits the number of watchers
}

// newClients makes clients that connect as transport does, to any server.
func newClients(transport http.RoundTripper, rec *record) (*clients, error) {
	transport = once{transport}
	noRetry, err := client.New(baseURL, client.WithTransport(transport), client.WithRetries(0))
	if err != nil {
		return nil, err
	}
	retrying, err := client.New(baseURL, client.WithTransport(transport), client.WithRetries(100))
	if err != nil {
		return nil, err
	}
	receiver, err := newReceiver()
	return &clients{rec: rec, hist: newHistory(), receiver: receiver, noRetry: noRetry, retrying: retrying, slots: make(chan struct{}, 64)}, err
}

// once sends each request once. net/http sends a request with an idempotency key again by itself
// when a connection is lost; a refusal of the second try would say nothing about the first one.
type once struct{ http.RoundTripper }

func (o once) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		r = r.Clone(r.Context())
		r.GetBody = nil
	}
	return o.RoundTripper.RoundTrip(r)
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
	race                        // read, submitted again and cancelled by several clients at once
)

// maxFailures is how many attempts of a job fail at most before one succeeds.
const maxFailures = 2

// taskSource generates the tasks of one client in one round. The same seed gives the same
// tasks.
type taskSource struct {
	rng     *rand.Rand
	name    string // of the client in its round; part of its idempotency keys
	url     string // of the receiver of callbacks
	hasWork bool   // half of the tasks are of the queue "work"
	n       int
}

func (s *taskSource) next() task {
	s.n++
	t := task{
		action:          []action{ignore, ignore, race, submitAndWait, watch, watch, cancel, retry}[s.rng.IntN(8)],
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
		Callback:       &client.Callback{URL: s.url},
	}
	if s.rng.IntN(10) == 0 {
		t.sub.Delay = time.Duration(s.rng.IntN(400)) * time.Millisecond
	}
	if s.hasWork && t.action != retry && s.rng.IntN(2) == 0 {
		t.sub.Queue = workQueue
		t.sub.Input = workInput(work{Echo: t.sub.IdempotencyKey, Key: t.sub.Key, Tokens: 1 + s.rng.IntN(12), Pause: s.rng.IntN(60)})
		return t
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
		submit = c.submitAndWait
	}
	began := c.hist.now()
	j, err := submit(runCtx, t.sub)
	c.hist.add(t.sub.IdempotencyKey, submitVerb, began, j, err)
	if err != nil {
		c.recordFailedSubmit(t.sub, err)
		sleep(runCtx, 50*time.Millisecond) // while no server works, the next one fails as well
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

// submitAndWait submits a job and waits for its end. A server that fails while the job is waited
// for says nothing about the submission.
func (c *clients) submitAndWait(ctx context.Context, s client.Submission) (*client.Job, error) {
	j, err := c.noRetry.SubmitAndWait(ctx, s)
	if client.CodeOf(err) == client.CodeUnavailable {
		// The code of the wait must not be read as that of the submission.
		return nil, errors.New("whether it was stored is not known: " + err.Error())
	}
	return j, err
}

// recordFailedSubmit records a failed submission. Without an answer the outcome is unknown: the
// job may exist.
func (c *clients) recordFailedSubmit(s client.Submission, err error) {
	if outcomeUnknown(err) {
		return // The job may have been stored. The record keeps the submission as unanswered.
	}
	switch client.CodeOf(err) {
	case client.CodeQueueFull, client.CodeOverloaded, client.CodeUnavailable, "shutting_down":
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
		c.cancel(ctx, c.retrying, t.sub, id)
	case race:
		c.raceFor(ctx, t, id)
	case retry:
		if j, err := c.retrying.Wait(ctx, id); err == nil {
			c.rec.observe(j, snapshot{})
			// Record it first: the retry may happen although its answer never comes.
			c.rec.recordRetry(id)
			began := c.hist.now()
			j, err := c.noRetry.Retry(ctx, id) // without an answer the retry may or may not have happened; the record allows both
			c.hist.add(t.sub.IdempotencyKey, retryVerb, began, j, err)
		}
	}
	c.watch(ctx, id, t.disconnectAfter)
}

func (c *clients) cancel(ctx context.Context, by *client.Client, s client.Submission, id string) {
	began := c.hist.now()
	j, err := by.Cancel(ctx, id)
	c.hist.add(s.IdempotencyKey, cancelVerb, began, j, err)
	if err == nil {
		c.rec.recordCancel(j)
	}
}

// raceFor makes calls about a job at the same time, each by any server.
func (c *clients) raceFor(ctx context.Context, t task, id string) {
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for range 4 {
				sleep(ctx, rand.N(t.wait+1))
				then, began := c.rec.snapshot(id), c.hist.now()
				j, err := c.noRetry.Get(ctx, id)
				c.hist.add(t.sub.IdempotencyKey, getVerb, began, j, err)
				if err == nil {
					c.rec.observe(j, then)
				}
			}
		})
	}
	all.Go(func() {
		began := c.hist.now()
		j, err := c.noRetry.Submit(ctx, t.sub)
		c.hist.add(t.sub.IdempotencyKey, submitVerb, began, j, err)
		if err == nil {
			c.rec.recordAcknowledgement(t.sub, j.ID)
		}
	})
	if t.disconnectAfter%2 == 0 {
		all.Go(func() {
			sleep(ctx, t.wait)
			c.cancel(ctx, c.noRetry, t.sub, id)
		})
	}
	all.Wait()
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
