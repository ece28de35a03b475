package storetest

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// modelQueueKey identifies a key of a tenant in a queue.
type modelQueueKey struct{ queue, tenant, key string }

func queueKeyOf(j *modelJob) modelQueueKey { return queueKeyOfJob(&j.Job) }

func queueKeyOfJob(j *job.Job) modelQueueKey { return modelQueueKey{j.Queue, j.Owner.Tenant, j.Key} }

// modelLine identifies the ready jobs of a key that need the same resource.
type modelLine struct {
	modelQueueKey
	resource string
}

func lineOf(j *modelJob) modelLine { return modelLine{queueKeyOf(j), j.Resource} }

func ready(s job.State) bool     { return s == job.Queued || s == job.Parked }
func isRunning(s job.State) bool { return s == job.Running }

// filter lists the jobs for which match is true, in the order of their submits.
func (m *model) filter(match func(*modelJob) bool) (list []*modelJob) {
	for _, id := range m.order {
		if j := m.jobs[id]; j != nil && match(j) {
			list = append(list, j)
		}
	}
	return list
}

// countOf counts the jobs of a key for whose states match is true.
func (m *model) countOf(k modelQueueKey, match func(job.State) bool) int {
	return len(m.filter(func(j *modelJob) bool { return queueKeyOf(j) == k && match(j.State) }))
}

// places returns how many places of a key its running jobs and its queued jobs of one resource take.
func (m *model) places(l modelLine) int {
	return len(m.filter(func(j *modelJob) bool {
		return queueKeyOf(j) == l.modelQueueKey && (j.State == job.Running || j.State == job.Queued && j.Resource == l.resource)
	}))
}

// keyLimit returns the limit of running jobs of a key; 0 for none.
func (m *model) keyLimit(k modelQueueKey) int {
	if k.key == "" {
		return 0
	}
	return m.w.limits[k.queue].KeyRunning
}

// full reports whether another job of a key and a resource must be parked.
func (m *model) full(l modelLine) bool {
	limit := m.keyLimit(l.modelQueueKey)
	return limit > 0 && m.places(l) >= limit
}

// mayRun reports whether the limit of a key allows another of its jobs to run.
func (m *model) mayRun(k modelQueueKey) bool {
	limit := m.keyLimit(k)
	return limit == 0 || m.countOf(k, isRunning) < limit
}

func (m *model) readyState(j *modelJob) job.State {
	if m.full(lineOf(j)) {
		return job.Parked
	}
	return job.Queued
}

// enter makes a job queued or parked.
func (m *model) enter(j *modelJob, to job.State) {
	m.move(j, to)
	m.entries++
	j.wasAnyOrder = j.wasAnyOrder || j.anyOrder
	j.readyOrder, j.queuedOrder, j.anyOrder = m.entries, 0, to == job.Parked
	if to == job.Queued {
		j.queuedOrder = m.entries
	}
}

// unpark queues up to most parked jobs for which there is a place, and returns how many.
func (m *model) unpark(l modelLine, most int) (n int) {
	for ; n < most && !m.full(l); n++ {
		var next *modelJob
		for _, j := range m.filter(func(j *modelJob) bool { return lineOf(j) == l && j.State == job.Parked }) {
			if next == nil || parkedBefore(j, next) {
				next = j
			}
		}
		if next == nil {
			break
		}
		m.move(next, job.Queued)
		m.entries++
		next.queuedOrder = m.entries
	}
	return n
}

// parkedBefore reports whether the parked job a is queued before b: the one that became ready
// first, with a head start of an hour for each step of priority.
func parkedBefore(a, b *modelJob) bool {
	since := func(j *modelJob) time.Time { return j.RunAt.Add(time.Duration(j.Priority) * time.Hour) }
	if d := since(a).Compare(since(b)); d != 0 {
		return d < 0
	}
	return a.readyOrder < b.readyOrder
}

// applyAndUnpark applies an op other than a due, and then queues parked jobs in the places that
// it freed.
func (m *model) applyAndUnpark(op any) (check func()) {
	before := m.parkedLines()
	check = m.expect(op)
	for l, places := range before {
		if freed := places - m.places(l); freed > 0 {
			m.unpark(l, freed)
		}
	}
	return check
}

// parkedLines lists where jobs are parked, with the places that are taken.
func (m *model) parkedLines() map[modelLine]int {
	lines := map[modelLine]int{}
	for _, j := range m.filter(func(j *modelJob) bool { return j.State == job.Parked }) {
		lines[lineOf(j)] = m.places(lineOf(j))
	}
	return lines
}

