package bench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

const (
	heavyJobs       = 100_000
	lightKeys       = 50
	fairConcurrency = 10
	fairJobTime     = 50 * time.Millisecond // of each job, so that 200 jobs start per second
	fairDelay       = 500 * time.Millisecond
	heavyKey        = "heavy"
	delayedEvery    = 5 // every fifth light job is delayed
)

// fairness measures how long the only job of a key waits behind the many jobs of another.
func (o *Options) fairness(ctx context.Context, f *Figure) error {
	heavy, light := o.scaled(heavyJobs), max(2, o.scaled(lightKeys))
	f.How = fmt.Sprintf("a key with %d jobs, and %d keys with one job each that arrive while it runs, with cancels and delays", heavy, light)
	t, err := o.startTarget(ctx, simQueue(fairConcurrency, 2*heavy+10_000))
	if err != nil {
		return err
	}
	defer t.close()
	c, closeClient, err := t.client()
	if err != nil {
		return err
	}
	defer closeClient()
	o.Step(fmt.Sprintf("fairness: %d jobs of one key", heavy))
	if err := fill(ctx, t.url, heavy, fairJob(heavyKey, 0)); err != nil {
		return err
	}
	o.Step(fmt.Sprintf("fairness: %d other keys", light))
	ended, err := o.runLightJobs(ctx, c, light)
	if err != nil {
		return err
	}
	starts, err := heavyStarts(ctx, c)
	if err != nil {
		return err
	}
	reportFairness(f, ended, starts)
	return nil
}

func fairJob(key string, delay time.Duration) client.Submission {
	return client.Submission{Queue: "sim", Key: key, Delay: delay, Input: map[string]any{"duration_ms": fairJobTime.Milliseconds()}}
}

// runLightJobs submits one job for each of n keys and returns the results. Half of the
// jobs are spread over the time; the others are submitted together in the middle of it.
func (o *Options) runLightJobs(ctx context.Context, c *client.Client, n int) ([]lightResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	jobs := make([]lightResult, n)
	var all sync.WaitGroup
	for i := range n {
		at := o.Duration / 2
		// Half of the jobs arrive spread out, half at once: both patterns must be fair.
		if i%2 == 0 {
			at = o.Duration * time.Duration(i) / time.Duration(n)
		}
		all.Go(func() {
			err := sleep(ctx, at)
			if err == nil {
				jobs[i], err = runLightJob(ctx, c, i)
			}
			if err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	return jobs, context.Cause(ctx)
}

// runLightJob submits the job of one key, some with a delay, and waits for its end. The
// job is ready when it is acknowledged or when its delay is over.
func runLightJob(ctx context.Context, c *client.Client, i int) (w lightResult, err error) {
	if err := disturb(ctx, c, i); err != nil {
		return w, err
	}
	delay := time.Duration(0)
	if i%delayedEvery == 0 {
		delay = fairDelay
	}
	j, err := c.Submit(ctx, fairJob(fmt.Sprintf("light %d", i), delay))
	if err != nil {
		return w, err
	}
	w.readyAt = time.Now()
	// A delayed job is ready only when its delay is over.
	if j.RunAt.After(w.readyAt) {
		w.readyAt = j.RunAt
	}
	j, err = c.Wait(ctx, j.ID)
	if err != nil {
		return w, err
	}
	w.startedAt = j.StartedAt
	return w, nil
}

// disturb makes changes that must not break the order. It cancels some waiting jobs of the
// heavy key, adds a delayed one, and cancels the only waiting job of another key.
func disturb(ctx context.Context, c *client.Client, i int) error {
	key := heavyKey
	page, err := c.Page(ctx, client.ListOptions{Filter: client.Filter{Queue: "sim", Status: client.Queued, Key: &key}, Limit: 5})
	if err != nil {
		return err
	}
	for _, j := range page.Jobs {
		if _, err := c.Cancel(ctx, j.ID); err != nil {
			return err
		}
	}
	if _, err := c.Submit(ctx, fairJob(heavyKey, fairDelay)); err != nil {
		return err
	}
	j, err := c.Submit(ctx, fairJob(fmt.Sprintf("cancelled %d", i), 0))
	if err != nil {
		return err
	}
	_, err = c.Cancel(ctx, j.ID)
	return err
}

// heavyStarts returns the times at which jobs of the heavy key started, in order.
func heavyStarts(ctx context.Context, c *client.Client) ([]time.Time, error) {
	key := heavyKey
	var starts []time.Time
	for j, err := range c.List(ctx, client.ListOptions{Filter: client.Filter{Queue: "sim", Status: client.Succeeded, Key: &key}, Limit: 100}) {
		if err != nil {
			return nil, err
		}
		starts = append(starts, j.StartedAt)
	}
	slices.SortFunc(starts, time.Time.Compare)
	return starts, nil
}

// lightResult has the times of an ended light job.
type lightResult struct{ readyAt, startedAt time.Time }

// reportFairness counts, for every light job, how many jobs of the heavy key started
// between the time it was ready and its own start.
func reportFairness(f *Figure, light []lightResult, heavy []time.Time) {
	turns := 0
	var waits []time.Duration
	for _, l := range light {
		waits = append(waits, max(0, l.startedAt.Sub(l.readyAt)))
		before, _ := slices.BinarySearchFunc(heavy, l.readyAt, compareAfter)
		until, _ := slices.BinarySearchFunc(heavy, l.startedAt, time.Time.Compare)
		turns = max(turns, until-before)
	}
	f.fact("jobs at once", fairConcurrency, fmt.Sprintf("of %s each", fairJobTime))
	f.fact("starts of the heavy key", float64(len(heavy)), "")
	f.spread("wait of a light job", waits)
	f.goalMax("turns of the heavy key while a light one waited", float64(turns), 2, "")
}

// compareAfter is for a binary search of the first time after b. It never returns 0: equal
// times count as earlier.
func compareAfter(a, b time.Time) int {
	if a.After(b) {
		return 1
	}
	return -1
}
