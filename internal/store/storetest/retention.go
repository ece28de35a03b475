package storetest

import (
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func retentionRules() []rule {
	return []rule{
		{"an early prune deletes ended jobs before their time, the oldest first", long(earlyOldest)},
		{"an early prune keeps unfinished jobs", long(earlyKeepsUnfinished)},
		{"a prune keeps a job until the jobs that its end made have ended", keepsParents},
		{"an early prune keeps idempotency keys for their time", earlyKeys},
		{"a prune stops after about MaxBytes, and the next one continues after its cursor", long(pruneBytes)},
		{"an early prune counts files as deleted bytes", long(earlyFiles)},
		{"a prune without time still deletes some jobs", long(pruneWithoutTime)},
		{"the size grows with the data and shrinks when it is pruned", long(sizeFollows)},
		{"the size falls with each commit that deletes, by about what it deletes", long(sizeFallsAtOnce)},
		{"the size of many small jobs is freed with them", long(sizeOfSmall)},
	}
}

// history makes ended jobs, each with size bytes of input, output and result.
func (w *harness) history(jobs, size int) (ids []job.ID) {
	w.Helper()
	body := strings.Repeat("5", size)
	for range jobs {
		c := w.running(withInput(body))
		f := newFinish(c.Lease(), job.Succeeded)
		f.Entries, f.Result = textEntries(1, 0, body), &job.Result{ContentType: "text/plain", Body: []byte(body)}
		w.do(f)
		ids = append(ids, c.Job.ID)
	}
	return ids
}

func earlyOldest(w *harness) {
	ids := w.history(10, 10)
	p := &store.Prune{Limit: 4, Early: true}
	w.do(p)
	wantEqual(w, "the jobs deleted", p.Deleted, 4)
	for _, id := range ids[:4] {
		w.wantGone(mine, id)
	}
	for _, id := range ids[4:] {
		w.job(id)
	}
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Succeeded: 10})
}

func earlyKeepsUnfinished(w *harness) {
	var ids []job.ID
	for _, state := range []job.State{job.Scheduled, job.Queued, job.Running} {
		id, _ := w.inState(state)
		ids = append(ids, id)
	}
	before := w.stored()
	p := &store.Prune{Limit: 1000, Early: true}
	w.do(p)
	wantEqual(w, "the jobs deleted", p.Deleted, 0)
	w.sameStored("an early prune changed what has not ended", before, w.stored())
	for _, id := range ids {
		w.job(id)
	}
}

func keepsParents(w *harness) {
	parent := w.running(withRef("job:made"), withRef("put:p"))
	w.do(newFinish(parent.Lease(), job.Succeeded))
	other := w.running(withRef("put:q"))
	w.do(newFinish(other.Lease(), job.Succeeded))
	w.advance(day)
	for _, early := range []bool{false, true} {
		w.do(&store.Prune{Limit: 100, Early: early})
		w.job(parent.Job.ID)
	}
	w.wantGone(mine, other.Job.ID)
	made := w.claimOne("made")
	w.do(&store.Prune{Limit: 100, Early: true})
	w.job(parent.Job.ID)
	w.do(newFinish(made.Lease(), job.Failed))
	w.do(&store.Prune{Limit: 100, Early: true})
	w.wantGone(mine, parent.Job.ID)
	wantEqual(w, "the row that the end made", len(w.rows(endKind, "p")), 1)

	// A delete removes the parent, and what its end made goes on.
	parent = w.running(withRef("job:made"))
	w.do(newFinish(parent.Lease(), job.Succeeded))
	w.do(newDelete(parent.Job.ID))
	w.wantGone(mine, parent.Job.ID)
	w.do(newFinish(w.claimOne("made").Lease(), job.Succeeded))
}

func earlyKeys(w *harness) {
	c := w.running(withIdempotency("key", "asked"))
	w.do(newFinish(c.Lease(), job.Succeeded))
	w.do(&store.Prune{Limit: 10, Early: true})
	w.wantGone(mine, c.Job.ID)
	w.mustRefuse(job.NotFound, w.newSubmit(withIdempotency("key", "asked")))
	w.advance(day + time.Minute)
	w.do(newPrune())
	w.submit(withIdempotency("key", "asked"))
}

