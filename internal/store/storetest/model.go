package storetest

import (
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// model is a simple in-memory store. Each of its methods applies one op and returns a function
// that checks the op's answer. A store may choose which jobs a claim gets; the model then makes
// the same choice.
type model struct {
	w             *harness
	jobs          map[job.ID]*modelJob
	order         []job.ID // of all jobs ever submitted
	deletedJobs   map[job.ID]modelDeletedJob
	keys          map[ownedKey]*modelKey
	counts        map[string]*job.Counts
	tallies       map[ownedKey]*job.Counts
	entries       int // counts how many times a job became ready
	entriesBefore int // entries before the batch
	removed       []job.ID
	room          map[string]int         // for further claims of the batch
	changes       map[job.ID]store.Moved // the answers of commits about jobs since their last read
}

// modelJob is a job in its expected state.
type modelJob struct {
	job.Job
	token         job.Token
	tokens        []job.Token // of all its leases
	until         time.Time
	firstCursor   int64     // the cursor when its attempt began
	queueDeadline time.Time // zero when it does not expire
	abandonableAt time.Time // the end of its abandon timeout
	readyOrder    int       // when it became queued or parked, among all jobs
	queuedOrder   int       // when it became queued
	anyOrder      bool      // it is or was parked: the store may choose among several such jobs
	wasAnyOrder   bool      // anyOrder was true since its last read
	deleted       bool
	text          string
	lastRead      job.Job // zero before the first read
	key           *modelKey
}

type modelKey struct {
	id    job.ID
	hash  [32]byte
	until time.Time
}

// modelDeletedJob is a job that its owner deleted.
type modelDeletedJob struct {
	owner job.Owner
	at    time.Time
}

func newModel(w *harness) *model {
	return &model{
		w: w, jobs: map[job.ID]*modelJob{}, deletedJobs: map[job.ID]modelDeletedJob{},
		keys: map[ownedKey]*modelKey{}, counts: map[string]*job.Counts{}, tallies: map[ownedKey]*job.Counts{}, changes: map[job.ID]store.Moved{},
	}
}

// expect applies an op other than a claim, and returns a function that checks its answer.
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
	panic(fmt.Sprintf("storetest: the model has no op %T", op))
}

// wantRefusal checks that an op was refused with the code; "" means that it applied.
func (m *model) wantRefusal(op any, code job.Code) {
	m.w.Helper()
	if got := job.CodeOf(errOf(op)); got != code {
		m.w.Fatalf("%T %+v answers %q (%v), want %q", op, op, got, errOf(op), code)
	}
}

func (m *model) refusal(op any, code job.Code) func() { return func() { m.wantRefusal(op, code) } }

// wantAnswer checks the job in the answer of an op.
func (m *model) wantAnswer(op any, got job.Job, want string) {
	m.w.Helper()
	if withoutRevision(got) != want {
		m.w.Fatalf("%T answers\n  %s, want\n  %s", op, withoutRevision(got), want)
	}
}

// withoutRevision is the text of a job without its revision, which compareRevision checks. A
// store that chooses which of several jobs is parked may move them more or fewer times.
func withoutRevision(j job.Job) string {
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

// tally has the counts of the job's tally.
func (m *model) tally(j *modelJob) *job.Counts {
	k := ownedKey{j.Owner, j.Tally}
	if m.tallies[k] == nil {
		m.tallies[k] = &job.Counts{}
	}
	return m.tallies[k]
}

// compareTallies removes the tallies without jobs, and compares the others.
func (m *model) compareTallies() {
	for k, want := range m.tallies {
		if len(m.filter(func(j *modelJob) bool { return j.Owner == k.owner && j.Tally == k.key })) == 0 {
			*want = job.Counts{}
		}
		got, err := m.w.store.Tally(m.w.ctx, k.owner, k.key)
		if err != nil || got != *want {
			m.w.Fatalf("the tally %v is %+v, want %+v: %v", k, got, *want, err)
		}
	}
}

// move moves a job to a state, by a legal move only.
func (m *model) move(j *modelJob, to job.State) {
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

// countMove counts a job in its new state instead of its old one.
func countMove(c *job.Counts, j *modelJob, to job.State) {
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

// end ends a job now.
func (m *model) end(j *modelJob, to job.State) {
	m.move(j, to)
	kept := j.Policy.Keep.Others
	if to == job.Failed {
		kept = j.Policy.Keep.Failed
	}
	j.FinishedAt, j.ExpiresAt, j.queueDeadline = m.w.now(), m.w.now().Add(kept), time.Time{}
	if j.deleted {
		m.remove(j)
	}
}

func (m *model) remove(j *modelJob) {
	delete(m.jobs, j.ID)
	if len(j.Files) > 0 {
		m.removed = append(m.removed, j.ID)
	}
}

// ready makes a job queued or parked, ready since a time.
func (m *model) ready(j *modelJob, at time.Time) {
	m.enter(j, m.readyState(j))
	j.RunAt = at
}

// jobOfLease is the job of a current lease.
func (m *model) jobOfLease(l job.Lease) *modelJob {
	j := m.jobs[l.Job]
	if j == nil || j.State != job.Running || j.token != l.Token {
		return nil
	}
	return j
}

// owned is a job that its owner can read.
func (m *model) owned(o job.Owner, id job.ID) *modelJob {
	j := m.jobs[id]
	if j == nil || j.deleted || j.Owner != o {
		return nil
	}
	return j
}
