package storetest

import (
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func sharedReadRules() []rule {
	return []rule{
		{"every read of a store sees the commits of the others", readsOfAll},
		{"versions and leases are the same at every store", readsOfLeases},
		{"a reader of one store sees each commit of another whole", sharedReadsAreSnapshots},
		{"successive reads at any store never see an earlier revision", sharedReadsNeverGoBack},
	}
}

// storedUpkeepReads returns the answers of the upkeep reads that stored leaves out, as text.
func (w *harness) storedUpkeepReads() stored {
	s := w.stored()
	oldest, err := w.store.OldestQueued(w.ctx, queue)
	s["oldest"] = fmt.Sprint(oldest.UTC(), err)
	s["with files"] = fmt.Sprint(readAllPages(w, w.store.WithFiles))
	s["abandonable"] = fmt.Sprint(ids(readAllPages(w, w.store.Abandonable)))
	size, err := w.store.Size(w.ctx)
	s["size"] = fmt.Sprint(size, err)
	return s
}

func readsOfAll(w *harness) {
	w.submit(mayBeAbandoned, withFiles("a"), inQueue("abandoned"))
	w.advance(abandonAfter)
	for n := range w.stores {
		w.use(n)
		for _, ops := range [][]any{
			{w.newSubmit(withFiles("a"), withIdempotency(fmt.Sprint(n), "h"), withTally("t"), withRef("put:p"), withInput("in"), mayBeAbandoned)},
			everyKind(w),
			{newDue()},
			{&store.Presence{Owners: []job.Owner{mine}}},
			{newPause("paused", n%2 == 0)},
		} {
			w.use(n)
			w.try(ops...)
			want := w.storedUpkeepReads()
			w.eachStore(func() { w.sameStored("another store reads something else", want, w.storedUpkeepReads()) })
			w.use(n)
		}
	}
	w.use(0)
}

func readsOfLeases(w *harness) {
	for n := range w.stores {
		w.use(n)
		p := job.Process(w.token())
		s, claim := w.newSubmit(leasedAs(w.token())), w.newClaim(queue, 1)
		s.Process, claim.Process = p, p
		w.do(w.newSubmit(), s, claim)
		l := claim.Claimed[0].Lease()
		w.do(newAppend(l, 1, 0, "a", "b"), newCancel(s.Job.ID))
		versions := w.versions(l.Job, s.Job.ID)
		running, leased := fmt.Sprintf("%+v", w.lease(l)), fmt.Sprintf("%+v", w.lease(job.Lease{Job: s.Job.ID, Token: s.Token}))
		w.eachStore(func() {
			of, err := w.store.RunningOf(w.ctx, p, job.ID{}, 10)
			wantEqual(w, fmt.Sprintf("the running jobs of a process (%v)", err), len(of), 2)
			for id, st := range w.versions(l.Job, s.Job.ID) {
				wantEqual(w, "a version", st, versions[id])
			}
			wantEqual(w, "the cursor", w.versions(l.Job)[l.Job].Cursor, 2)
			wantEqual(w, "a lease", fmt.Sprintf("%+v", w.lease(l)), running)
			wantEqual(w, "a submit's lease", fmt.Sprintf("%+v", w.lease(job.Lease{Job: s.Job.ID, Token: s.Token})), leased)
		})
		w.use((n + 1) % len(w.stores))
		w.do(newFinish(l, job.Succeeded), newFinish(job.Lease{Job: s.Job.ID, Token: s.Token}, job.Succeeded))
		w.eachStore(func() {
			of, err := w.store.RunningOf(w.ctx, p, job.ID{}, 10)
			wantEqual(w, fmt.Sprintf("the running jobs of a process (%v)", err), len(of), 0)
			wantEqual(w, "the lease", w.lease(l).Token, job.Token{})
		})
	}
}

// sharedReadsAreSnapshots commits at each store in turn, and reads at the others at the same
// time.
func sharedReadsAreSnapshots(w *harness) {
	c := w.running()
	total := func(n int) error {
		j, entries, err := w.stores[n].Output(w.ctx, mine, c.Job.ID, 0, 1<<20)
		if err == nil && (int64(len(entries)) != j.Cursor || j.Progress.Percent != float64(j.Cursor)) {
			err = fmt.Errorf("%d entries are read with the cursor %d and the progress %v", len(entries), j.Cursor, j.Progress.Percent)
		}
		return err
	}
	const each = 15
	cursor := make(chan int64, 1)
	cursor <- 0
	w.atEveryStore(func(n int) error {
		for range each {
			after := <-cursor // the stores take turns, so that entries continue the log
			output := newAppend(c.Lease(), 1, after, "a")
			output.Progress = &job.Progress{Percent: float64(after + 1)}
			_, err := w.tryAt(n, output)
			cursor <- after + 1
			for _, err := range []error{err, output.Err, total(n), total((n + 1) % len(w.stores))} {
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	w.eachStore(func() { wantEqual(w, "the cursor", w.job(c.Job.ID).Cursor, int64(each*len(w.stores))) })
}

// sharedReadsNeverGoBack claims, releases, cancels and retries one job at every store, and
// reads it at all stores.
func sharedReadsNeverGoBack(w *harness) {
	id := w.submit()
	states := make([]map[int64]string, len(w.stores)) // by revision
	w.atEveryStore(func(n int) error {
		states[n] = map[int64]string{}
		last := make([]int64, len(w.stores))
		for i := range 20 {
			claim := w.newClaim(queue, 1)
			if _, err := w.tryAt(n, claim); err != nil {
				return err
			}
			ops := []any{newRetry(id)}
			if i%3 == n {
				ops = append(ops, newCancel(id))
			}
			for _, c := range claim.Claimed {
				ops = append(ops, newFinish(c.Lease(), []job.State{job.Queued, job.Failed}[i%2]))
			}
			if _, err := w.tryAt(n, ops...); err != nil {
				return err
			}
			for at := range w.stores {
				j, err := w.stores[at].Job(w.ctx, mine, id)
				is := fmt.Sprint(j.State, j.Attempt, j.CancelRequestedAt.Truncate(time.Second))
				was, known := states[n][j.Revision]
				switch {
				case err != nil:
					return err
				case j.Revision < last[at]:
					return fmt.Errorf("store %d reads the revision %d after %d", at, j.Revision, last[at])
				case known && was != is:
					return fmt.Errorf("the revision %d is %s, and was %s", j.Revision, is, was)
				}
				last[at], states[n][j.Revision] = j.Revision, is
			}
		}
		return nil
	})
	for n := range states {
		for revision, is := range states[n] {
			if was, known := states[0][revision]; known && was != is {
				w.Errorf("the revision %d is %s at store %d, and %s at the first", revision, is, n, was)
			}
		}
	}
}
