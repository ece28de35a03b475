package storetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func sharedUpkeepRules() []rule {
	return []rule{
		{"a due job is moved once, and the commit that moved it reports it", racedDues},
		{"an expired job is deleted once, and the totals agree", racedPrunes},
		{"the counts of the last commit equal the stored counts", racedCounts},
		{"after any mix of ops at every store the counts are the sum of the answers", long(countsAfterMix)},
	}
}

func racedDues(w *harness) {
	for round := range rounds {
		unlimited, limited := fmt.Sprint("unlimited", round), fmt.Sprint("limited", round)
		w.setLimits(limited, job.Limits{KeyRunning: 1})
		ready := w.submitMany(4, inQueue(unlimited), delayed(time.Second))
		expire := w.submitMany(3, inQueue(unlimited), withQueueTimeout(time.Second))
		parked := w.submitMany(5, inQueue(limited))[1:]
		w.setLimits(limited, job.Limits{KeyRunning: 3})
		w.advance(2 * time.Second)
		a, b := newDue(), newDue()
		raced := w.race(round, a, b)
		wantEqual(w, "the jobs that became ready", a.Ready+b.Ready, len(ready)+2)
		expired := append(ids(a.Expired), ids(b.Expired)...)
		wantEqual(w, "the jobs that expired", fmt.Sprint(sorted(expired)), fmt.Sprint(sorted(expire)))
		var moved []job.ID
		for _, b := range raced {
			for _, m := range b.Moved {
				wantEqual(w, "the state that a job was moved to", m.State, job.Queued)
				moved = append(moved, m.ID)
			}
		}
		wantEqual(w, "the jobs that were moved", fmt.Sprint(sorted(moved)), fmt.Sprint(sorted(append(ready, parked[:2]...))))
		w.wantStates("after a due", job.Queued, ready...)
		w.wantStates("after a due", job.Expired, expire...)
		wantEqual(w, "the counts", w.counts(limited), job.Counts{Queued: 3, Parked: 2})
	}
}

func racedPrunes(w *harness) {
	for round := range rounds {
		name := withTally(fmt.Sprint(round))
		large := withInput(strings.Repeat("large ", 4000))
		kept, gone := w.submit(inQueue("kept")), w.submitMany(6, withFiles("a"), name, large)
		before, err := w.store.Size(w.ctx)
		var ends []any
		for _, id := range gone {
			ends = append(ends, newCancel(id))
		}
		w.do(ends...)
		w.advance(2 * keep)
		a, b := newPrune(), newPrune()
		raced := w.race(round, a, b)
		wantEqual(w, "the jobs that were deleted", a.Deleted+b.Deleted, len(gone))
		removed := append(raced[0].Removed, raced[1].Removed...)
		wantEqual(w, "the jobs with files that were removed", fmt.Sprint(sorted(removed)), fmt.Sprint(sorted(gone)))
		w.eachStore(func() {
			after, err2 := w.store.Size(w.ctx)
			if err != nil || err2 != nil || after >= before {
				w.Errorf("the size was %d before the prunes, and is %d: %v, %v", before, after, err, err2)
			}
			wantEqual(w, "the jobs with files", len(readAllPages(w, w.store.WithFiles)), 0)
			wantEqual(w, "the state of a job that is kept", w.job(kept).State, job.Queued)
			w.wantTally(mine, fmt.Sprint(round), job.Counts{})
		})
	}
}

func racedCounts(w *harness) {
	for round := range rounds {
		c := w.running()
		raced := w.race(round, []any{newFinish(c.Lease(), job.Succeeded), w.newSubmit(withInputBytes(3))}, []any{w.newSubmit(withInputBytes(5)), w.newClaim(queue, 1)})
		stored := w.counts(queue)
		a, b := raced[0].Counts[queue], raced[1].Counts[queue]
		if a != stored && b != stored {
			w.Errorf("the counts are %+v, and the commits answer %+v and %+v", stored, a, b)
		}
		w.eachStore(func() { wantEqual(w, "the counts", w.counts(queue), stored) })
		w.endAllUnfinished()
	}
}

// mixed counts the changes of state in the answers of ops.
func (c *mixedCounts) add(b *store.Batch) (leased []job.Lease) {
	for _, op := range b.Submits {
		if op.Err == nil {
			c.made++
			c.last = op.Job.ID
		}
	}
	for _, op := range b.Claims {
		for _, got := range op.Claimed {
			leased = append(leased, got.Lease())
		}
	}
	for _, op := range b.Finishes {
		if op.Err == nil {
			switch op.State {
			case job.Succeeded:
				c.Succeeded++
			case job.Failed:
				c.Failed++
			case job.Cancelled:
				c.Cancelled++
			}
		}
	}
	for _, op := range b.Cancels {
		if op.Ended {
			c.Cancelled++
		}
	}
	for _, op := range b.Retries {
		if op.Err == nil {
			c.Retried++
		}
	}
	return leased
}

type mixedCounts struct {
	job.Counts
	made int64
	last job.ID
}

func countsAfterMix(w *harness) {
	w.setLimits(queue, job.Limits{Running: 7, KeyRunning: 3})
	all := make([]mixedCounts, len(w.stores))
	shared := w.submitMany(10, withInputBytes(2))
	w.atEveryStore(func(n int) error {
		var leased []job.Lease
		for i := range 25 {
			ops := []any{w.newSubmit(withKey(fmt.Sprint(i%4)), withInputBytes(int64(i))), w.newClaim(queue, 2)}
			for k, l := range leased {
				ops = append(ops, newFinish(l, []job.State{job.Succeeded, job.Failed, job.Queued}[(i+k)%3]))
			}
			id := shared[i%len(shared)]
			if i%2 == 0 {
				id = all[n].last
			}
			ops = append(ops, newCancel(id), newRetry(id))
			b, err := w.tryAt(n, ops...)
			if err != nil {
				return err
			}
			leased = all[n].add(b)
		}
		return nil
	})
	var want mixedCounts
	want.made = int64(len(shared))
	for _, c := range all {
		want.made += c.made
		want.Succeeded += c.Succeeded
		want.Failed += c.Failed
		want.Cancelled += c.Cancelled
		want.Retried += c.Retried
	}
	w.eachStore(func() {
		got := w.counts(queue)
		ever := job.Counts{Succeeded: got.Succeeded, Failed: got.Failed, Cancelled: got.Cancelled, Retried: got.Retried}
		wantEqual(w, "the counts", ever, want.Counts)
		wantEqual(w, "the jobs", got.Unfinished()+got.Succeeded+got.Failed+got.Cancelled-got.Retried, want.made)
	})
}
