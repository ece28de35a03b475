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
	fullQueueJobs      = 1_000_000
	measuredClaims     = 20_000 // fewer claims take too little time to measure
	backlogConnections = 64     // connections
)

// backlog compares a very long queue with an empty one: submits while it is paused, claims
// after it resumes, memory, and the time of a restart.
func (o *Options) backlog(ctx context.Context, f *Figure) error {
	n := o.scaled(fullQueueJobs)
	f.How = fmt.Sprintf("a queue with %d jobs in it, beside an empty one", n)
	o.Step("backlog: the empty queue")
	empty, err := o.measureQueue(ctx, 0, min(measuredClaims, n))
	if err != nil {
		return err
	}
	o.Step("backlog: " + f.How)
	// Both queues are measured in the same run, so that the machine and the disk are the
	// same.
	full, err := o.measureQueue(ctx, n, min(measuredClaims, n))
	if err != nil {
		return err
	}
	empty.report(f, "empty")
	full.report(f, "full")
	f.goalMin("submits, full beside empty", 100*full.submitRate/empty.submitRate, 80, "%")
	f.goalMin("claims, full beside empty", 100*full.claimRate/empty.claimRate, 80, "%")
	f.goalMax("growth of memory", mib(full.settled-full.before), 64, "MiB")
	f.goalMax("ready after a restart", full.restartTime.Seconds(), 2, "s")
	return nil
}

// queueMeasurement has the measurements of a queue with a number of waiting jobs.
type queueMeasurement struct {
	jobs           int
	before, filled int64 // bytes of memory, before and after filling the queue
	settled        int64 // some seconds later, when the garbage of the filling is collected
	fillRate       float64
	restartTime    time.Duration // time from the start of the process until it was ready
	submits        []time.Duration
	submitRate     float64 // jobs per second
	claimRate      float64 // jobs claimed and done per second
}

func (l queueMeasurement) report(f *Figure, name string) {
	if l.jobs > 0 {
		f.fact("filled at", l.fillRate, "jobs/s")
		f.fact("memory before", mib(l.before), "MiB")
		f.fact("memory when just filled", mib(l.filled), "MiB")
		f.fact("memory seconds later", mib(l.settled), "MiB")
	}
	f.fact(name+": submitted", l.submitRate, "a second")
	f.spread(name+": a submit", l.submits)
	f.fact(name+": claimed and done", l.claimRate, "a second")
}

// measureQueue measures a paused queue with n waiting jobs: the rate of further submits, and
// the rate at which its first jobs run after it resumes. claims is the number of these jobs.
func (o *Options) measureQueue(ctx context.Context, n, claims int) (l queueMeasurement, err error) {
	l.jobs = n
	t, err := o.startTarget(ctx, simQueue(1000, 100_000_000))
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
	c, closeClient, err := dialLean(ctx, t.url)
	if err != nil {
		return l, err
	}
	defer closeClient()
	// The bench allocates much. With the default GOGC its collector would take CPU time
	// from the server.
	defer debug.SetGCPercent(debug.SetGCPercent(loadGC))
	began := time.Now()
	out, err := runLoad(ctx, backlogConnections, newBudget(maxJobs, o.Duration), o.submitter(c))
	if err != nil {
		return l, err
	}
	l.submits, l.submitRate = out.samples, perSecond(len(out.samples), time.Since(began))
	return l, l.claim(ctx, t, c, claims, o.submission())
}

// fill pauses the queue, fills it and measures the memory.
func (l *queueMeasurement) fill(ctx context.Context, t *target, o *Options) error {
	c, closeClient, err := t.client()
	if err != nil {
		return err
	}
	defer closeClient()
	if q, err := c.Pause(ctx, "sim"); err != nil {
		return err
	} else if !q.Paused {
		return errors.New("the queue was paused but still runs jobs")
	}
	before, err := t.proc.usage()
	if err != nil || l.jobs == 0 {
		return err
	}
	began := time.Now()
	if err := fill(ctx, t.url, l.jobs, o.submission()); err != nil {
		return err
	}
	l.fillRate = perSecond(l.jobs, time.Since(began))
	after, err := t.proc.usage()
	if err != nil {
		return err
	}
	// Garbage of the submits must not count as memory of the waiting jobs.
	if err := sleep(ctx, min(2*settleTime, o.Duration)); err != nil {
		return err
	}
	rested, err := t.proc.usage()
	l.before, l.filled, l.settled = before.resident, after.resident, rested.resident
	return err
}

// restart kills the server, starts it again and measures how long it takes.
func (l *queueMeasurement) restart(ctx context.Context, t *target) error {
	t.proc.kill()
	began := time.Now()
	if err := t.start(ctx); err != nil {
		return err
	}
	l.restartTime = time.Since(began)
	return nil
}

// claim resumes the queue and measures how fast it runs n jobs. It first submits jobs until
// the queue has n.
func (l *queueMeasurement) claim(ctx context.Context, t *target, c *client.Client, n int, s client.Submission) error {
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
	q, err = waitForQueue(ctx, c, func(q *client.Queue) bool { return q.Totals.Succeeded >= int64(n) })
	if err != nil {
		return err
	}
	l.claimRate = perSecond(int(q.Totals.Succeeded), time.Since(began))
	return nil
}
