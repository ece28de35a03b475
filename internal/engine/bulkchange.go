package engine

import (
	"context"
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Verb is a change that can be made to many jobs at once.
type Verb uint8

// The verbs of [Engine.ChangeMany].
const (
	CancelAll Verb = 1 + iota
	RetryAll
	DeleteAll
)

// ChangeMany makes one change to every job that the filter selects, page by page, and counts the
// changed jobs. It skips jobs that the change does not apply to, such as a retry of a succeeded
// job. Changes made before an error, or before ctx ended, stay.
//
// When ctx ends, it begins no further page. It waits for the page in progress, because its ops
// are applied in any case, and counts them.
func (e *Engine) ChangeMany(ctx context.Context, v Verb, f job.Filter) (done int, err error) {
	f.Limit = job.MaxListPage
	for {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		page, next, err := e.listPiece(ctx, f)
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

// changePage changes every job of a page, many in one commit. It counts all changes and returns
// the first of several errors.
func (e *Engine) changePage(ctx context.Context, v Verb, page []job.Job) (done int, failed error) {
	var ops []*pendingOp
	for i := range page {
		op := e.changeOp(v, &page[i])
		if op == nil {
			continue
		}
		p := &pendingOp{lane: laneUrgent, bytes: opBytes, op: op}
		if failed = e.lanes.put(p); failed != nil {
			break
		}
		ops = append(ops, p)
	}
	for _, p := range ops {
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

// changeRefusal returns the error of one refused change. It returns nil if the job was deleted
// or has another state by now, so that the change skips it.
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

// changeOp makes the op of a change; nil if it would not change the job.
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

// wasChanged reports whether the op changed its job. The state of the job may have changed since
// the job was listed.
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

// DeleteJobs deletes jobs as [Engine.Delete] does, many in one commit. It skips jobs that do not
// exist. Jobs deleted before an error stay deleted.
func (e *Engine) DeleteJobs(ctx context.Context, owner job.Owner, ids []job.ID) error {
	for some := range slices.Chunk(ids, maxBatchOps) { // a bound on the ops that wait at once
		if err := e.deleteChunk(ctx, owner, some); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) deleteChunk(ctx context.Context, owner job.Owner, ids []job.ID) error {
	ops := make([]*pendingOp, 0, len(ids))
	for _, id := range ids {
		p := &pendingOp{lane: laneUrgent, bytes: opBytes, op: &store.Delete{Owner: owner, ID: id}}
		if err := e.lanes.put(p); err != nil {
			return err
		}
		ops = append(ops, p)
	}
	for _, p := range ops {
		if err := p.wait(ctx); err != nil {
			return err
		}
		if err := p.op.(*store.Delete).Err; err != nil && job.CodeOf(err) != job.NotFound {
			return err
		}
	}
	return nil
}
