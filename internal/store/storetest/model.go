package storetest

import (
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// model is what a store should hold, kept in memory in the plainest way: each of
// its methods applies one op, in the order of a batch, and says what the op has to
// answer. Which jobs a claim gets is the store's to choose; the model learns it.
type model struct {
	w       *harness
	jobs    map[job.ID]*modelled
	order   []job.ID // of all jobs there ever were
	gone    map[job.ID]modelGone
	keys    map[ownedKey]*modelKey
	counts  map[string]*job.Counts
	tallies map[ownedKey]*job.Counts
	entries int // how often jobs became ready
	began   int // entries before the batch
	removed []job.ID
	changes map[job.ID]store.Moved // what commits told of jobs since they were read last
}

// modelled is a job as it should be.
type modelled struct {
	job.Job
	token   job.Token
	tokens  []job.Token // all there ever were
	until   time.Time
	first   int64     // the cursor when its attempt began
	queueBy time.Time // zero when it does not expire
	leftAt  time.Time // when it is abandonable
	ready   int       // when it became queued or parked, among all jobs
	entered int       // when it became queued
	either  bool      // it is parked, or was: of several such jobs the store may choose
	chosen  bool      // it was such a job since it was read last
	deleted bool
	said    string
	seen    job.Job // as it was read last; zero before
	key     *modelKey
}

type modelKey struct {
	id    job.ID
	hash  [32]byte
	until time.Time
}

// modelGone is a job that its owner deleted.
type modelGone struct {
	owner job.Owner
	at    time.Time
}

func newModel(w *harness) *model {
	return &model{
		w: w, jobs: map[job.ID]*modelled{}, gone: map[job.ID]modelGone{},
		keys: map[ownedKey]*modelKey{}, counts: map[string]*job.Counts{}, tallies: map[ownedKey]*job.Counts{}, changes: map[job.ID]store.Moved{},
	}
}

// expect applies an op that is no claim and returns what checks its answer.
func (m *model) expect(op any) (check func()) {
	switch op := op.(type) {
	case *store.Renew:
		return m.renew(op)
	case *store.Presence:
		return m.presence(op)
	case *store.Append:
		return m.append(op)
	case *store.Finish:
		return m.finish(op)
	case *store.Cancel:
		return m.cancel(op)
	case *store.Delete:
		return m.delete(op)
	case *store.Retry:
		return m.retry(op)
	case *store.Submit:
		return m.submit(op)
	case *store.Due:
		return m.due(op)
	case *store.Prune:
		return m.prune(op)
	case *store.Pause:
		m.count(op.Queue).Paused = op.Paused
		return m.refusal(op, "")
	}
	panic(fmt.Sprintf("storetest: the model knows no %T", op))
}

// refuses checks that an op is refused with the code; "" means that it applies.
func (m *model) refuses(op any, code job.Code) {
	m.w.Helper()
	if got := job.CodeOf(errOf(op)); got != code {
		m.w.Fatalf("%T %+v answers %q (%v), want %q", op, op, got, errOf(op), code)
	}
}

func (m *model) refusal(op any, code job.Code) func() { return func() { m.refuses(op, code) } }

// answers checks a job that an op answered.
func (m *model) answers(op any, got job.Job, want string) {
	m.w.Helper()
	if shown(got) != want {
		m.w.Fatalf("%T answers\n  %s, want\n  %s", op, shown(got), want)
	}
}

// shown is a job without its revision, which is checked by itself: where the store may
// choose which of several jobs is parked, it may move them more or fewer times.
func shown(j job.Job) string {
	j.Revision = 0
	return text(j)
}

func (m *model) count(queue string) *job.Counts {
	c := m.counts[queue]
	if c == nil {
		c = &job.Counts{}
		m.counts[queue] = c
	}
	return c
}

// tally is what is counted of the job's tally.
func (m *model) tally(j *modelled) *job.Counts {
	k := ownedKey{j.Owner, j.Tally}
	if m.tallies[k] == nil {
		m.tallies[k] = &job.Counts{}
	}
	return m.tallies[k]
}

// compareTallies drops the tallies of which a commit left no job, and compares the others.
func (m *model) compareTallies() {
	for k, want := range m.tallies {
		if len(m.all(func(j *modelled) bool { return j.Owner == k.owner && j.Tally == k.key })) == 0 {
			*want = job.Counts{}
		}
		got, err := m.w.store.Tally(m.w.ctx, k.owner, k.key)
		if err != nil || got != *want {
			m.w.Fatalf("the tally %v is %+v, want %+v: %v", k, got, *want, err)
		}
	}
}

// move brings a job to a state, on the legal way only.
func (m *model) move(j *modelled, to job.State) {
	if !job.CanMove(j.State, to) {
		panic(fmt.Sprintf("storetest: the model moves a job %s → %s", j.State, to))
	}
	countMove(m.count(j.Queue), j, to)
	if j.Tally != "" {
		countMove(m.tally(j), j, to)
	}
	j.State = to
	j.Revision++
}

// countMove counts a job where it is now and no more where it was.
func countMove(c *job.Counts, j *modelled, to job.State) {
	now := map[job.State]*int64{job.Scheduled: &c.Scheduled, job.Queued: &c.Queued, job.Parked: &c.Parked, job.Running: &c.Running}
	ever := map[job.State]*int64{job.Succeeded: &c.Succeeded, job.Failed: &c.Failed, job.Cancelled: &c.Cancelled, job.Expired: &c.Expired}
	if n := now[j.State]; n != nil {
		*n--
	}
	if n := now[to]; n != nil {
		*n++
	}
	if n := ever[to]; n != nil {
		*n++
	}
	if j.State.Waiting() {
		c.WaitingBytes -= j.InputBytes
	}
	if to.Waiting() {
		c.WaitingBytes += j.InputBytes
	}
}

// end brings a job to an end now.
func (m *model) end(j *modelled, to job.State) {
	m.move(j, to)
	kept := j.Policy.Keep.Others
	if to == job.Failed {
		kept = j.Policy.Keep.Failed
	}
	j.FinishedAt, j.ExpiresAt, j.queueBy = m.w.now(), m.w.now().Add(kept), time.Time{}
	if j.deleted {
		m.remove(j)
	}
}

func (m *model) remove(j *modelled) {
	delete(m.jobs, j.ID)
	if len(j.Files) > 0 {
		m.removed = append(m.removed, j.ID)
	}
}

// ready makes a job queued or parked as of a time.
func (m *model) ready(j *modelled, at time.Time) {
	m.enter(j, m.readyState(j))
	j.RunAt = at
}

// holder is the job that a lease holds.
func (m *model) holder(l job.Lease) *modelled {
	j := m.jobs[l.Job]
	if j == nil || j.State != job.Running || j.token != l.Token {
		return nil
	}
	return j
}

// owned is the job of an owner, as far as the owner can see.
func (m *model) owned(o job.Owner, id job.ID) *modelled {
	j := m.jobs[id]
	if j == nil || j.deleted || j.Owner != o {
		return nil
	}
	return j
}
