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
	m := &many{e: e, out: make([]SubmitResult, len(list)), ops: make([]*store.Submit, len(list))}
	defer m.tell()
	if refused := m.admit(ctx, list); atomic && refused {
		m.dismiss()
		return m.out, nil
	}
	if err := m.store(ctx, atomic); err != nil {
		return nil, e.refused("submit", err)
	}
	m.show(ctx)
	return m.out, nil
}

// tell tells the observer of the requests that were refused.
func (m *many) tell() {
	for i := range m.out {
		_ = m.e.refused("submit", m.out[i].Err)
	}
}

// many is several submits on their way. Ops and answers have the places of their
// requests; the op of a request that is answered already is nil.
type many struct {
	e   *Engine
	ops []*store.Submit
	out []SubmitResult
}

// admit prepares and counts in what may be stored, answers what a known
// idempotency key answers, and says whether anything was refused.
func (m *many) admit(ctx context.Context, list []Request) (refused bool) {
	for i := range list {
		op, err := m.e.prepare(&list[i])
		if err == nil {
			err = m.e.admit(op)
		}
		if err == nil {
			m.ops[i] = op
			continue
		}
		m.out[i].Err = err
		if op != nil {
			m.answer(i)(m.e.known(ctx, op, err))
		}
		refused = refused || m.out[i].Err != nil
	}
	return refused
}

// answer notes what became of a request.
func (m *many) answer(i int) func(j *job.Job, existing bool, err error) {
	return func(j *job.Job, existing bool, err error) {
		m.out[i] = SubmitResult{Existing: existing, Err: err}
		if err == nil {
			m.out[i].Job = *j
		}
	}
}

// dismiss refuses what was admitted, because of what was not.
func (m *many) dismiss() {
	m.e.countOut(m.admitted(), nil)
	for i := range m.out {
		if m.out[i].Err == nil {
			m.out[i] = SubmitResult{Err: job.Errorf(job.BatchRefused, "another job of the batch was refused, so none was stored")}
		}
	}
}

func (m *many) admitted() []*store.Submit {
	list := make([]*store.Submit, 0, len(m.ops))
	for _, op := range m.ops {
		if op != nil {
			list = append(list, op)
		}
	}
	return list
}

// store puts what was admitted through the loop.
func (m *many) store(ctx context.Context, atomic bool) error {
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
	if err := m.e.ask(ctx, &pending{submits: ops, to: make([]*server, len(ops))}); err != nil {
		return err
	}
	for i, op := range m.ops {
		if op != nil {
			m.answer(i)(answerOf(op))
		}
	}
	return nil
}

// show finds out what is known around each stored job.
func (m *many) show(ctx context.Context) {
	for i := range m.out {
		s := &m.out[i]
		switch {
		case s.Err != nil:
		case s.Existing:
			s.Snapshot = m.e.snapshotAfter(ctx, &s.Job)
		case s.State == job.Queued && m.e.queues[s.Queue].waiting() > exactPosition:
			m.e.guess(&s.Snapshot)
		default:
			if m.e.locate(ctx, &s.Snapshot) != nil {
				m.e.guess(&s.Snapshot) // it is stored all the same
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
		n, err := e.each(context.WithoutCancel(ctx), v, page)
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
		if err := e.deleteSome(ctx, owner, some); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) deleteSome(ctx context.Context, owner job.Owner, ids []job.ID) error {
	asked := make([]*pending, 0, len(ids))
	for _, id := range ids {
		p := &pending{lane: laneUrgent, bytes: opBytes, op: &store.Delete{Owner: owner, ID: id}}
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
func (e *Engine) each(ctx context.Context, v Verb, page []job.Job) (done int, failed error) {
	var asked []*pending
	for i := range page {
		op := e.change(v, &page[i])
		if op == nil {
			continue
		}
		p := &pending{lane: laneUrgent, bytes: opBytes, op: op}
		if failed = e.lanes.put(p); failed != nil {
			break
		}
		asked = append(asked, p)
	}
	for _, p := range asked {
		err := p.wait(ctx)
		if err == nil {
			err = refusalOf(p)
		}
		switch {
		case err == nil && changed(p.op):
			done++
		case err != nil && failed == nil:
			failed = err
		}
	}
	return done, failed
}

// refusalOf is why a change of one of many was refused, once it was answered; nil where
// the job is only to be passed over, because it is gone or has moved on.
func refusalOf(p *pending) error {
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
func (e *Engine) change(v Verb, j *job.Job) any {
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
func changed(op any) bool {
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
