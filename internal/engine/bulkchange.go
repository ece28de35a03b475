package engine

import (
	"context"
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Verb is what can be done to many jobs at once.
type Verb uint8

// The verbs.
const (
	CancelAll Verb = 1 + iota
	RetryAll
	DeleteAll
)

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
