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

// crowd is the clients: they submit, watch, wait, cancel and retry, and write down
// what they are told. Watchers live through restarts; whoever submits does so until
// the server is gone.
type crowd struct {
	// set once
	rec     *record
	once    *client.Client // asks once: what it was not told, it does not know
	patient *client.Client // goes on through restarts

	watchers sync.WaitGroup
	seats    chan struct{} // one for each watcher at a time
}

func newCrowd(in *installation, rec *record) (*crowd, error) {
	once, err := in.client(client.WithRetries(0))
	if err != nil {
		return nil, err
	}
	patient, err := in.client(client.WithRetries(100))
	return &crowd{rec: rec, once: once, patient: patient, seats: make(chan struct{}, 64)}, err
}

// task is what a client is going to do with one job.
type task struct {
	sub  client.Submission
	then deed
	wait time.Duration // before it does it
	cut  int           // a watcher hangs up once, after so many events, and comes back
}

type deed uint8

const (
	leave  deed = iota // nobody looks at the job until the end
	await              // the submit itself is held until the job has ended
	watch              // followed by events, to its end
	cancel             // watched, and cancelled meanwhile
	retry              // made to fail, then retried
)

// mostFailures is how often a job is told to fail before it succeeds.
const mostFailures = 2

// script is what a client is going to do in a round: the same for the same seed.
type script struct {
	rng  *rand.Rand
	name string // of the client in its round, and so of its idempotency keys
	n    int
}

func (s *script) next() task {
	s.n++
	t := task{
		then: []deed{leave, leave, leave, await, watch, watch, cancel, retry}[s.rng.IntN(8)],
		wait: time.Duration(s.rng.IntN(200)) * time.Millisecond,
		cut:  1 + s.rng.IntN(12),
	}
	t.sub = client.Submission{
		Queue:          "sim",
		IdempotencyKey: fmt.Sprintf("%s-%d", s.name, s.n),
		Key:            fmt.Sprintf("key-%d", s.rng.IntN(5)),
		Priority:       1 + s.rng.IntN(9),
		MaxAttempts:    mostFailures + 1, // which a kill does not use up: it is a loss, and no failure
		Retry:          client.RetryPolicy{Backoff: 20 * time.Millisecond, BackoffMax: 100 * time.Millisecond},
		Metadata:       map[string]string{"client": s.name},
	}
	if s.rng.IntN(10) == 0 {
		t.sub.Delay = time.Duration(s.rng.IntN(400)) * time.Millisecond
	}
	t.sub.Input = s.input(t.then)
	return t
}

// input is what a job is to do. Its echo says whose it is, so that a result can be
// told from another's.
func (s *script) input(then deed) json.RawMessage {
	in := map[string]any{"echo": fmt.Sprintf("%s-%d", s.name, s.n)}
	switch {
	case then == retry:
		in["fail_attempts"], in["fail_code"] = 1, "final:asked_for"
	case s.rng.IntN(3) == 0: // nothing to do
	case s.rng.IntN(2) == 0:
		in["tokens"], in["tokens_per_s"] = 1+s.rng.IntN(60), 50+s.rng.IntN(400)
	default:
		in["duration_ms"], in["tokens"], in["fail_attempts"] = s.rng.IntN(500), s.rng.IntN(5), s.rng.IntN(mostFailures+1)
	}
	text, err := json.Marshal(in)
	if err != nil {
		panic(err) // there is nothing in it that JSON cannot say
	}
	return text
}

// submitters keeps clients busy until ctx ends, and returns when the last has
// noticed. life is the context of those who watch longer than that.
func (c *crowd) submitters(ctx, life context.Context, scripts []*script) {
	var all sync.WaitGroup
	for _, s := range scripts {
		all.Go(func() {
			for ctx.Err() == nil {
				c.do(life, s.next())
			}
		})
	}
	all.Wait()
}

// do does one task. A server that is gone ends it wherever it stands.
func (c *crowd) do(life context.Context, t task) {
	c.rec.asking(t.sub)
	submit := c.once.Submit
	if t.then == await {
		submit = c.once.SubmitAndWait
	}
	j, err := submit(life, t.sub)
	if err != nil {
		c.failed(t.sub, err)
		return
	}
	c.rec.acked(t.sub, j.ID)
	c.rec.saw(j, before{})
	if t.then == leave || t.then == await {
		return
	}
	select {
	case c.seats <- struct{}{}:
		c.watchers.Go(func() {
			defer func() { <-c.seats }()
			c.tend(life, j.ID, t)
		})
	default: // enough watch already
	}
}

// failed sorts what a submit may come to. Without an answer nothing is known.
func (c *crowd) failed(s client.Submission, err error) {
	switch client.CodeOf(err) {
	case client.CodeUnreachable, "":
		// A submit that was to be held may have been stored: it stays open.
	case client.CodeQueueFull, client.CodeOverloaded, "shutting_down":
		c.rec.refused(s)
	default:
		c.rec.refused(s)
		c.rec.blame("a submit was refused: %v", err)
	}
}

// tend does what is to be done with a job that was acknowledged, through restarts.
func (c *crowd) tend(ctx context.Context, id string, t task) {
	switch t.then {
	case cancel:
		pause(ctx, t.wait)
		if j, err := c.patient.Cancel(ctx, id); err == nil {
			c.rec.cancelled(j)
		}
	case retry:
		if j, err := c.patient.Wait(ctx, id); err == nil {
			c.rec.saw(j, before{})
			c.rec.retrying(id)
			_, _ = c.once.Retry(ctx, id) // an answer that does not come leaves it open, which the record allows
		}
	}
	c.watch(ctx, id, t.cut)
}

// watch follows a job to its end, hanging up once on the way.
func (c *crowd) watch(ctx context.Context, id string, cut int) {
	var cursor int64
	n := 0
	for ended := false; !ended && ctx.Err() == nil; {
		for e, err := range c.patient.Watch(ctx, id, cursor) {
			if err != nil {
				c.stopped(ctx, id, err)
				return
			}
			cursor = e.Cursor
			if e.Entry != nil {
				c.rec.heard(id, *e.Entry)
			}
			if e.Job != nil {
				c.rec.saw(e.Job, before{})
			}
			ended = e.Type == client.DoneEvent
			if n++; n == cut {
				break
			}
		}
	}
}

func (c *crowd) stopped(ctx context.Context, id string, err error) {
	if ctx.Err() == nil {
		c.rec.blame("the watch of %s broke: %v", id, err)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
