package engine

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// SubmitMany stores several jobs in one commit and answers each, in their order, once
// they are on disk. Atomic: all are stored or none; requests that were not to
// blame are refused with [job.BatchRefused]. An error is of the whole: what was
// stored is then not known.
//
// The position of a job in a long queue is an estimate here: counting it for each
// would take longer than storing it.
func (e *Engine) SubmitMany(ctx context.Context, list []Request, atomic bool) ([]SubmitResult, error) {
	m := &bulkSubmit{e: e, results: make([]SubmitResult, len(list)), ops: make([]*store.Submit, len(list))}
	defer m.reportRefusals()
	if refused := m.admit(ctx, list); atomic && refused {
		m.refuseAll()
		return m.results, nil
	}
	if err := m.store(ctx, atomic); err != nil {
		return nil, e.observeRefusal("submit", err)
	}
	m.fillSnapshots(ctx)
	return m.results, nil
}

// many is several submits on their way. Ops and answers have the places of their
// requests; the op of a request that is answered already is nil.
type bulkSubmit struct {
	e       *Engine
	ops     []*store.Submit
	results []SubmitResult
}

// admit prepares and counts in what may be stored, answers what a known
// idempotency key answers, and says whether anything was refused.
func (m *bulkSubmit) admit(ctx context.Context, list []Request) (refused bool) {
	for i := range list {
		op, err := m.e.prepare(&list[i])
		if err == nil {
			err = m.e.admit(op)
		}
		if err == nil {
			m.ops[i] = op
			continue
		}
		m.results[i].Err = err
		if op != nil {
			m.setAnswer(i)(m.e.resolveByKey(ctx, op, err))
		}
		refused = refused || m.results[i].Err != nil
	}
	return refused
}

// answer notes what became of a request.
func (m *bulkSubmit) setAnswer(i int) func(j *job.Job, existing bool, err error) {
	return func(j *job.Job, existing bool, err error) {
		m.results[i] = SubmitResult{Existing: existing, Err: err}
		if err == nil {
			m.results[i].Job = *j
		}
	}
}

// dismiss refuses what was admitted, because of what was not.
func (m *bulkSubmit) refuseAll() {
	m.e.releaseSubmits(m.admitted(), nil)
	for i := range m.results {
		if m.results[i].Err == nil {
			m.results[i] = SubmitResult{Err: job.Errorf(job.BatchRefused, "another job of the batch was refused, so none was stored")}
		}
	}
}

func (m *bulkSubmit) admitted() []*store.Submit {
	list := make([]*store.Submit, 0, len(m.ops))
	for _, op := range m.ops {
		if op != nil {
			list = append(list, op)
		}
	}
	return list
}

// store puts what was admitted through the loop.
func (m *bulkSubmit) store(ctx context.Context, atomic bool) error {
	ops := m.admitted()
	if len(ops) == 0 {
		return nil
	}
	if atomic {
		group := &store.Group{Size: len(ops)}
		for _, op := range ops {
			op.Group = group
		}
	}
	if err := m.e.doSubmits(ctx, &pendingOp{submits: ops, consumers: make([]*consumer, len(ops))}); err != nil {
		return err
	}
	for i, op := range m.ops {
		if op != nil {
			m.setAnswer(i)(submitAnswer(op))
		}
	}
	return nil
}

// show finds out what is known around each stored job.
func (m *bulkSubmit) fillSnapshots(ctx context.Context) {
	for i := range m.results {
		s := &m.results[i]
		switch {
		case s.Err != nil:
		case s.Existing:
			s.Snapshot = m.e.snapshotAfter(ctx, &s.Job)
		case s.State == job.Queued && m.e.queues[s.Queue].queued() > exactPosition:
			m.e.locateWithoutRead(&s.Snapshot)
		default:
			if m.e.locate(ctx, &s.Snapshot) != nil {
				m.e.locateWithoutRead(&s.Snapshot) // it is stored all the same
			}
		}
	}
}

// tell tells the observer of the requests that were refused.
func (m *bulkSubmit) reportRefusals() {
	for i := range m.results {
		_ = m.e.observeRefusal("submit", m.results[i].Err)
	}
}
