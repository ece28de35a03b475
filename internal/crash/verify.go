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

const sample = 400 // number of ended jobs that are verified after each restart

// maxLosses is the number of lost attempts after which the server fails a job.
const maxLosses = 5

// verifyAfterRestart compares a restarted server with the record. It submits every
// unanswered submission and a sample of the others again, and reads every unfinished job
// and a sample of the others.
func (c *clients) verifyAfterRestart(ctx context.Context, rng *rand.Rand) {
	for _, s := range c.rec.unansweredSubmissions() {
		c.resubmit(ctx, s)
	}
	finished := c.rec.jobsWhere(func(k *jobRecord) bool { return len(k.ends) > 0 })
	rng.Shuffle(len(finished), func(i, j int) { finished[i], finished[j] = finished[j], finished[i] })
	finished = finished[:min(sample, len(finished))]
	c.each(finished, func(k *jobRecord) { c.resubmit(ctx, k.sub) })
	unfinished := c.rec.jobsWhere(func(k *jobRecord) bool { return len(k.ends) == 0 })
	c.each(append(unfinished, finished...), func(k *jobRecord) { c.readJob(ctx, k) })
}

// resubmit submits again. The server must return the same job for the same key.
func (c *clients) resubmit(ctx context.Context, s client.Submission) {
	began := c.hist.now()
	j, err := c.retrying.Submit(ctx, s)
	c.hist.add(s.IdempotencyKey, submitVerb, began, j, err)
	if err != nil {
		c.rec.addViolation("the submission %s was repeated and failed: %v", s.IdempotencyKey, err)
		return
	}
	c.rec.recordAcknowledgement(s, j.ID)
}

// readJob reads a job and its whole output.
func (c *clients) readJob(ctx context.Context, k *jobRecord) *client.Job {
	then, began := c.rec.snapshot(k.id), c.hist.now()
	j, err := c.retrying.Get(ctx, k.id)
	c.hist.add(k.sub.IdempotencyKey, getVerb, began, j, err)
	if err != nil {
		c.rec.addViolation("the acknowledged job %s cannot be read: %v", k.id, err)
		return nil
	}
	c.rec.observe(j, then)
	var entries []client.Entry
	for cursor := int64(0); cursor < j.Cursor; {
		out, err := c.retrying.Output(ctx, k.id, cursor, 0)
		if err != nil || len(out.Entries) == 0 {
			c.rec.addViolation("the output of %s after %d cannot be read to %d: %v", k.id, cursor, j.Cursor, err)
			return j
		}
		entries, cursor = append(entries, out.Entries...), out.Cursor
	}
	c.rec.observeOutput(k.id, entries, j.Cursor, then)
	return j
}

// each calls f for every job, in eight goroutines.
func (c *clients) each(jobs []*jobRecord, f func(*jobRecord)) {
	next := make(chan *jobRecord)
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

// waitUntilIdle waits until the server has no unfinished job.
func (c *clients) waitUntilIdle(ctx context.Context) error {
	for {
		queues, err := c.retrying.Queues(ctx)
		if err != nil {
			return fmt.Errorf("the server did not finish its jobs: %w", err)
		}
		left := 0
		for _, q := range queues {
			left += int(q.Counts.Scheduled + q.Counts.Queued + q.Counts.Parked + q.Counts.Running)
		}
		if left == 0 {
			return nil
		}
		sleep(ctx, 20*time.Millisecond)
	}
}

// verifyAll verifies every job at the end of the run: it has ended, with its own result,
// and the server has no other jobs.
func (c *clients) verifyAll(ctx context.Context) {
	c.each(c.rec.jobsWhere(func(*jobRecord) bool { return true }), func(k *jobRecord) {
		j := c.readJob(ctx, k)
		if j != nil && !j.Status.Ended() {
			c.rec.addViolation("%s never ended: it is %s", k.id, j.Status)
		}
		if j != nil && k.sub.Queue == workQueue {
			c.holders.verify(k, j.Result)
		} else if j != nil && j.Status == client.Succeeded {
			c.checkResult(k, j)
		}
		// A job fails after maxLosses lost attempts, and every kill loses one. That is no
		// violation.
		lost := j != nil && j.Error != nil && j.Error.Code == "worker_lost" && j.Attempt >= maxLosses
		if j != nil && j.Status == client.Failed && k.retries == 0 && j.Error != nil && j.Error.Code != "asked_for" && !lost {
			c.rec.addViolation("%s failed unexpectedly: %s", k.id, j.Error.Message)
		}
	})
	c.checkList(ctx)
	c.verifyDeliveries(ctx)
	jobs, calls, violations := c.hist.verify()
	for _, v := range violations {
		c.rec.addViolation("%s", v)
	}
	fmt.Printf("%d calls about %d jobs were checked for linearizability\n", calls, jobs)
}

// checkResult compares a result with the echo in the input.
func (c *clients) checkResult(k *jobRecord, j *client.Job) {
	var in, out struct{ Echo string }
	if json.Unmarshal(k.sub.Input.(json.RawMessage), &in) != nil || json.Unmarshal(j.Result, &out) != nil || in.Echo != out.Echo {
		c.rec.addViolation("the result of %s is %s, want the echo of %s", k.id, j.Result, k.sub.Input)
	}
}

// checkList compares the server's list of jobs with the record.
func (c *clients) checkList(ctx context.Context) {
	listed := map[string]bool{}
	for j, err := range c.retrying.List(ctx, client.ListOptions{Limit: 100}) {
		if err != nil {
			c.rec.addViolation("the list cannot be read: %v", err)
			return
		}
		if listed[j.ID] {
			c.rec.addViolation("%s is listed twice", j.ID)
		}
		if j.Queue != callbackQueue {
			listed[j.ID] = true
		}
	}
	known := c.rec.jobsWhere(func(*jobRecord) bool { return true })
	for _, k := range known {
		if !listed[k.id] {
			c.rec.addViolation("%s is not in the list", k.id)
		}
		delete(listed, k.id)
	}
	for id := range listed {
		c.rec.addViolation("%s is in the list, but was never submitted", id)
	}
}
