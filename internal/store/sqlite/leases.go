package sqlite

import (
	"context"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// Running returns a running job from the memory; see [ops.LeaseTx].
func (t *tx) Running(id job.ID) (*ops.Job, error) {
	if h := t.running[id]; h != nil {
		return h.Job, nil
	}
	return nil, nil
}

// Holder returns the running job of a token; see [ops.LeaseTx].
func (t *tx) Holder(token job.Token) (*ops.Job, error) {
	if id, used := t.tokens[token]; used {
		return t.running[id].Job, nil
	}
	return nil, nil
}

// Damaged returns the running jobs with rows that were damaged at the opening; see [ops.LeaseTx].
func (t *tx) Damaged() (jobs []*ops.Job, err error) {
	for _, id := range t.damagedJobs {
		// A job is listed twice if its row and its tail are damaged.
		if h := t.running[id]; h != nil && !slices.Contains(jobs, h.Job) {
			jobs = append(jobs, h.Job)
		}
	}
	t.damagedJobs = nil
	return jobs, nil
}

// SaveLease writes a lease; see [ops.LeaseTx].
func (t *tx) SaveLease(j *ops.Job) error {
	t.addRunning(&runningJob{Job: j})
	l := &j.Lease
	return t.q.lease.int(j.Revision).int(int64(j.Attempt)).time(j.StartedAt).token(&l.Token).text(l.Worker).time(l.Until).
		int(int64(l.For / time.Millisecond)).flag(l.Used).process(&l.Process).int(j.N).run()
}

// SaveRenewal writes a renewal; see [ops.LeaseTx].
func (t *tx) SaveRenewal(j *ops.Job) error {
	return t.q.setLeaseUntil.time(j.Lease.Until).int(j.N).run()
}

// SaveCancelRequest writes that a running job is to stop; see [ops.LeaseTx].
func (t *tx) SaveCancelRequest(j *ops.Job) error {
	q := t.q.requestCancel
	if j.Deleted {
		q = t.q.markDeleted
	}
	return q.time(j.CancelRequestedAt).int(j.Revision).int(j.N).run()
}

// SaveRequeue writes a job that waits again after its attempt; see [ops.LeaseTx].
func (t *tx) SaveRequeue(j *ops.Job) error {
	t.removeRunning(j)
	q := t.q.requeueRunning.int(int64(j.State)).int(j.Revision)
	if j.State == job.Scheduled {
		q.bytes(nil).int(j.Turn).time(j.RunAt)
	} else {
		q.text(ops.LaneOf(&j.Job)).int(j.Turn).bytes(nil)
	}
	return q.int(int64(j.Attempt)).time(j.RunAt).time(j.StartedAt).int(j.Cursor).int(j.OutputBytes).
		bytes(codec.EncodeProgress(j.Progress)).failure(j.Failure).bytes(j.Usage).int(int64(j.Losses)).int(int64(j.Cleared)).int(j.N).run()
}

// Running lists running jobs; see [store.UpkeepReader].
func (s *Store) Running(_ context.Context, filter store.RunningFilter, after job.ID, limit int) ([]store.Running, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(); err != nil {
		return nil, unreadable(s.noteDamage(err))
	}
	now := s.Now()
	return s.page(after, limit, func(h *runningJob) bool { return h.Matches(filter, now) }), nil
}

// RunningOf lists the running jobs of a process; see [store.UpkeepReader].
func (s *Store) RunningOf(_ context.Context, p job.Process, after job.ID, limit int) ([]store.Running, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(); err != nil {
		return nil, unreadable(s.noteDamage(err))
	}
	return s.page(after, limit, func(h *runningJob) bool { return h.Lease.Process == p }), nil
}

// Leases returns the jobs of leases; see [store.UpkeepReader].
func (s *Store) Leases(_ context.Context, leases []job.Lease) ([]store.Running, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(); err != nil {
		return nil, unreadable(s.noteDamage(err))
	}
	list := make([]store.Running, len(leases))
	for i, l := range leases {
		if h := s.running[l.Job]; h != nil && h.Lease.Token == l.Token && !l.Token.IsZero() {
			list[i] = h.View()
		}
	}
	return list, nil
}

// page lists running jobs after an id that match, in the order of their ids.
func (s *Store) page(after job.ID, limit int, is func(*runningJob) bool) []store.Running {
	var ids []job.ID
	for id, h := range s.running {
		if compareIDs(id, after) > 0 && is(h) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, compareIDs)
	ids = ids[:min(limit, len(ids))]
	list := make([]store.Running, len(ids))
	for i, id := range ids {
		list[i] = s.running[id].View()
	}
	return list
}
