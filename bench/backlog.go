package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

const (
	manyQueued    = 1_000_000
	fewQueued     = 20_000 // claims cannot be measured of fewer
	backlogAtOnce = 64     // connections
)

// backlog measures a queue with very many jobs in it beside an empty one: submits
// while it is paused, claims when it goes on, its memory, and a restart.
func (o *Options) backlog(ctx context.Context, f *Figure) error {
	n := o.scaled(manyQueued)
	f.How = fmt.Sprintf("a queue with %d jobs in it, beside an empty one", n)
	o.Step("backlog: the empty queue")
	empty, err := o.onQueue(ctx, 0, min(fewQueued, n))
	if err != nil {
		return err
	}
	o.Step("backlog: " + f.How)
	full, err := o.onQueue(ctx, n, min(fewQueued, n))
	if err != nil {
		return err
	}
	empty.report(f, "empty")
	full.report(f, "full")
	f.least("submits, full beside empty", 100*full.submitted/empty.submitted, 80, "%")
	f.least("claims, full beside empty", 100*full.claimed/empty.claimed, 80, "%")
	f.most("growth of memory", mib(full.rested-full.before), 64, "MiB")
	f.most("ready after a restart", full.restarted.Seconds(), 2, "s")
	return nil
}

// laden is what was measured of a queue with so many jobs in it.
type laden struct {
	jobs           int
	before, filled int64 // bytes of memory, before and after it was filled
	rested         int64 // and when the garbage of filling it had time to be collected
	filledAt       float64
	restarted      time.Duration // from the start of the process until it was ready
	submits        []time.Duration
	submitted      float64 // a second
	claimed        float64 // and done, a second
}

func (l laden) report(f *Figure, name string) {
	if l.jobs > 0 {
		f.fact("filled at", l.filledAt, "jobs/s")
		f.fact("memory before", mib(l.before), "MiB")
		f.fact("memory when just filled", mib(l.filled), "MiB")
		f.fact("memory seconds later", mib(l.rested), "MiB")
	}
	f.fact(name+": submitted", l.submitted, "a second")
	f.spread(name+": a submit", l.submits)
	f.fact(name+": claimed and done", l.claimed, "a second")
}

// onQueue measures a paused queue with n jobs in it: how fast more are submitted,
// and, when it goes on, how fast it does the first of them.
func (o *Options) onQueue(ctx context.Context, n, claims int) (l laden, err error) {
	l.jobs = n
	t, err := o.openOwn(ctx, simQueue(1000, 100_000_000))
	if err != nil {
		return l, err
	}
	defer t.close()
	if err := l.fill(ctx, t, o); err != nil {
		return l, err
	}
	if n > 0 {
		if err := l.restart(ctx, t); err != nil {
			return l, err
		}
	}
	c, closeClient, err := leaner(ctx, t.url)
	if err != nil {
		return l, err
	}
	defer closeClient()
	defer debug.SetGCPercent(debug.SetGCPercent(loadGC))
	began := time.Now()
	out, err := drive(ctx, backlogAtOnce, newBudget(mostJobs, o.Duration), o.submitter(c))
	if err != nil {
		return l, err
	}
	l.submits, l.submitted = out.samples, perSecond(len(out.samples), time.Since(began))
	return l, l.claim(ctx, t, c, claims, o.submission())
}

// fill pauses the queue and fills it.
func (l *laden) fill(ctx context.Context, t *target, o *Options) error {
	c, closeClient, err := t.client()
	if err != nil {
		return err
	}
	defer closeClient()
	if q, err := c.Pause(ctx, "sim"); err != nil {
		return err
	} else if !q.Paused {
		return errors.New("the queue was told to pause and did not")
	}
	before, err := t.proc.usage()
	if err != nil || l.jobs == 0 {
		return err
	}
	began := time.Now()
	if err := fill(ctx, t.url, l.jobs, o.submission()); err != nil {
		return err
	}
	l.filledAt = perSecond(l.jobs, time.Since(began))
	after, err := t.proc.usage()
	if err != nil {
		return err
	}
	if err := pause(ctx, min(2*restTime, o.Duration)); err != nil {
		return err
	}
	rested, err := t.proc.usage()
	l.before, l.filled, l.rested = before.resident, after.resident, rested.resident
	return err
}

// restart kills the server and starts it again.
func (l *laden) restart(ctx context.Context, t *target) error {
	t.proc.kill()
	began := time.Now()
	if err := t.start(ctx); err != nil {
		return err
	}
	l.restarted = time.Since(began)
	return nil
}

// claim lets the queue go on and measures how fast it does so many jobs. There are
// at least so many in it.
func (l *laden) claim(ctx context.Context, t *target, c *client.Client, n int, s client.Submission) error {
	q, err := c.Queue(ctx, "sim")
	if err != nil {
		return err
	}
	if missing := n - int(q.Counts.Unfinished()); missing > 0 {
		if err := fill(ctx, t.url, missing, s); err != nil {
			return err
		}
	}
	began := time.Now()
	if _, err := c.Resume(ctx, "sim"); err != nil {
		return err
	}
	q, err = untilQueue(ctx, c, func(q *client.Queue) bool { return q.Totals.Succeeded >= int64(n) })
	if err != nil {
		return err
	}
	l.claimed = perSecond(int(q.Totals.Succeeded), time.Since(began))
	return nil
}
