package engine

import (
	"context"
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// renewals are the renewals in progress. Each lease has one op at a time. So while the store
// hangs and workers repeat their requests, the number of waiting ops does not grow.
type renewals struct {
	mu      sync.Mutex
	byLease map[job.Lease]*renewal // guarded by mu
}

func newRenewals() *renewals { return &renewals{byLease: map[job.Lease]*renewal{}} }

// renewal is a renewal of one lease, for all callers that wait for it. It is made even if they
// no longer wait.
type renewal struct {
	done chan struct{} // closed with the answer
	err  error         // the answer

	// next begins when this renewal has its answer. It serves the callers that came after this
	// one began, because they count the lease from their request and this renewal may have been
	// applied before. nil without such callers. Guarded by the mu of renewals.
	next *renewal
}

func newRenewal() *renewal { return &renewal{done: make(chan struct{})} }

// Renew extends each lease by the duration it was claimed for, and returns an error or nil for
// each. A void lease gets [job.LeaseLost]. Renew returns when all answers are on disk, or ctx
// ends.
func (e *Engine) Renew(ctx context.Context, leases []job.Lease) []error {
	waits := make([]*renewal, len(leases))
	for i, l := range leases {
		r, begin := e.renewals.add(l)
		if begin {
			e.beginRenewal(l, r)
		}
		waits[i] = r
	}
	errs := make([]error, len(leases))
	for i, r := range waits {
		errs[i] = r.wait(ctx)
	}
	return errs
}

// add returns a renewal that begins after the call: a new one, which the caller must begin, or
// the one that follows the renewal in progress.
func (r *renewals) add(l job.Lease) (added *renewal, begin bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	current := r.byLease[l]
	if current == nil {
		current = newRenewal()
		r.byLease[l] = current
		return current, true
	}
	if current.next == nil {
		current.next = newRenewal()
	}
	return current.next, false
}

// beginRenewal puts a renewal into its lane.
func (e *Engine) beginRenewal(l job.Lease, r *renewal) {
	p := &pendingOp{lane: laneUrgent, bytes: opBytes, op: &store.Renew{Lease: l}}
	p.onAnswer = func(err error) { e.renewed(l, r, err) }
	if err := e.lanes.put(p); err != nil {
		e.renewed(l, r, err)
	}
}

// renewed answers a renewal and begins the lease's next one. A void lease stays void, so its
// next renewal gets the same answer.
func (e *Engine) renewed(l job.Lease, r *renewal, err error) {
	next := e.renewals.end(l, r, job.CodeOf(err) == job.LeaseLost)
	r.answer(err)
	switch {
	case next == nil:
	case job.CodeOf(err) == job.LeaseLost:
		next.answer(err)
	default:
		e.beginRenewal(l, next)
	}
}

// end removes an answered renewal. The next one takes its place, unless this is the last.
func (r *renewals) end(l job.Lease, ended *renewal, last bool) (next *renewal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next = ended.next
	if next == nil || last {
		delete(r.byLease, l)
	} else {
		r.byLease[l] = next
	}
	return next
}

func (r *renewal) answer(err error) {
	r.err = err
	close(r.done)
}

// wait returns when the renewal is on disk, or ctx ends.
func (r *renewal) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		select {
		case <-r.done: // both are ready: prefer the answer
			return r.err
		default:
			return ctx.Err()
		}
	}
}
