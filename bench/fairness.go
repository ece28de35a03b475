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
	manyHeavy    = 100_000
	manyLight    = 50
	fairAtOnce   = 10
	fairRun      = 50 * time.Millisecond // of each job: so 200 a second start
	fairDelay    = 500 * time.Millisecond
	heavyKey     = "heavy"
	delayedEvery = 5 // of the light jobs, one in so many
)

// fairness measures how long the one job of a key waits behind the many of another.
func (o *Options) fairness(ctx context.Context, f *Figure) error {
	heavy, light := o.scaled(manyHeavy), max(2, o.scaled(manyLight))
	f.How = fmt.Sprintf("a key with %d jobs, and %d keys with one job each that arrive while it runs, with cancels and delays", heavy, light)
	t, err := o.openOwn(ctx, simQueue(fairAtOnce, 2*heavy+10_000))
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
	ended, err := o.lightJobs(ctx, c, light)
	if err != nil {
		return err
	}
	starts, err := heavyStarts(ctx, c)
	if err != nil {
		return err
	}
	fair(f, ended, starts)
	return nil
}

func fairJob(key string, delay time.Duration) client.Submission {
	return client.Submission{Queue: "sim", Key: key, Delay: delay, Input: map[string]any{"duration_ms": fairRun.Milliseconds()}}
}

// lightJobs submits one job for each of n keys, half of them spread over the time
// and half at once in the middle of it, and returns them as they ended.
func (o *Options) lightJobs(ctx context.Context, c *client.Client, n int) ([]waited, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	jobs := make([]waited, n)
	var all sync.WaitGroup
	for i := range n {
		at := o.Duration / 2
		if i%2 == 0 {
			at = o.Duration * time.Duration(i) / time.Duration(n)
		}
		all.Go(func() {
			err := pause(ctx, at)
			if err == nil {
				jobs[i], err = lightJob(ctx, c, i)
			}
			if err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	return jobs, context.Cause(ctx)
}

// lightJob submits the job of one key, some with a delay, and waits for its end. It
// is ready once it is acknowledged, or its delay is over.
func lightJob(ctx context.Context, c *client.Client, i int) (w waited, err error) {
	if err := stir(ctx, c, i); err != nil {
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
	w.ready = time.Now()
	if j.RunAt.After(w.ready) {
		w.ready = j.RunAt
	}
	j, err = c.Wait(ctx, j.ID)
	if err != nil {
		return w, err
	}
	w.started = j.StartedAt
	return w, nil
}

// stir cancels some of the heavy key's waiting jobs, adds a delayed one to them, and
// cancels the waiting job of a key of its own.
func stir(ctx context.Context, c *client.Client, i int) error {
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

// heavyStarts are the times at which jobs of the heavy key started, in order.
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

// waited is a light job that is over.
type waited struct{ ready, started time.Time }

// fair counts, for every light job, the heavy key's starts between its being ready
// and its own start.
func fair(f *Figure, light []waited, heavy []time.Time) {
	most := 0
	var waits []time.Duration
	for _, l := range light {
		waits = append(waits, max(0, l.started.Sub(l.ready)))
		before, _ := slices.BinarySearchFunc(heavy, l.ready, after)
		until, _ := slices.BinarySearchFunc(heavy, l.started, time.Time.Compare)
		most = max(most, until-before)
	}
	f.fact("jobs at once", fairAtOnce, fmt.Sprintf("of %s each", fairRun))
	f.fact("starts of the heavy key", float64(len(heavy)), "")
	f.spread("wait of a light job", waits)
	f.most("turns of the heavy key while a light one waited", float64(most), 2, "")
}

// after finds the first time that is after another.
func after(a, b time.Time) int {
	if a.After(b) {
		return 1
	}
	return -1
}
