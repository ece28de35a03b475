package storetest

import (
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func (m *model) submit(op *store.Submit) func() {
	key := ownedKey{owner: op.Job.Owner}
	if op.Idempotency != nil {
		key.key = op.Idempotency.Key
		if known := m.keys[key]; known != nil {
			return m.submitKnown(op, known)
		}
	}
	if m.keyFull(op) {
		return m.refusal(op, job.KeyFull)
	}
	now := m.w.now()
	j := &modelJob{Job: op.Job}
	j.CreatedAt, j.RunAt = now, now
	j.abandonableAt = now.Add(j.Policy.Timeouts.Abandon)
	m.jobs[j.ID] = j
	m.order = append(m.order, j.ID)
	m.begin(j, op)
	if d := j.Policy.Timeouts.Queue; d > 0 && j.State != job.Running {
		j.queueDeadline = j.RunAt.Add(d)
	}
	if op.Idempotency != nil {
		j.key = &modelKey{id: j.ID, hash: op.Idempotency.Hash, until: now.Add(op.Idempotency.Keep)}
		m.keys[key] = j.key
	}
	want := withoutRevision(j.Job)
	return func() {
		m.wantRefusal(op, "")
		m.wantAnswer(op, op.Job, want)
		if op.Existing != nil {
			m.w.Fatalf("a new submit answers an existing job: %s", text(*op.Existing))
		}
	}
}

// begin sets the first state of a new job.
func (m *model) begin(j *modelJob, op *store.Submit) {
	switch m.firstState(op) {
	case job.Running:
		m.move(j, job.Running)
		m.lease(j, op.Token, op.LeaseFor)
	case job.Scheduled:
		m.move(j, job.Scheduled)
		j.RunAt = m.w.now().Add(op.Delay)
	default:
		m.ready(j, m.w.now())
	}
}

// lease starts an attempt of a running job.
func (m *model) lease(j *modelJob, token job.Token, d time.Duration) {
	now := m.w.now()
	j.Attempt++
	if j.StartedAt.IsZero() {
		j.StartedAt = now
	}
	j.Progress, j.queueDeadline = job.Progress{}, time.Time{}
	j.token, j.until, j.firstCursor = token, now.Add(d), j.Cursor
	j.tokens = append(j.tokens, token)
}

func (m *model) submitKnown(op *store.Submit, known *modelKey) func() {
	if known.hash != op.Idempotency.Hash {
		return m.refusal(op, job.IdempotencyMismatch)
	}
	j := m.owned(op.Job.Owner, known.id)
	if j == nil {
		return m.refusal(op, job.NotFound)
	}
	want := j.Job
	return func() {
		m.wantRefusal(op, "")
		if op.Existing == nil {
			m.w.Fatalf("a submit with a known key made a second job")
		}
		if ready(want.State) && ready(op.Existing.State) {
			want.State = op.Existing.State // the store may choose which of two is parked
		}
		m.wantAnswer(op, *op.Existing, withoutRevision(want))
	}
}

func (m *model) renew(op *store.Renew) func() {
	j := m.jobOfLease(op.Lease)
	if j == nil {
		return m.refusal(op, job.LeaseLost)
	}
	j.until = m.w.now().Add(op.LeaseFor)
	return m.wantCancelRequested(op, &op.CancelRequested, !j.CancelRequestedAt.IsZero())
}

func (m *model) presence(op *store.Presence) func() {
	for _, j := range m.jobs {
		if slices.Contains(op.Jobs, j.ID) || slices.Contains(op.Owners, j.Owner) {
			j.abandonableAt = m.w.now().Add(j.Policy.Timeouts.Abandon)
		}
	}
	return m.refusal(op, "")
}

func (m *model) abandonable(j *modelJob) bool {
	return !j.State.Ended() && !j.deleted && j.CancelRequestedAt.IsZero() && j.Policy.Timeouts.Abandon > 0 && !j.abandonableAt.After(m.w.now())
}

// wantCancelRequested checks an op that applies, and its CancelRequested.
func (m *model) wantCancelRequested(op any, got *bool, want bool) func() {
	return func() {
		m.wantRefusal(op, "")
		if *got != want {
			m.w.Fatalf("%T answers CancelRequested %v, want %v", op, *got, want)
		}
	}
}

func (m *model) append(op *store.Append) func() {
	j := m.jobOfLease(op.Lease)
	if j == nil {
		return m.refusal(op, job.LeaseLost)
	}
	if !m.appendEntries(j, op.Entries, op.Progress) {
		return m.refusal(op, job.Conflict)
	}
	return m.wantCancelRequested(op, &op.CancelRequested, !j.CancelRequestedAt.IsZero())
}

// appendEntries appends entries to a job's log. It returns false when they do not continue it.
func (m *model) appendEntries(j *modelJob, entries []job.Entry, p *job.Progress) bool {
	if len(entries) > 0 {
		first, last := entries[0].Seq, entries[len(entries)-1].Seq
		switch {
		case first > j.firstCursor && last <= j.Cursor:
			return true // repeated
		case first != j.Cursor+1:
			return false
		}
	}
	for _, e := range entries {
		j.Cursor, j.OutputBytes, j.text = e.Seq, j.OutputBytes+int64(len(e.Data)), j.text+string(e.Data)
	}
	if p != nil {
		j.Progress = *p
	}
	return true
}

func (m *model) finish(op *store.Finish) func() {
	j := m.jobOfLease(op.Lease)
	if j == nil || op.OnlyIf == store.LapsedOnly && j.until.After(m.w.now()) {
		return m.refusal(op, job.LeaseLost)
	}
	if !m.appendEntries(j, op.Entries, op.Progress) {
		return m.refusal(op, job.Conflict)
	}
	if op.Usage != nil {
		j.Usage = op.Usage
	}
	if op.Lost {
		j.Losses++
	} else {
		j.Cleared = j.Losses
	}
	to := m.finishTo(j, op)
	want := withoutRevision(j.Job)
	return func() {
		m.wantRefusal(op, "")
		if op.State != to || op.Job == nil {
			m.w.Fatalf("a finish answers %s, want %s", op.State, to)
		}
		m.wantAnswer(op, *op.Job, want)
	}
}

func (m *model) finishTo(j *modelJob, op *store.Finish) job.State {
	if !j.CancelRequestedAt.IsZero() {
		m.end(j, job.Cancelled)
		return job.Cancelled
	}
	if op.To.Ended() {
		switch op.To {
		case job.Succeeded:
			j.Failure = nil
		case job.Failed:
			j.Failure = op.Failure
		}
		m.end(j, op.To)
		return op.To
	}
	if op.Failure != nil {
		j.Failure = op.Failure
	}
	if op.Refund {
		j.Attempt--
	}
	if op.To == job.Queued {
		m.enter(j, job.Queued)
		j.RunAt = m.w.now()
	} else {
		m.move(j, job.Scheduled)
		j.RunAt = m.w.now().Add(op.Delay)
	}
	return op.To
}

func (m *model) cancel(op *store.Cancel) func() {
	j := m.owned(op.Owner, op.ID)
	if j == nil {
		return m.refusal(op, job.NotFound)
	}
	if op.IfAbandoned && !m.abandonable(j) {
		return m.refusal(op, job.Conflict)
	}
	ended := j.State.Waiting()
	if ended {
		m.end(j, job.Cancelled)
	} else if j.State == job.Running && j.CancelRequestedAt.IsZero() {
		j.CancelRequestedAt = m.w.now()
		j.Revision++
	}
	want := withoutRevision(j.Job)
	return func() {
		m.wantRefusal(op, "")
		m.wantAnswer(op, op.Job, want)
		if op.Ended != ended {
			m.w.Fatalf("a cancel answers that it ended the job: %v, want %v", op.Ended, ended)
		}
	}
}

func (m *model) delete(op *store.Delete) func() {
	j := m.owned(op.Owner, op.ID)
	if j == nil {
		return m.deleteAgain(op)
	}
	running := j.State == job.Running
	m.deletedJobs[j.ID] = modelDeletedJob{j.Owner, m.w.now()}
	switch {
	case running:
		j.deleted = true
		if j.CancelRequestedAt.IsZero() {
			j.CancelRequestedAt = m.w.now()
			j.Revision++
		}
	case j.State.Waiting():
		m.end(j, job.Cancelled)
		fallthrough
	default:
		m.remove(j)
	}
	return func() {
		m.wantRefusal(op, "")
		if op.Running != running {
			m.w.Fatalf("a delete answers that the job was running: %v, want %v", op.Running, running)
		}
	}
}

func (m *model) deleteAgain(op *store.Delete) func() {
	gone, ok := m.deletedJobs[op.ID]
	switch age := m.w.now().Sub(gone.at); {
	case !ok || gone.owner != op.Owner || age > 2*day:
		return m.refusal(op, job.NotFound)
	case age < day:
		return m.refusal(op, "")
	}
	return func() {} // it may be forgotten at any time
}

func (m *model) retry(op *store.Retry) func() {
	j := m.owned(op.Owner, op.ID)
	switch {
	case j == nil:
		return m.refusal(op, job.NotFound)
	case !j.State.Ended() || j.State == job.Succeeded:
		return m.refusal(op, job.NotRetryable)
	}
	j.abandonableAt = m.w.now().Add(j.Policy.Timeouts.Abandon)
	j.Attempt, j.Losses, j.Cleared, j.Failure, j.Usage, j.Progress = 0, 0, 0, nil, nil, job.Progress{}
	j.StartedAt, j.FinishedAt, j.ExpiresAt, j.CancelRequestedAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	m.ready(j, m.w.now())
	m.count(j.Queue).Retried++
	if j.Tally != "" {
		m.tally(j).Retried++
	}
	if d := j.Policy.Timeouts.Queue; d > 0 {
		j.queueDeadline = m.w.now().Add(d)
	}
	want := withoutRevision(j.Job)
	return func() {
		m.wantRefusal(op, "")
		m.wantAnswer(op, op.Job, want)
	}
}