func pruneBytes(w *harness) {
	const size = 1000
	w.history(100, size)
	w.advance(day)
	after, deleted := "", 0
	for rounds := 0; ; rounds++ {
		p := &store.Prune{After: after, Limit: 1000, MaxBytes: 9 * size}
		w.do(p)
		deleted += p.Deleted
		if p.Deleted > 6 || rounds > 100 {
			w.Fatalf("a prune of 9,000 bytes deleted %d jobs of 3,000", p.Deleted)
		}
		if p.Next == "" {
			break
		}
		if p.Deleted == 0 || p.Next == after {
			w.Fatalf("a prune of 9,000 bytes makes no progress")
		}
		after = p.Next
	}
	wantEqual(w, "the jobs deleted", deleted, 100)
}

func earlyFiles(w *harness) {
	const size = 1 << 20
	for range 6 {
		c := w.running(func(s *store.Submit) {
			s.Job.Files, s.Job.InputBytes = []job.File{{Name: "a", Size: size}}, size+2
		})
		w.do(newFinish(c.Lease(), job.Succeeded))
	}
	early := &store.Prune{Limit: 1000, MaxBytes: 2 * size, Early: true}
	w.do(early)
	wantEqual(w, "the jobs of a MiB deleted before their time for two", early.Deleted, 2)
	w.advance(day)
	due := &store.Prune{Limit: 1000, MaxBytes: 2 * size}
	w.do(due)
	wantEqual(w, "the jobs past their time deleted for two MiB of the store", due.Deleted, 4)
}

func pruneWithoutTime(w *harness) {
	w.history(200, 10)
	w.advance(day)
	after, deleted := "", 0
	for rounds := 0; deleted < 200; rounds++ {
		p := &store.Prune{After: after, Limit: 1000, MaxTime: time.Nanosecond}
		w.do(p)
		if rounds == 0 && p.Deleted == 200 {
			w.Errorf("a prune without time deleted everything")
		}
		if rounds > 200 {
			w.Fatalf("a prune without time makes no progress")
		}
		deleted, after = deleted+p.Deleted, p.Next
	}
	wantEqual(w, "the jobs left", len(w.listAll(job.Filter{Owner: mine})), 0)
}

// size reads the size of the store.
func (w *harness) size() int64 {
	w.Helper()
	n, err := w.store.Size(w.ctx)
	if err != nil {
		w.Fatalf("size: %v", err)
	}
	return n
}

func sizeFallsAtOnce(w *harness) {
	const each = 300_000
	ids := w.history(12, each/3)
	fell := func(how string, jobs int64, from int64) {
		w.Helper()
		if by := from - w.size(); by < jobs*each*9/10 || by > jobs*each*11/10 {
			w.Errorf("%s of %d jobs of %d bytes made the size fall by %d", how, jobs, each, by)
		}
	}
	size := w.size()
	w.do(&store.Prune{Limit: 4, Early: true})
	fell("an early prune", 4, size)
	size = w.size()
	w.do(newDelete(ids[4]), newDelete(ids[5]))
	fell("a delete", 2, size)
	w.reopen()
	w.advance(day)
	size = w.size()
	w.do(newPrune())
	fell("a prune", 6, size)
}

func sizeOfSmall(w *harness) {
	before := w.size()
	ids := w.submitMany(2000, withInput("{}"))
	full := w.size()
	var ops []any
	for _, id := range ids {
		ops = append(ops, newCancel(id))
	}
	w.do(ops...)
	w.do(&store.Prune{Limit: 5000, Early: true})
	if after := w.size(); full == before || after > before+(full-before)/10 {
		w.Errorf("2,000 small jobs made the size go from %d to %d, and their removal to %d", before, full, after)
	}
}

func sizeFollows(w *harness) {
	before := w.size()
	w.history(20, 100_000)
	full := w.size()
	if full < before+20*300_000 {
		w.Errorf("with 6 MB more the size changed from %d to %d", before, full)
	}
	w.advance(day)
	w.do(newPrune())
	if after := w.size(); after > before+full/10 {
		w.Errorf("after a prune of 6 MB the size changed from %d to %d", full, after)
	}
}
