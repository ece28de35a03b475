package storetest

import (
	"sync"
	"sync/atomic"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func raceRules() []rule {
	return []rule{
		{"a read during commits sees a consistent snapshot", long(readsAreSnapshots)},
		{"a read after a commit sees it", readAfterCommit},
		{"successive reads never see output disappear", readForward},
	}
}

const raceCommits = 80

// readDuring runs each check repeatedly in its own goroutines until write has returned.
func (w *harness) readDuring(write func(), checks ...func() bool) {
	w.Helper()
	var done atomic.Bool
	var readers sync.WaitGroup
	for _, check := range checks {
		for range 2 {
			readers.Go(func() {
				for ok := true; ok && !done.Load(); {
					ok = check()
				}
			})
		}
	}
	defer readers.Wait()
	defer done.Store(true)
	write()
}

// newWriter makes a running job and a function that appends two entries and a progress to it.
// The same commit ends one job of another queue and starts the next one.
func (w *harness) newWriter() (c *job.Claimed, appendNext func(n int)) {
	c = w.running()
	next := w.newSubmit(inQueue("relay"), leasedAs(w.token()))
	w.do(next)
	return c, func(n int) {
		output := newAppend(c.Lease(), 1, int64(2*n), "a", "b")
		output.Progress = &job.Progress{Percent: float64(n + 1)}
		last := job.Lease{Job: next.Job.ID, Token: next.Token}
		next = w.newSubmit(inQueue("relay"), leasedAs(w.token()))
		w.do(output, newFinish(last, job.Succeeded), next)
	}
}

func readsAreSnapshots(w *harness) {
	c, appendNext := w.newWriter()
	output := func() bool {
		j, entries, err := w.store.Output(w.ctx, mine, c.Job.ID, 0, 1<<20)
		if err != nil || int64(len(entries)) != j.Cursor || j.Progress.Percent*2 != float64(j.Cursor) || j.OutputBytes != j.Cursor {
			w.Errorf("%d entries are read with the cursor %d and the progress %v: %v", len(entries), j.Cursor, j.Progress, err)
			return false
		}
		return true
	}
	list := func() bool {
		page, next, err := w.store.List(w.ctx, job.Filter{Owner: mine, Queue: "relay", Status: job.Running, Limit: 10})
		cut := next != job.ID{} // the page was short: the job may be on the next one
		if err != nil || len(page) != 1 && !cut {
			w.Errorf("the queue always has one running job, %d are listed, %v", len(page), err)
			return false
		}
		return true
	}
	counts := func() bool {
		counts, err := w.store.Counts(w.ctx)
		if err != nil || counts["relay"].Running != 1 {
			w.Errorf("the queue always has one running job, %d are counted, %v", counts["relay"].Running, err)
			return false
		}
		return true
	}
	w.readDuring(func() {
		for n := range raceCommits {
			appendNext(n)
		}
	}, output, list, counts)
}

func readAfterCommit(w *harness) {
	c, appendNext := w.newWriter()
	var committed atomic.Int64
	reader := func() bool {
		written := committed.Load()
		j, entries, err := w.store.Output(w.ctx, mine, c.Job.ID, written, 1<<20)
		if err != nil || j.Cursor < written || (len(entries) > 0 && entries[0].Seq != written+1) {
			w.Errorf("a read after the commit of entry %d has the cursor %d, %v", written, j.Cursor, err)
			return false
		}
		return true
	}
	w.readDuring(func() {
		for n := range raceCommits {
			appendNext(n)
			committed.Store(int64(2*n + 2))
			wantEqual(w, "the cursor after the commit", w.job(c.Job.ID).Cursor, int64(2*n+2))
		}
	}, reader)
}

func readForward(w *harness) {
	c, appendNext := w.newWriter()
	follower := func() func() bool {
		var mu sync.Mutex
		var last int64
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			_, entries, err := w.store.Output(w.ctx, mine, c.Job.ID, last, 64)
			for _, e := range entries {
				last++
				if e.Seq != last || string(e.Data) != []string{"b", "a"}[last%2] {
					err = job.Errorf(job.Internal, "entry %d is %q after %d were read", e.Seq, e.Data, last-1)
				}
			}
			if err != nil {
				w.Errorf("a reader failed: %v", err)
			}
			return err == nil
		}
	}
	w.readDuring(func() {
		for n := range raceCommits {
			appendNext(n)
		}
	}, follower(), follower())
}
