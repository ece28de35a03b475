package storetest

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// runHistories commits random batches at two stores that share one database, and compares their
// answers and reads with the model. Batches whose ops depend on each other are committed one
// after the other, batches of different queues at the same time. Some answers get lost.
func runHistories(t *testing.T, s Suite) {
	runRandomly(t, s, 2, checks{full: 15, short: 1}, func(m *machine) map[string]func(*rapid.T) {
		return map[string]func(*rapid.T){
			"": func(r *rapid.T) {
				m.use(rapid.IntRange(0, 1).Draw(r, "reads at"))
				m.model.compare()
			},
			"batch":      m.atAnyStore(m.batch),
			"concurrent": m.concurrent,
			"upkeep":     m.atAnyStore(m.upkeep),
			"limits":     m.atAnyStore(m.changeLimits),
			"fail":       m.atAnyStore(m.fail),
			"reopen":     m.reopen,
			"pass":       m.pass,
		}
	})
}

// atAnyStore returns the step with one of the stores as the current one.
func (m *machine) atAnyStore(step func(*rapid.T)) func(*rapid.T) {
	return func(r *rapid.T) {
		m.use(rapid.IntRange(0, 1).Draw(r, "commits at"))
		m.loseAnswers(r)
		step(r)
	}
}

// loseAnswers makes each store lose its next answer, sometimes.
func (m *machine) loseAnswers(r *rapid.T) {
	for _, s := range m.stores {
		s.(*handle).loseNext.Store(rapid.IntRange(0, 3).Draw(r, "loses") == 0)
	}
}

// concurrent commits the ops of the two queues at the two stores, at the same time.
func (m *machine) concurrent(r *rapid.T) {
	var ofA, ofB []any
	for range rapid.IntRange(2, 8).Draw(r, "ops") {
		switch op := m.op(r); m.queueOf(op) {
		case "a":
			ofA = append(ofA, op)
		case "b":
			ofB = append(ofB, op)
		}
	}
	a, b := batchOf(ofA...), batchOf(ofB...)
	first := rapid.IntRange(0, 1).Draw(r, "first")
	m.loseAnswers(r)
	at := map[int]*store.Batch{first: a, 1 - first: b}
	m.commitAll(func() { m.atEveryStore(func(n int) error { return m.commitAt(n, at[n]) }) }, a, b)
	m.last = nil
}

// queueOf is the only queue that an op depends on; "" when it may depend on several.
func (m *machine) queueOf(op any) string {
	switch op := op.(type) {
	case *store.Submit:
		if op.Idempotency == nil && op.Job.Tally == "" {
			return op.Job.Queue // keys and tallies span queues
		}
	case *store.Claim:
		return op.Queue
	case *store.Pause:
		return op.Queue
	case *store.Renew:
		return m.queueOfJob(op.Lease.Job)
	case *store.Append:
		return m.queueOfJob(op.Lease.Job)
	case *store.Finish:
		return m.queueOfJob(op.Lease.Job)
	case *store.Cancel:
		return m.queueOfJob(op.ID)
	case *store.Delete:
		return m.queueOfJob(op.ID)
	case *store.Retry:
		return m.queueOfJob(op.ID)
	}
	return ""
}

func (m *machine) queueOfJob(id job.ID) string {
	if j := m.model.jobs[id]; j != nil {
		return j.Queue
	}
	return ""
}
