package storetest

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// modelKeyed is a key of a tenant in a queue.
type modelKeyed struct{ queue, tenant, key string }

func keyed(j *modelled) modelKeyed { return keyedJob(&j.Job) }

func keyedJob(j *job.Job) modelKeyed { return modelKeyed{j.Queue, j.Owner.Tenant, j.Key} }

func ready(s job.State) bool { return s == job.Queued || s == job.Parked }
func busy(s job.State) bool  { return s == job.Queued || s == job.Running }

// all lists the jobs that are as asked for, in the order they came.
func (m *model) all(is func(*modelled) bool) (list []*modelled) {
	for _, id := range m.order {
		if j := m.jobs[id]; j != nil && is(j) {
			list = append(list, j)
		}
	}
	return list
}

// of counts a key's jobs whose states are as asked for.
func (m *model) of(k modelKeyed, is func(job.State) bool) int {
	return len(m.all(func(j *modelled) bool { return keyed(j) == k && is(j.State) }))
}

// full says whether a key has as many queued and running as it may.
func (m *model) full(k modelKeyed) bool {
	limit := m.w.limits[k.queue].KeyRunning
	return limit > 0 && k.key != "" && m.of(k, busy) >= limit
}

func (m *model) readyState(j *modelled) job.State {
	if m.full(keyed(j)) {
		return job.Parked
	}
	return job.Queued
}

// enter makes a job queued or parked.
func (m *model) enter(j *modelled, to job.State) {
	m.move(j, to)
	m.entries++
	j.chosen = j.chosen || j.either
	j.ready, j.entered, j.either = m.entries, 0, to == job.Parked
	if to == job.Queued {
		j.entered = m.entries
	}
}

// follow queues parked jobs of a key while there is room, and says how many.
func (m *model) follow(k modelKeyed, most int) (n int) {
	for ; n < most && !m.full(k); n++ {
		var next *modelled
		for _, j := range m.all(func(j *modelled) bool { return keyed(j) == k && j.State == job.Parked }) {
			if next == nil || j.Priority < next.Priority || j.Priority == next.Priority && j.ready < next.ready {
				next = j
			}
		}
		if next == nil {
			break
		}
		m.move(next, job.Queued)
		m.entries++
		next.entered = m.entries
	}
	return n
}

// following applies an op that is no due, and lets parked jobs follow where it made
// room.
func (m *model) following(op any) (check func()) {
	before := m.busyKeys()
	check = m.expect(op)
	after := m.busyKeys()
	for k, n := range before {
		if after[k] < n {
			m.follow(k, n-after[k])
		}
	}
	return check
}

func (m *model) busyKeys() map[modelKeyed]int {
	keys := map[modelKeyed]int{}
	for _, j := range m.all(func(j *modelled) bool { return busy(j.State) }) {
		keys[keyed(j)]++
	}
	return keys
}

// learn takes over which of a key's ready jobs the store has parked, where several
// became ready at once: that is the store's to choose, but not how many.
func (m *model) learn(batches ...*store.Batch) {
	claimed := map[job.ID]bool{}
	for _, b := range batches {
		for _, op := range b.Claims {
			for _, c := range op.Claimed {
				claimed[c.Job.ID] = true
			}
		}
	}
	wrong := map[modelKeyed]int{}
	for _, j := range m.all(func(j *modelled) bool { return ready(j.State) && !j.deleted }) {
		is := job.Queued
		if !claimed[j.ID] {
			is = m.w.jobOf(j.Owner, j.ID).State
		}
		if is == j.State {
			continue
		}
		if !ready(is) || !j.either {
			m.w.Fatalf("a job is %s, want %s: %s", is, j.State, text(j.Job))
		}
		wrong[keyed(j)] += int(is) - int(j.State)
		j.State, j.entered = is, m.began+1
		m.checkParked(j)
	}
	for k, n := range wrong {
		if n != 0 {
			m.w.Fatalf("of the key %q %d more are parked than should be", k, n)
		}
	}
}

// checkParked fails when a job was queued before another of its key and priority
// that was parked earlier.
func (m *model) checkParked(j *modelled) {
	for _, other := range m.all(func(o *modelled) bool { return keyed(o) == keyed(j) && o.Priority == j.Priority && ready(o.State) }) {
		if j.State == job.Queued && other.ready < j.ready && m.w.jobOf(other.Owner, other.ID).State == job.Parked {
			m.w.Fatalf("a parked job was queued before another of its key that came earlier")
		}
	}
}

// firstState is where a new job begins.
func (m *model) firstState(op *store.Submit) job.State {
	c, limits := m.count(op.Job.Queue), m.w.limits[op.Job.Queue]
	switch {
	case op.Delay > 0:
		return job.Scheduled
	case m.full(keyedJob(&op.Job)):
		return job.Parked
	case op.Token.IsZero() || c.Paused || limits.Running > 0 && c.Running >= int64(limits.Running):
		return job.Queued
	}
	return job.Running
}

func (m *model) keyFull(op *store.Submit) bool {
	most := m.w.limits[op.Job.Queue].KeyWaiting
	return most > 0 && op.Job.Key != "" && m.firstState(op).Waiting() && m.of(keyedJob(&op.Job), job.State.Waiting) >= most
}

// claimable is how many jobs a claim has to get.
func (m *model) claimable(op *store.Claim) int {
	c := m.count(op.Queue)
	n := min(len(op.Tokens), len(m.all(func(j *modelled) bool {
		return j.Queue == op.Queue && j.State == job.Queued && (op.Tenant == nil || j.Owner.Tenant == *op.Tenant)
	})))
	if limit := m.w.limits[op.Queue].Running; limit > 0 {
		n = min(n, limit-int(c.Running))
	}
	if c.Paused {
		return 0
	}
	return max(n, 0)
}

// group applies a group: all of it, or nothing.
func (m *model) group(ops []*store.Submit) (check func()) {
	trial := m.copied()
	refused := map[*store.Submit]job.Code{}
	for _, op := range ops {
		if code := trial.submitCode(op); code != "" {
			refused[op] = code
			continue
		}
		trial.submit(op)
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

// submitCode says why a submit is refused; "" when it is not.
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

// copied is a model of its own of the same jobs.
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
