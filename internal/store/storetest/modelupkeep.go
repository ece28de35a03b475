package storetest

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func (m *model) due(op *store.Due) func() {
	now := m.w.now()
	ready, expired := 0, 0
	before := m.parkedLines()
	for _, j := range m.filter(func(j *modelJob) bool {
		return j.State.Waiting() && !j.queueDeadline.IsZero() && !j.queueDeadline.After(now)
	}) {
		j.Failure = op.Failure
		m.end(j, job.Expired)
		expired++
	}
	for l, places := range before {
		ready += m.unpark(l, places-m.places(l))
	}
	for _, j := range m.filter(func(j *modelJob) bool { return j.State == job.Parked }) {
		ready += m.unpark(lineOf(j), len(m.jobs)) // where a limit was raised
	}
	at := m.entries + 1 // the model does not know the order of jobs that become ready at the same time
	for _, j := range m.filter(func(j *modelJob) bool { return j.State == job.Scheduled && !j.RunAt.After(now) }) {
		m.enter(j, m.readyState(j))
		j.readyOrder, j.anyOrder = at, true
		if j.queuedOrder > 0 {
			j.queuedOrder = at
		}
		ready++
	}
	return func() {
		m.wantRefusal(op, "")
		if op.Ready != ready || len(op.Expired) != expired {
			m.w.Fatalf("a due made %d jobs ready and expired %d, want %d and %d", op.Ready, len(op.Expired), ready, expired)
		}
		for _, j := range op.Expired {
			m.wantAnswer(op, j, withoutRevision(m.jobs[j.ID].Job))
		}
	}
}

func (m *model) prune(op *store.Prune) func() {
	now := m.w.now()
	deleted := 0
	for _, id := range m.order {
		if j := m.jobs[id]; j != nil && j.State.Ended() && (op.Early || !j.ExpiresAt.After(now)) {
			m.remove(j)
			deleted++
		}
	}
	for key, k := range m.keys {
		if m.jobs[k.id] == nil && !k.until.After(now) {
			delete(m.keys, key)
		}
	}
	return func() {
		m.wantRefusal(op, "")
		if op.Deleted != deleted {
			m.w.Fatalf("a prune deleted %d jobs, want %d", op.Deleted, deleted)
		}
	}
}

// claimed claims the same jobs in the model as the store did, and checks that the claim may
// have got them.
func (m *model) claimed(op *store.Claim) {
	m.wantRefusal(op, "")
	limit := m.claimLimit(op)
	if len(op.Claimed) > limit {
		m.w.Fatalf("a claim of %q got %d jobs, and may get %d", op.Queue, len(op.Claimed), limit)
	}
	used := map[job.Token]bool{}
	for _, token := range op.Tokens {
		used[token] = false
	}
	for _, c := range op.Claimed {
		if reused, ours := used[c.Token]; reused || !ours {
			m.w.Fatalf("a claim used a token twice or made one up")
		}
		used[c.Token] = true
		m.claimedOne(op, &c)
	}
	left := m.filter(func(j *modelJob) bool { return m.claimable(op, j) })
	if len(op.Claimed) < limit && len(left) > 0 {
		m.w.Fatalf("a claim of %q got %d jobs of %d, and left %s", op.Queue, len(op.Claimed), limit, text(left[0].Job))
	}
}

func (m *model) claimedOne(op *store.Claim, c *job.Claimed) {
	j := m.jobs[c.Job.ID]
	if j == nil || j.State != job.Queued || j.Queue != op.Queue || op.Tenant != nil && j.Owner.Tenant != *op.Tenant {
		m.w.Fatalf("a claim of %q got %s", op.Queue, text(c.Job))
	}
	if !m.claimable(op, j) {
		m.w.Fatalf("a claim of %q got a job whose resource has no room, or whose key is at its limit: %s", op.Queue, text(c.Job))
	}
	for _, other := range m.jobs {
		if other.State == job.Queued && lineOf(other) == lineOf(j) && other.Priority == j.Priority && other.queuedOrder < j.queuedOrder {
			m.w.Fatalf("a claim got a job before another of its key that was ready earlier")
		}
	}
	takeRoom(m.room, j.Resource)
	m.move(j, job.Running)
	m.lease(j, c.Token, op.LeaseFor)
	m.wantAnswer(op, c.Job, withoutRevision(j.Job))
	if !c.Until.Equal(j.until) || string(c.Input) != inputOf(j.ID) {
		m.w.Fatalf("a claim has a lease until %v and the input %q", c.Until, c.Input)
	}
}

func inputOf(id job.ID) string { return "the input of " + id.String() }

// compare compares the answers of all reads with the model.
func (m *model) compare() {
	w := m.w
	w.Helper()
	counts, err := w.store.Counts(w.ctx)
	if err != nil {
		w.Fatalf("counts: %v", err)
	}
	for q, c := range m.counts {
		if counts[q] != *c {
			w.Fatalf("the counts of %s are %+v, want %+v", q, counts[q], *c)
		}
	}
	m.compareJobs()
	m.compareRunning()
	m.compareKeys()
	m.compareNextDue()
	m.compareOldest()
	m.compareSweeps()
	clear(m.changes)
}

