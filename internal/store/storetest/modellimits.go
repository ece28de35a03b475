package storetest

import (
	"maps"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// modelQueueKey identifies a key of a tenant in a queue.
type modelQueueKey struct{ queue, tenant, key string }

func queueKeyOf(j *modelJob) modelQueueKey { return queueKeyOfJob(&j.Job) }

func queueKeyOfJob(j *job.Job) modelQueueKey { return modelQueueKey{j.Queue, j.Owner.Tenant, j.Key} }

func ready(s job.State) bool { return s == job.Queued || s == job.Parked }
func busy(s job.State) bool  { return s == job.Queued || s == job.Running }

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

// full reports whether a key is at its limit of running jobs.
func (m *model) full(k modelQueueKey) bool {
	limit := m.w.limits[k.queue].KeyRunning
	return limit > 0 && k.key != "" && m.countOf(k, busy) >= limit
}

func (m *model) readyState(j *modelJob) job.State {
	if m.full(queueKeyOf(j)) {
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

// unpark queues parked jobs of a key up to its limit, and returns how many.
func (m *model) unpark(k modelQueueKey, most int) (n int) {
	for ; n < most && !m.full(k); n++ {
		var next *modelJob
		for _, j := range m.filter(func(j *modelJob) bool { return queueKeyOf(j) == k && j.State == job.Parked }) {
			if next == nil || j.Priority < next.Priority || j.Priority == next.Priority && j.readyOrder < next.readyOrder {
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

// applyAndUnpark applies an op other than a due, and then queues parked jobs in the places that
// it freed.
func (m *model) applyAndUnpark(op any) (check func()) {
	before := m.busyKeys()
	check = m.expect(op)
	after := m.busyKeys()
	for k, n := range before {
		if after[k] < n {
			m.unpark(k, n-after[k])
		}
	}
	return check
}

func (m *model) busyKeys() map[modelQueueKey]int {
	keys := map[modelQueueKey]int{}
	for _, j := range m.filter(func(j *modelJob) bool { return busy(j.State) }) {
		keys[queueKeyOf(j)]++
	}
	return keys
}

// adoptParked parks the same jobs of a key in the model as the store has parked. Where several
// became ready at once, the store may choose which, but not how many.
func (m *model) adoptParked(batches ...*store.Batch) {
	claimed := map[job.ID]bool{}
	for _, b := range batches {
		for _, op := range b.Claims {
			for _, c := range op.Claimed {
				claimed[c.Job.ID] = true
			}
		}
	}
	difference := map[modelQueueKey]int{}
	for _, j := range m.filter(func(j *modelJob) bool { return ready(j.State) && !j.deleted }) {
		actual := job.Queued
		if !claimed[j.ID] {
			actual = m.w.jobOf(j.Owner, j.ID).State
		}
		if actual == j.State {
			continue
		}
		if !ready(actual) || !j.anyOrder {
			m.w.Fatalf("a job is %s, want %s: %s", actual, j.State, text(j.Job))
		}
		difference[queueKeyOf(j)] += int(actual) - int(j.State)
		j.State, j.queuedOrder = actual, m.entriesBefore+1
		m.checkParked(j)
	}
	for k, n := range difference {
		if n != 0 {
			m.w.Fatalf("of the key %q %d more are parked than should be", k, n)
		}
	}
}

// checkParked fails when a job was queued before an earlier parked one of the same key and
// priority.
func (m *model) checkParked(j *modelJob) {
	for _, other := range m.filter(func(o *modelJob) bool {
		return queueKeyOf(o) == queueKeyOf(j) && o.Priority == j.Priority && ready(o.State)
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
	case m.full(queueKeyOfJob(&op.Job)):
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

// claimable returns how many jobs a claim must get.
func (m *model) claimable(op *store.Claim) int {
	c := m.count(op.Queue)
	ready, left := 0, maps.Clone(m.room)
	for _, j := range m.filter(func(j *modelJob) bool {
		return j.Queue == op.Queue && j.State == job.Queued && (op.Tenant == nil || j.Owner.Tenant == *op.Tenant)
	}) {
		if hasRoom(left, j.Resource) {
			takeRoom(left, j.Resource)
			ready++
		}
	}
	n := min(len(op.Tokens), ready)
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
