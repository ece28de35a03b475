package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sort"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

const (
	endedJobs            = 600_000 // one job per second for a week
	retentionConnections = 64      // connections
	// The retention time must be long enough to make the ended jobs and to measure a load
	// before the first one is deleted.
	minRetention = 3 * time.Second
	minEndRate   = 8000 // jobs per second
	// The server looks for old jobs only now and then. The bench waits for the first
	// deletion up to this many times the duration of a load.
	deleteTimeoutFactor = 4
)

// retention measures a load while a week's worth of ended jobs is deleted, and the same
// load while they are kept.
func (o *Options) retention(ctx context.Context, f *Figure) error {
	n := o.scaled(endedJobs)
	f.How = fmt.Sprintf("the load of throughput while %d ended jobs are deleted, beside the same while they are kept", n)
	keep := minRetention + 2*o.Duration + time.Duration(n)*time.Second/minEndRate
	t, err := o.startTarget(ctx, fmt.Sprintf("retention:\n  failed_s: %[1]g\n  others_s: %[1]g\n", keep.Seconds())+simQueue(1000, 100_000))
	if err != nil {
		return err
	}
	defer t.close()
	o.Step(fmt.Sprintf("retention: %d jobs that end", n))
	ids, err := o.makeEndedJobs(ctx, t, n)
	if err != nil {
		return err
	}
	filled := time.Now()
	o.Step("retention: a load while they are kept")
	kept, err := o.restartAndLoad(ctx, t)
	if err != nil {
		return err
	}
	// A running server would delete each job as soon as it is due. After the restart all of
	// them are due at once.
	t.proc.stop()
	o.Step("retention: waiting until they may be deleted, and are")
	if err := sleep(ctx, keep-time.Since(filled)); err != nil {
		return err
	}
	if err := t.start(ctx); err != nil {
		return err
	}
	before, err := o.waitUntilDeleting(ctx, t, ids)
	if err != nil {
		return err
	}
	o.Step("retention: a load while they are deleted")
	deleted, err := o.load(ctx, t)
	if err != nil {
		return err
	}
	after, err := countDeleted(ctx, t, ids)
	if err != nil {
		return err
	}
	f.fact("connections", retentionConnections, "")
	f.fact("kept for", keep.Seconds(), "s")
	reportLoads(f, kept, deleted)
	f.goalMin("deleted meanwhile, about", float64((after-before)*n/len(ids)), 1, "jobs")
	return nil
}

// retentionLoad is the result of one load.
type retentionLoad struct {
	submits []time.Duration
	perS    float64
}

func reportLoads(f *Figure, kept, deleted retentionLoad) {
	f.fact("done while kept", kept.perS, "jobs/s")
	a := f.spread("a submit while kept", kept.submits)
	f.fact("done while deleted", deleted.perS, "jobs/s")
	b := f.spread("a submit while deleted", deleted.submits)
	f.goalMin("throughput beside that without", 100*deleted.perS/kept.perS, 90, "%")
	f.goalMax("P99 of a submit beside that without", b.P99/a.P99, 2, "times")
}

// makeEndedJobs runs n jobs and returns the ids of some, oldest first.
func (o *Options) makeEndedJobs(ctx context.Context, t *target, n int) (ids []string, err error) {
	c, closeClient, err := dialLean(ctx, t.url)
	if err != nil {
		return nil, err
	}
	defer closeClient()
	var limit backlogLimit
	for i := range (n + fillBatch - 1) / fillBatch {
		if err := limit.wait(ctx, c, fillBatch); err != nil {
			return nil, err
		}
		answers, err := c.SubmitBatch(ctx, client.Batch{Jobs: repeatJob(o.submission(), min(fillBatch, n-i*fillBatch))})
		if err != nil {
			return nil, err
		}
		if answers[0].Job != nil {
			ids = append(ids, answers[0].Job.ID)
		}
	}
	_, err = waitUntilDone(ctx, c)
	return ids, err
}

// waitUntilDeleting waits until the oldest jobs are deleted and returns how many are. It
// gives up after deleteTimeoutFactor times the duration of a load.
func (o *Options) waitUntilDeleting(ctx context.Context, t *target, ids []string) (n int, err error) {
	for end := time.Now().Add(deleteTimeoutFactor * o.Duration); time.Now().Before(end) && n == 0 && err == nil; {
		if err = sleep(ctx, 50*time.Millisecond); err == nil {
			n, err = countDeleted(ctx, t, ids)
		}
	}
	return n, err
}

// countDeleted returns how many of the jobs are deleted. The ids are ordered by age, and
// the oldest jobs are deleted first, so a binary search finds the number.
func countDeleted(ctx context.Context, t *target, ids []string) (int, error) {
	c, closeClient, err := t.client()
	if err != nil {
		return 0, err
	}
	defer closeClient()
	// A search needs few requests: reading every id would be a load of its own.
	n := sort.Search(len(ids), func(i int) bool {
		_, e := c.Get(ctx, ids[i])
		if client.CodeOf(e) == client.CodeNotFound {
			return false
		}
		err = errors.Join(err, e)
		return true
	})
	return n, err
}

// restartAndLoad restarts the server before the load, so that both loads start from the
// same state.
func (o *Options) restartAndLoad(ctx context.Context, t *target) (retentionLoad, error) {
	t.proc.stop()
	if err := t.start(ctx); err != nil {
		return retentionLoad{}, err
	}
	return o.load(ctx, t)
}

// load runs the same kind of load as throughput.
func (o *Options) load(ctx context.Context, t *target) (retentionLoad, error) {
	c, closeClient, err := dialLean(ctx, t.url)
	if err != nil {
		return retentionLoad{}, err
	}
	defer closeClient()
	defer debug.SetGCPercent(debug.SetGCPercent(loadGC))
	began := time.Now()
	out, err := runLoad(ctx, retentionConnections, newBudget(o.MaxJobs, o.Duration), o.submitter(c))
	if err != nil {
		return retentionLoad{}, err
	}
	if _, err := waitUntilDone(ctx, c); err != nil {
		return retentionLoad{}, err
	}
	return retentionLoad{out.samples, perSecond(len(out.samples), time.Since(began))}, nil
}
