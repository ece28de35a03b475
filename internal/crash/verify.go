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

const sample = 400 // jobs and submissions that are looked at again after each restart

// mostLosses is how many attempts of a job have to be lost until it fails.
const mostLosses = 5

// lookAgain asks a server that has just come back about what its predecessor said:
// every submission that was never answered, a sample of those that were, and every
// unfinished job with a sample of the others.
func (c *crowd) lookAgain(ctx context.Context, rng *rand.Rand) {
	for _, s := range c.rec.open() {
		c.repost(ctx, s)
	}
	finished := c.rec.all(func(k *known) bool { return len(k.ends) > 0 })
	rng.Shuffle(len(finished), func(i, j int) { finished[i], finished[j] = finished[j], finished[i] })
	finished = finished[:min(sample, len(finished))]
	c.each(finished, func(k *known) { c.repost(ctx, k.sub) })
	unfinished := c.rec.all(func(k *known) bool { return len(k.ends) == 0 })
	c.each(append(unfinished, finished...), func(k *known) { c.look(ctx, k) })
}

// repost submits again: the same key must answer the same job.
func (c *crowd) repost(ctx context.Context, s client.Submission) {
	j, err := c.patient.Submit(ctx, s)
	if err != nil {
		c.rec.blame("the submission %s, posted again: %v", s.IdempotencyKey, err)
		return
	}
	c.rec.acked(s, j.ID)
}

// look reads a job and all it said.
func (c *crowd) look(ctx context.Context, k *known) *client.Job {
	then := c.rec.asks(k.id)
	j, err := c.patient.Get(ctx, k.id)
	if err != nil {
		c.rec.blame("the job %s was acknowledged, and now: %v", k.id, err)
		return nil
	}
	c.rec.saw(j, then)
	var entries []client.Entry
	for cursor := int64(0); cursor < j.Cursor; {
		out, err := c.patient.Output(ctx, k.id, cursor, 0)
		if err != nil || len(out.Entries) == 0 {
			c.rec.blame("the output of %s after %d cannot be read to %d: %v", k.id, cursor, j.Cursor, err)
			return j
		}
		entries, cursor = append(entries, out.Entries...), out.Cursor
	}
	c.rec.readWhole(k.id, entries, j.Cursor, then)
	return j
}

// each calls f for every job, a few at a time.
func (c *crowd) each(jobs []*known, f func(*known)) {
	next := make(chan *known)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for k := range next {
				f(k)
			}
		})
	}
	for _, k := range jobs {
		next <- k
	}
	close(next)
	all.Wait()
}

// settle waits until the server has nothing left to do.
func (c *crowd) settle(ctx context.Context) error {
	for {
		queues, err := c.patient.Queues(ctx)
		if err != nil {
			return fmt.Errorf("the server did not finish what it had to do: %w", err)
		}
		left := 0
		for _, q := range queues {
			left += int(q.Counts.Scheduled + q.Counts.Queued + q.Counts.Parked + q.Counts.Running)
		}
		if left == 0 {
			return nil
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// lookAtAll asks about every job, when all is over: each has ended, with its own
// result, and the server has no job that nobody asked for.
func (c *crowd) lookAtAll(ctx context.Context) {
	c.each(c.rec.all(func(*known) bool { return true }), func(k *known) {
		j := c.look(ctx, k)
		if j != nil && !j.Status.Ended() {
			c.rec.blame("%s never ended: it is %s", k.id, j.Status)
		}
		if j != nil && j.Status == client.Succeeded {
			c.checkResult(k, j)
		}
		lost := j != nil && j.Error != nil && j.Error.Code == "worker_lost" && j.Attempt >= mostLosses
		if j != nil && j.Status == client.Failed && k.retries == 0 && j.Error != nil && j.Error.Code != "asked_for" && !lost {
			c.rec.blame("%s failed, which nobody asked for: %s", k.id, j.Error.Message)
		}
	})
	c.checkList(ctx)
}

// checkResult compares a result with what the job was to give back.
func (c *crowd) checkResult(k *known, j *client.Job) {
	var in, out struct{ Echo string }
	if json.Unmarshal(k.sub.Input.(json.RawMessage), &in) != nil || json.Unmarshal(j.Result, &out) != nil || in.Echo != out.Echo {
		c.rec.blame("the result of %s is %s, it was to be of %s", k.id, j.Result, k.sub.Input)
	}
}

// checkList compares the server's list with the record.
func (c *crowd) checkList(ctx context.Context) {
	listed := map[string]bool{}
	for j, err := range c.patient.List(ctx, client.ListOptions{Filter: client.Filter{Queue: "sim"}, Limit: 100}) {
		if err != nil {
			c.rec.blame("the list cannot be read: %v", err)
			return
		}
		if listed[j.ID] {
			c.rec.blame("%s is listed twice", j.ID)
		}
		listed[j.ID] = true
	}
	known := c.rec.all(func(*known) bool { return true })
	for _, k := range known {
		if !listed[k.id] {
			c.rec.blame("%s is not in the list", k.id)
		}
		delete(listed, k.id)
	}
	for id := range listed {
		c.rec.blame("%s is in the list, and nobody submitted it", id)
	}
}