func (m *model) compareJobs() {
	w := m.w
	listed := map[job.ID]bool{}
	for _, o := range []job.Owner{mine, theirs, elsewhere} {
		for _, got := range w.listAll(job.Filter{Owner: o}) {
			j := m.owned(o, got.ID)
			if j == nil {
				w.Fatalf("a job is listed that should not be: %s", text(got))
			}
			if withoutRevision(got) != withoutRevision(j.Job) {
				w.Fatalf("a job is\n  %s, want\n  %s", withoutRevision(got), withoutRevision(j.Job))
			}
			m.compareRevision(j, got)
			_, entries, err := w.store.Output(w.ctx, o, j.ID, 0, 1<<20)
			text := ""
			for _, e := range entries {
				text += string(e.Data)
			}
			if err != nil || text != j.text {
				w.Fatalf("the text of a job is %q, want %q: %v", text, j.text, err)
			}
			listed[got.ID] = true
		}
	}
	for id, j := range m.jobs {
		if !j.deleted && !listed[id] {
			w.Fatalf("a job is not listed: %s", text(j.Job))
		}
	}
}

// compareRevision checks that the revision orders two reads of a job.
func (m *model) compareRevision(j *modelJob, got job.Job) {
	was, is := j.lastRead, got
	moved := was.State != is.State || was.Attempt != is.Attempt || !was.CancelRequestedAt.Equal(is.CancelRequestedAt)
	switch {
	case is.Revision < was.Revision:
		m.w.Fatalf("the revision of a job went back from %d to %d: %s", was.Revision, is.Revision, text(got))
	case moved && is.Revision == was.Revision:
		m.w.Fatalf("a job has changed, and its revision has not:\n  %s\n  %s", text(was), text(is))
	case is.Revision != was.Revision && m.changes[is.ID] != store.Moved{ID: is.ID, State: is.State, Revision: is.Revision}:
		m.w.Fatalf("of a job that is %s since revision %d a commit answered %+v", is.State, is.Revision, m.changes[is.ID])
	case !j.anyOrder && !j.wasAnyOrder && is.Revision != j.Revision:
		m.w.Fatalf("the revision of a job is %d, want %d: %s", is.Revision, j.Revision, text(got))
	}
	j.lastRead, j.Revision, j.wasAnyOrder = got, got.Revision, false
}

func (m *model) compareRunning() {
	running := m.w.listRunning(store.AllRunning)
	for _, r := range running {
		if j := m.jobOfLease(job.Lease{Job: r.Job.ID, Token: r.Token}); j == nil {
			m.w.Fatalf("a job is listed as running that should not be, or with another lease: %s", text(r.Job))
		}
	}
	want := 0
	for _, j := range m.jobs {
		if j.State == job.Running {
			want++
		}
	}
	if len(running) != want {
		m.w.Fatalf("%d jobs are listed as running, want %d", len(running), want)
	}
}

func (m *model) compareKeys() {
	for key, k := range m.keys {
		id, hash, err := m.w.store.Idempotent(m.w.ctx, key.owner, key.key)
		if expired := m.jobs[k.id] == nil && !k.until.After(m.w.now()); expired {
			continue // it may be forgotten at any time
		}
		if err != nil || id != k.id || hash != k.hash {
			m.w.Fatalf("the idempotency key %q names %s, %v, want %s", key.key, id, err, k.id)
		}
	}
}

func (m *model) compareNextDue() {
	var ready, expires time.Time
	for _, j := range m.jobs {
		if j.State == job.Scheduled && (ready.IsZero() || j.RunAt.Before(ready)) {
			ready = j.RunAt
		}
		if j.State.Waiting() && !j.queueDeadline.IsZero() && (expires.IsZero() || j.queueDeadline.Before(expires)) {
			expires = j.queueDeadline
		}
	}
	r, e, err := m.w.store.NextDue(m.w.ctx)
	if err != nil || !r.Equal(ready) || !e.Equal(expires) {
		m.w.Fatalf("the next due are %v and %v, want %v and %v: %v", r, e, ready, expires, err)
	}
}

func (m *model) compareOldest() {
	for q := range m.counts {
		var want time.Time
		for _, j := range m.jobs {
			if j.Queue == q && ready(j.State) && (want.IsZero() || j.RunAt.Before(want)) {
				want = j.RunAt
			}
		}
		got, err := m.w.store.OldestQueued(m.w.ctx, q)
		if err != nil || got.IsZero() != want.IsZero() || got.After(want) || want.Sub(got) > oldestWithin {
			m.w.Fatalf("the longest waiting job of %s is ready since %v, want %v: %v", q, got, want, err)
		}
	}
}

func (m *model) compareSweeps() {
	with := m.filter(func(j *modelJob) bool { return len(j.Files) > 0 })
	if got, want := sorted(readAllPages(m.w, m.w.store.WithFiles)), sorted(modelJobIDs(with)); !slices.Equal(got, want) {
		m.w.Fatalf("the jobs with files are %v, want %v", got, want)
	}
	may := m.filter(m.abandonable)
	slices.SortFunc(may, func(a, b *modelJob) int {
		return cmp.Or(a.abandonableAt.Compare(b.abandonableAt), bytes.Compare(a.ID[:], b.ID[:]))
	})
	if got, want := ids(readAllPages(m.w, m.w.store.Abandonable)), modelJobIDs(may); !slices.Equal(got, want) {
		m.w.Fatalf("the jobs that may be abandoned are %v, want %v", got, want)
	}
}

func modelJobIDs(list []*modelJob) (ids []job.ID) {
	for _, j := range list {
		ids = append(ids, j.ID)
	}
	return ids
}
