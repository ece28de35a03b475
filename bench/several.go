package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// The benches of several servers on one database.
const (
	processCount       = 3
	processConnections = 64
	pickupJobs         = 500
	snapshotRate       = 800 // jobs per second while the snapshot is open
	burstTime          = 5 * time.Second
)

// processes compares three servers with one. The machine is the same: it shows what servers cost
// each other.
func (o *Options) processes(ctx context.Context, f *Figure) error {
	f.How = fmt.Sprintf("the load of %d connections, spread over %d servers of one database, beside one server", processConnections, processCount)
	var rates [2]float64
	for i, n := range []int{1, processCount} {
		o.Step(fmt.Sprintf("processes: %d of them", n))
		t, err := o.startTarget(ctx, "")
		if err != nil {
			return err
		}
		err = t.startPeers(ctx, n-1)
		if err == nil {
			rates[i], err = o.burst(ctx, t, o.Duration)
		}
		t.close()
		if err != nil {
			return err
		}
	}
	f.fact("one server", rates[0], "jobs/s")
	f.fact(fmt.Sprintf("%d servers", processCount), rates[1], "jobs/s")
	f.goalMin("rate beside one server", 100*rates[1]/rates[0], 90, "%")
	return nil
}

// burst submits as fast as it can, to all servers of the target, and returns the rate at which jobs
// ended.
func (o *Options) burst(ctx context.Context, t *target, d time.Duration) (float64, error) {
	var submits []func(context.Context) error
	for _, url := range t.urls() {
		c, closeClient, err := dialLean(ctx, url)
		if err != nil {
			return 0, err
		}
		defer closeClient()
		submits = append(submits, o.submitter(c))
	}
	look, closeLook, err := t.client()
	if err != nil {
		return 0, err
	}
	defer closeLook()
	var n atomic.Int64
	began := time.Now()
	out, err := runLoad(ctx, processConnections, newBudget(o.MaxJobs, d), func(ctx context.Context) error {
		return submits[int(n.Add(1))%len(submits)](ctx)
	})
	if err != nil {
		return 0, err
	}
	if _, _, err := drain(ctx, look); err != nil {
		return 0, err
	}
	return perSecond(len(out.samples), time.Since(began)), nil
}

// pickup measures a job that is submitted to one server, runs on another and is waited for on a
// third. The first and the third run one job each and are busy with it.
func (o *Options) pickup(ctx context.Context, f *Figure) error {
	n := o.scaled(pickupJobs)
	f.How = fmt.Sprintf("%d jobs one after another, each submitted to a server, run by another and waited for on a third", n)
	t, err := o.startTarget(ctx, simQueue(1, 1000))
	if err != nil {
		return err
	}
	defer t.close()
	if err := t.startPeers(ctx, 1); err != nil {
		return err
	}
	o.Step("pickup: " + f.How)
	submitTo, closeSubmit, err := t.client()
	if err != nil {
		return err
	}
	defer closeSubmit()
	watchOn, closeWatch, err := dialPlain(ctx, t.peers[0].url)
	if err != nil {
		return err
	}
	defer closeWatch()
	// Each of the two servers takes one of these, and runs nothing else.
	for range 2 {
		if _, err := submitTo.Submit(ctx, client.Submission{Queue: "sim", Input: json.RawMessage(`{"duration_ms":3600000}`)}); err != nil {
			return err
		}
	}
	if _, err := waitForQueue(ctx, submitTo, func(q *client.Queue) bool { return q.Counts.Running == 2 }); err != nil {
		return err
	}
	if err := t.configure(simQueue(100, 1000)); err != nil {
		return err
	}
	if err := t.startPeers(ctx, 1); err != nil {
		return err
	}
	s := o.submission()
	out, err := runLoad(ctx, 1, newBudget(n, 0), func(ctx context.Context) error {
		j, err := submitTo.Submit(ctx, s)
		if err == nil {
			j, err = watchOn.Wait(ctx, j.ID)
		}
		if err == nil && j.Status != client.Succeeded {
			err = fmt.Errorf("the job %s is %s", j.ID, j.Status)
		}
		return err
	})
	if err != nil {
		return err
	}
	l := f.spread("from the submit to the end", out.samples)
	f.goalMax("P50", l.P50, 8, "ms")
	f.goalMax("P99", l.P99, 40, "ms")
	return nil
}

// openSnapshot measures what a session costs that holds a snapshot open, so that the database cannot
// clean up behind the jobs that end meanwhile.
func (o *Options) openSnapshot(ctx context.Context, f *Figure) error {
	f.How = fmt.Sprintf("another session holds a snapshot open for %s under %d jobs/s", o.Duration, snapshotRate)
	t, err := o.startTarget(ctx, "")
	if err != nil {
		return err
	}
	defer t.close()
	burst := min(burstTime, o.Duration)
	o.Step("open-snapshot: the rate before")
	before, err := o.burst(ctx, t, burst)
	if err != nil {
		return err
	}
	release, err := t.schema.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	o.Step("open-snapshot: " + f.How)
	c, closeClient, err := dialLean(ctx, t.url)
	if err != nil {
		return err
	}
	defer closeClient()
	submit, began := o.submitter(c), time.Now()
	var sent atomic.Int64
	out, err := runLoad(ctx, processConnections, newBudget(o.MaxJobs, o.Duration), func(ctx context.Context) error {
		at := began.Add(time.Duration(sent.Add(1)) * time.Second / snapshotRate)
		if err := sleep(ctx, time.Until(at)); err != nil {
			return err
		}
		return submit(ctx)
	})
	if err != nil {
		return err
	}
	f.fact("submitted meanwhile", perSecond(len(out.samples), time.Since(began)), "jobs/s")
	o.Step("open-snapshot: the rate at its end")
	after, err := o.burst(ctx, t, burst)
	if err != nil {
		return err
	}
	f.fact("before", before, "jobs/s")
	f.fact("at the end", after, "jobs/s")
	f.goalMin("rate at the end", 100*after/before, 80, "%")
	return nil
}
