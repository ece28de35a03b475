package engine

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// SubmitMany stores several jobs in one commit and answers each request, in order, once they are
// on disk. If atomic is set and one request is refused, nothing is stored, and the valid
// requests are refused with [job.BatchRefused]. An error concerns the whole list: then it is
// unknown which jobs were stored.
//
// The position of a job in a long queue is an estimate here. Counting it for each job would take
// longer than storing them.
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

// bulkSubmit is a list of submits in progress. ops and results have the order of the requests.
// The op of an answered request is nil.
type bulkSubmit struct {
	e       *Engine
	ops     []*store.Submit
	results []SubmitResult
}

// admit prepares the requests and reserves their capacity. It answers a request at once if its
// idempotency key has a job. It reports whether it refused any request.
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

// setAnswer returns a function that sets the answer of request i.
func (m *bulkSubmit) setAnswer(i int) func(j *job.Job, existing bool, err error) {
	return func(j *job.Job, existing bool, err error) {
		m.results[i] = SubmitResult{Existing: existing, Err: err}
		if err == nil {
			m.results[i].Job = *j
		}
	}
}

// refuseAll refuses the admitted requests of an atomic list because another one was refused.
func (m *bulkSubmit) refuseAll() {
	m.e.releaseSubmits(m.admittedOps(), nil)
	for i := range m.results {
		if m.results[i].Err == nil {
			m.results[i] = SubmitResult{Err: job.Errorf(job.BatchRefused, "another job of the batch was refused, so none was stored")}
		}
	}
}

func (m *bulkSubmit) admittedOps() []*store.Submit {
	list := make([]*store.Submit, 0, len(m.ops))
	for _, op := range m.ops {
		if op != nil {
			list = append(list, op)
		}
	}
	return list
}

// store puts the admitted submits through the loop.
func (m *bulkSubmit) store(ctx context.Context, atomic bool) error {
	ops := m.admittedOps()
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

// fillSnapshots adds position, estimate and text to each stored job.
func (m *bulkSubmit) fillSnapshots(ctx context.Context) {
	for i := range m.results {
		s := &m.results[i]
		switch {
		case s.Err != nil:
		case s.Existing:
			s.Snapshot = m.e.snapshotAfter(ctx, &s.Job)
		case s.State == job.Queued && m.e.queues[s.Queue].queuedCount() > exactPosition:
			m.e.locateWithoutRead(&s.Snapshot)
		default:
			if m.e.locate(ctx, &s.Snapshot) != nil {
				m.e.locateWithoutRead(&s.Snapshot) // the job is stored, so the answer is a success
			}
		}
	}
}

// reportRefusals reports the refused requests to the observer.
func (m *bulkSubmit) reportRefusals() {
	for i := range m.results {
		_ = m.e.observeRefusal("submit", m.results[i].Err)
	}
}
