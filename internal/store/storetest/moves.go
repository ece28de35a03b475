package storetest

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func moveRules() []rule {
	return []rule{
		{"every legal move is made by its op", legalMoves},
		{"no op makes an illegal move", noIllegalMoves},
	}
}

// reachable lists the states that inState can make.
func reachable() []job.State {
	return []job.State{job.Scheduled, job.Queued, job.Parked, job.Running, job.Succeeded, job.Failed, job.Cancelled, job.Expired}
}

// inState makes a job in the state, in a queue of that name, and returns its last lease, if it
// had one. It advances the clock by two seconds for Expired.
func (w *harness) inState(state job.State) (job.ID, job.Lease) {
	w.Helper()
	in := inQueue(state.String())
	switch state {
	case job.Scheduled:
		return w.submit(in, delayed(time.Hour)), job.Lease{}
	case job.Queued:
		return w.submit(in), job.Lease{}
	case job.Parked:
		w.setLimits(state.String(), job.Limits{KeyRunning: 1})
		w.submit(in, leasedAs(w.token()))
		return w.submit(in), job.Lease{}
	case job.Expired:
		id := w.submit(in, withQueueTimeout(time.Second))
		w.advance(2 * time.Second)
		w.do(newDue())
		return id, job.Lease{}
	}
	s := w.newSubmit(in, leasedAs(w.token()))
	w.do(s)
	lease := job.Lease{Job: s.Job.ID, Token: s.Token}
	if state != job.Running {
		w.do(newFinish(lease, state))
	}
	return s.Job.ID, lease
}

// move makes the op for a move from the job and its lease.
type move struct {
	from, to job.State
	by       func(w *harness, id job.ID, l job.Lease) any
}

func movesByOps() []move {
	finish := func(to job.State) func(*harness, job.ID, job.Lease) any {
		return func(_ *harness, _ job.ID, l job.Lease) any { return newFinish(l, to) }
	}
	cancel := func(_ *harness, id job.ID, _ job.Lease) any { return newCancel(id) }
	retry := func(w *harness, id job.ID, _ job.Lease) any { return newRetry(id) }
	claim := func(w *harness, _ job.ID, _ job.Lease) any { return w.newClaim(job.Queued.String(), 1) }
	due := func(w *harness, _ job.ID, _ job.Lease) any {
		w.advance(2 * time.Hour)
		return newDue()
	}
	unlimited := func(w *harness, _ job.ID, _ job.Lease) any {
		w.limits = nil
		return newDue()
	}
	return []move{
		{job.Scheduled, job.Queued, due},
		{job.Scheduled, job.Cancelled, cancel},
		{job.Queued, job.Running, claim},
		{job.Parked, job.Queued, unlimited},
		{job.Parked, job.Cancelled, cancel},
		{job.Queued, job.Cancelled, cancel},
		{job.Running, job.Succeeded, finish(job.Succeeded)},
		{job.Running, job.Failed, finish(job.Failed)},
		{job.Running, job.Cancelled, finish(job.Cancelled)},
		{job.Running, job.Scheduled, finish(job.Scheduled)},
		{job.Running, job.Queued, finish(job.Queued)},
		{job.Failed, job.Queued, retry},
		{job.Cancelled, job.Queued, retry},
		{job.Expired, job.Queued, retry},
	}
}

func legalMoves(w *harness) {
	for _, m := range movesByOps() {
		id, lease := w.inState(m.from)
		wantEqual(w, "the state before", w.job(id).State, m.from)
		w.do(m.by(w, id, lease))
		if got := w.job(id).State; got != m.to || !job.CanMove(m.from, m.to) {
			w.Errorf("%s → %s led to %s", m.from, m.to, got)
		}
		w.do(newDelete(id))
	}
	for _, s := range []*store.Submit{w.newSubmit(), w.newSubmit(delayed(time.Hour)), w.newSubmit(leasedAs(w.token()))} {
		w.do(s)
		wantEqual(w, "a submit may make a job "+s.Job.State.String(), job.CanMove(0, s.Job.State), true)
	}
	expiring := w.submit(withQueueTimeout(time.Second))
	w.advance(2 * time.Second)
	w.do(newDue())
	wantEqual(w, "the state of the job that waited too long", w.job(expiring).State, job.Expired)
}

func noIllegalMoves(w *harness) {
	ops := []func(w *harness, id job.ID, l job.Lease) any{
		func(_ *harness, _ job.ID, l job.Lease) any { return newRenew(l, leaseFor) },
		func(_ *harness, _ job.ID, l job.Lease) any { return newAppend(l, 1, 0, "x") },
		func(w *harness, _ job.ID, _ job.Lease) any { w.advance(20 * day); return newPrune() },
	}
	for _, to := range append(job.States(), 0, 200) {
		ops = append(ops, func(_ *harness, _ job.ID, l job.Lease) any { return newFinish(l, to) })
		ops = append(ops, func(w *harness, _ job.ID, l job.Lease) any { w.advance(day); return newLapse(l, to) })
	}
	for _, m := range movesByOps() {
		ops = append(ops, m.by)
	}
	for _, state := range reachable() {
		for _, op := range ops {
			id, lease := w.inState(state)
			w.try(op(w, id, lease))
			j, err := w.store.Job(w.ctx, mine, id)
			if err != nil { // pruned
				w.wantCode(job.NotFound, err)
				continue
			}
			if j.State != state && !job.CanMove(state, j.State) {
				w.Errorf("a job moved %s → %s", state, j.State)
			}
			w.do(newDelete(id))
		}
	}
}
