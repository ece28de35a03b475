package engine

import (
	"context"
	"slices"

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

// tell tells the observer of the requests that were refused.
func (m *bulkSubmit) reportRefusals() {
	for i := range m.results {
		_ = m.e.observeRefusal("submit", m.results[i].Err)
	}
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

// ChangeMany does one thing to every job that the filter selects, a page after another,
// and says to how many. Jobs for which it is no change (a cancel of one that has
// ended, a retry of one that cannot be) are passed over. What was done before an
// error, or before ctx ended, stays done.
//
// When ctx ends no further page is begun. A page that was begun is waited for: what was
// asked for is done, whoever waits, and so it counts.
func (e *Engine) ChangeMany(ctx context.Context, v Verb, f job.Filter) (done int, err error) {
	f.Limit = job.MaxListPage
	for {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		page, next, err := e.store.List(ctx, f)
		if err != nil {
			return done, err
		}
		n, err := e.changePage(context.WithoutCancel(ctx), v, page)
		done += n
		if err != nil || next == (job.ID{}) {
			return done, err
		}
		f.After = next
	}
}

// DeleteJobs removes jobs as [Engine.Delete] does, in one go, and passes over those
// that do not exist. What was removed before an error stays removed.
func (e *Engine) DeleteJobs(ctx context.Context, owner job.Owner, ids []job.ID) error {
	for some := range slices.Chunk(ids, batchRows) { // however many, they are not too much at once
		if err := e.deleteChunk(ctx, owner, some); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) deleteChunk(ctx context.Context, owner job.Owner, ids []job.ID) error {
	asked := make([]*pendingOp, 0, len(ids))
	for _, id := range ids {
		p := &pendingOp{lane: laneUrgent, bytes: opBytes, op: &store.Delete{Owner: owner, ID: id}}
		if err := e.lanes.put(p); err != nil {
			return err
		}
		asked = append(asked, p)
	}
	for _, p := range asked {
		if err := p.wait(ctx); err != nil {
			return err
		}
		if err := p.op.(*store.Delete).Err; err != nil && job.CodeOf(err) != job.NotFound {
			return err
		}
	}
	return nil
}

// each does one thing to every job of a page, in one go. Of several errors it returns
// the first, and counts all that was done.
func (e *Engine) changePage(ctx context.Context, v Verb, page []job.Job) (done int, failed error) {
	var asked []*pendingOp
	for i := range page {
		op := e.changeOp(v, &page[i])
		if op == nil {
			continue
		}
		p := &pendingOp{lane: laneUrgent, bytes: opBytes, op: op}
		if failed = e.lanes.put(p); failed != nil {
			break
		}
		asked = append(asked, p)
	}
	for _, p := range asked {
		err := p.wait(ctx)
		if err == nil {
			err = changeRefusal(p)
		}
		switch {
		case err == nil && wasChanged(p.op):
			done++
		case err != nil && failed == nil:
			failed = err
		}
	}
	return done, failed
}

// refusalOf is why a change of one of many was refused, once it was answered; nil where
// the job is only to be passed over, because it is gone or has moved on.
func changeRefusal(p *pendingOp) error {
	var err error
	switch op := p.op.(type) {
	case *store.Cancel:
		err = op.Err
	case *store.Retry:
		err = op.Err
	case *store.Delete:
		err = op.Err
	}
	switch job.CodeOf(err) {
	case job.NotFound, job.NotRetryable:
		return nil
	}
	return err
}

// change is the op that does a thing to a job; nil where it would be no change.
func (e *Engine) changeOp(v Verb, j *job.Job) any {
	switch {
	case v == CancelAll && !j.State.Ended() && j.CancelRequestedAt.IsZero():
		return &store.Cancel{Owner: j.Owner, ID: j.ID}
	case v == RetryAll && j.State.Ended() && j.State != job.Succeeded:
		return &store.Retry{Owner: j.Owner, ID: j.ID}
	case v == DeleteAll:
		return &store.Delete{Owner: j.Owner, ID: j.ID}
	}
	return nil
}

// changed says whether a change of one of many took place: a job may have moved on
// since it was listed.
func wasChanged(op any) bool {
	switch op := op.(type) {
	case *store.Cancel:
		return op.Err == nil && (op.Ended || op.Job.State == job.Running)
	case *store.Retry:
		return op.Err == nil
	case *store.Delete:
		return op.Err == nil
	}
	return false
}