// adoptParked parks the same jobs in the model as the store has parked. Where several became ready
// at once, the store may choose which, but not how many. A claim parks the queued jobs that it
// finds of a key at its limit.
func (m *model) adoptParked(batches ...*store.Batch) {
	claimed, running, claims := map[job.ID]bool{}, map[modelQueueKey]int{}, map[string]bool{}
	for _, b := range batches {
		for _, op := range b.Claims {
			claims[op.Queue] = true
			for _, c := range op.Claimed {
				claimed[c.Job.ID] = true
				running[queueKeyOfJob(&c.Job)]++
			}
		}
	}
	atLimit := func(j *modelJob) bool {
		k := queueKeyOf(j)
		limit := m.keyLimit(k)
		return claims[j.Queue] && limit > 0 && m.countOf(k, isRunning)+running[k] >= limit
	}
	parked := map[modelLine]int{} // more than expected
	for _, j := range m.filter(func(j *modelJob) bool { return ready(j.State) && !j.deleted }) {
		actual := job.Queued
		if !claimed[j.ID] {
			actual = m.w.jobOf(j.Owner, j.ID).State
		}
		switch {
		case actual == j.State:
			continue
		case actual == job.Parked && atLimit(j):
			m.move(j, job.Parked)
			j.queuedOrder = 0
			parked[lineOf(j)]++
		case ready(actual) && j.anyOrder:
			parked[lineOf(j)] += int(actual) - int(j.State)
			j.State, j.queuedOrder = actual, m.entriesBefore+1
			m.checkParked(j)
		default:
			m.w.Fatalf("a job is %s, want %s: %s", actual, j.State, text(j.Job))
		}
	}
	for _, j := range m.filter(func(j *modelJob) bool { return ready(j.State) }) {
		if n := parked[lineOf(j)]; n < 0 || n > 0 && !atLimit(j) {
			m.w.Fatalf("of the key %q and the resource %q %d more are parked than should be", j.Key, j.Resource, n)
		}
	}
}

// checkParked fails when a job was queued before another parked one that goes before it.
func (m *model) checkParked(j *modelJob) {
	for _, other := range m.filter(func(o *modelJob) bool {
		return lineOf(o) == lineOf(j) && o.Priority == j.Priority && ready(o.State)
	}) {
		if j.State == job.Queued && other.readyOrder < j.readyOrder && m.w.jobOf(other.Owner, other.ID).State == job.Parked {
			m.w.Fatalf("a parked job was queued before an earlier one of its key")
		}
	}
}

// firstState returns the first state of a submitted job.
func (m *model) firstState(op *store.Submit) job.State {
	c, limits := m.count(op.Job.Queue), m.w.limits[op.Job.Queue]
	switch {
	case op.Delay > 0:
		return job.Scheduled
	case m.full(modelLine{queueKeyOfJob(&op.Job), op.Job.Resource}):
		return job.Parked
	case op.Token.IsZero() || c.Paused || limits.Running > 0 && c.Running >= int64(limits.Running):
		return job.Queued
	}
	return job.Running
}

func (m *model) keyFull(op *store.Submit) bool {
	most := m.w.limits[op.Job.Queue].KeyWaiting
	return most > 0 && op.Job.Key != "" && m.firstState(op).Waiting() && m.countOf(queueKeyOfJob(&op.Job), job.State.Waiting) >= most
}

func hasRoom(room map[string]int, resource string) bool {
	left, limited := room[resource]
	return !limited || left > 0
}

func takeRoom(room map[string]int, resource string) {
	if _, limited := room[resource]; limited {
		room[resource]--
	}
}

// claimable reports whether a claim may get a job.
func (m *model) claimable(op *store.Claim, j *modelJob) bool {
	return j.Queue == op.Queue && j.State == job.Queued && (op.Tenant == nil || j.Owner.Tenant == *op.Tenant) &&
		hasRoom(m.room, j.Resource) && m.mayRun(queueKeyOf(j))
}

// claimLimit returns how many jobs a claim may get, however many are ready.
func (m *model) claimLimit(op *store.Claim) int {
	c, n := m.count(op.Queue), len(op.Tokens)
	if limit := m.w.limits[op.Queue].Running; limit > 0 {
		n = min(n, limit-int(c.Running))
	}
	if c.Paused {
		return 0
	}
	return max(n, 0)
}

// group applies a group, whole or not at all.
func (m *model) group(ops []*store.Submit) (check func()) {
	tried := m.copied()
	refused := map[*store.Submit]job.Code{}
	for _, op := range ops {
		if code := tried.submitCode(op); code != "" {
			refused[op] = code
			continue
		}
		tried.submit(op)
	}
	var checks []func()
	for _, op := range ops {
		switch code, ok := refused[op]; {
		case ok:
			checks = append(checks, m.refusal(op, code))
		case len(refused) > 0:
			checks = append(checks, m.refusal(op, job.BatchRefused))
		default:
			checks = append(checks, m.submit(op))
		}
	}
	return func() {
		for _, check := range checks {
			check()
		}
	}
}

// submitCode is the code with which a submit is refused; "" when it applies.
func (m *model) submitCode(op *store.Submit) job.Code {
	if op.Idempotency != nil {
		if known := m.keys[ownedKey{op.Job.Owner, op.Idempotency.Key}]; known != nil {
			switch {
			case known.hash != op.Idempotency.Hash:
				return job.IdempotencyMismatch
			case m.owned(op.Job.Owner, known.id) == nil:
				return job.NotFound
			}
			return ""
		}
	}
	if m.keyFull(op) {
		return job.KeyFull
	}
	return ""
}

// copied returns a deep copy of the model.
func (m *model) copied() *model {
	c := newModel(m.w)
	c.order = append(c.order, m.order...)
	for id, j := range m.jobs {
		own := *j
		c.jobs[id] = &own
	}
	for key, k := range m.keys {
		own := *k
		c.keys[key] = &own
	}
	for q, n := range m.counts {
		own := *n
		c.counts[q] = &own
	}
	return c
}
