package sqlite

import (
	"context"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// findLease returns the running job of a lease, or nil if the lease is stale.
func (t *tx) findLease(l job.Lease) *runningJob {
	h := t.running[l.Job]
	if h == nil || h.token != l.Token || l.Token.IsZero() {
		return nil
	}
	return h
}

func (t *tx) renew(op *store.Renew) error {
	op.Err, op.CancelRequested = nil, false
	h := t.findLease(op.Lease)
	if h == nil {
		op.Err = store.LeaseLost(op.Lease)
		return nil
	}
	op.CancelRequested = !h.job.CancelRequestedAt.IsZero()
	// A lease that was claimed for longer than usual is renewed for that time.
	lasts := op.LeaseFor
	if lasts == 0 {
		lasts = h.leaseFor
	}
	h.leaseUntil, h.leaseUsed = t.now.Add(lasts), true
	return t.q.setLeaseUntil.time(h.leaseUntil).int(h.job.n).run()
}

func (t *tx) append(op *store.Append) error {
	op.Err, op.CancelRequested = nil, false
	h := t.findLease(op.Lease)
	if h == nil {
		op.Err = store.LeaseLost(op.Lease)
		return nil
	}
	op.CancelRequested = !h.job.CancelRequestedAt.IsZero()
	repeated, refusal := job.CheckEntries(op.Entries, op.Progress, h.startCursor, h.job.Cursor)
	// A repetition was stored when its answer was lost. Nothing is left to do.
	if op.Err = refusal; repeated || refusal != nil {
		return nil
	}
	h.leaseUsed = true
	t.publishLater(h)
	if op.Progress != nil {
		h.job.Progress = *op.Progress
	}
	if fitsTail(op.Entries) {
		return t.appendToTail(h, op.Entries, op.Progress)
	}
	// Large entries go to the log at once, after those that are still in the tail.
	h.progressPending = h.progressPending || op.Progress != nil
	if err := t.flush(h); err != nil {
		return err
	}
	return t.appendToLog(h, op.Entries)
}

// maxSkipped limits how many ready jobs one claim may find and not lease.
const maxSkipped = 1000

func (t *tx) claim(op *store.Claim) error {
	op.Err, op.Claimed = nil, nil
	q := t.namedQueue(op.Queue)
	ahead := readAhead{tx: t, queue: op.Queue}
	free, err := t.answerRepeated(op)
	if err != nil {
		return err
	}
	for skipped := 0; skipped <= maxSkipped; {
		// Each job that was leased or parked may change the limit, the room and the next tenant.
		want := q.Claimable(len(free))
		if want <= 0 {
			break
		}
		tenant, share := q.NextTenant(op.Tenant, want, t.room)
		if share == 0 {
			break
		}
		c, err := ahead.next(tenant, share)
		if c == nil || err != nil {
			return err
		}
		leased, err := t.leaseOrPark(op, c, free[0])
		if err != nil {
			return err
		}
		if leased {
			free = free[1:]
			t.room.Take(c.job.Resource)
		} else {
			skipped++
		}
	}
	return nil
}

// answerRepeated answers the tokens that already hold a job, and returns the others.
func (t *tx) answerRepeated(op *store.Claim) (free []job.Token, err error) {
	holds := func(token job.Token) bool { _, used := t.tokens[token]; return used }
	if !slices.ContainsFunc(op.Tokens, holds) {
		return op.Tokens, nil
	}
	for _, token := range op.Tokens {
		if !holds(token) {
			free = append(free, token)
			continue
		}
		h := t.running[t.tokens[token]]
		input, err := t.readInput(h.job.n)
		if err != nil {
			return nil, err
		}
		op.Claimed = append(op.Claimed, job.Claimed{Job: h.job.Job, Input: input, Token: token, Until: h.leaseUntil})
	}
	return free, nil
}

// candidate is a ready job that a claim may lease.
type candidate struct {
	job            row
	damaged        bool // the row cannot be decoded completely
	turn           int64
	idempotencyKey string
}

// readAhead has the ready jobs that one claim has read and not used yet.
type readAhead struct {
	tx    *tx
	queue string
	lanes []*laneAhead
}

// laneAhead has the next ready jobs of a lane that a claim has read. A tenant has a lane for each
// resource that its jobs need.
type laneAhead struct {
	tenant, resource string
	ready            []candidate
}

// next returns the tenant's next ready job for which there is room, or nil. It reads as many rows
// at a time as share says.
func (h *readAhead) next(tenant string, share int) (*candidate, error) {
	q, room := h.tx.queue(h.queue), h.tx.room
	var first *laneAhead
	for _, resource := range q.Claimables(tenant, room) {
		l := h.lane(tenant, resource)
		// This is the first call, or the jobs that were read are used up.
		if len(l.ready) == 0 {
			limit := share
			if left, limited := room[resource]; limited {
				limit = min(limit, left)
			}
			var err error
			if l.ready, err = h.tx.readReady(h.queue, l, limit); err != nil {
				return nil, err
			}
		}
		switch {
		case len(l.ready) == 0:
			q.ForgetResource(tenant, resource)
		case first == nil || l.ready[0].before(&first.ready[0]):
			first = l
		}
	}
	if first == nil {
		return nil, nil
	}
	c := &first.ready[0]
	first.ready = first.ready[1:]
	return c, nil
}

func (h *readAhead) lane(tenant, resource string) *laneAhead {
	for _, l := range h.lanes {
		if l.tenant == tenant && l.resource == resource {
			return l
		}
	}
	l := &laneAhead{tenant: tenant, resource: resource}
	h.lanes = append(h.lanes, l)
	return l
}

func (c *candidate) before(other *candidate) bool {
	return c.turn < other.turn || c.turn == other.turn && c.job.n < other.job.n
}

func (t *tx) readReady(queue string, l *laneAhead, limit int) (ready []candidate, err error) {
	name := lane(job.Queued, fairqueue.Key{Tenant: l.tenant}, l.resource)
	err = t.q.nextReady.text(queue).text(name).int(int64(limit)).each(func(c column) error {
		j, damage := scanRow(c)
		j.Resource = l.resource // what the row says may be damaged
		const at = afterJobColumns
		ready = append(ready, candidate{job: j, damaged: damage != nil, turn: c.int(at), idempotencyKey: c.text(at + 1)})
		return nil
	})
	return ready, err
}

// leaseOrPark leases a ready job and reports whether it did. A job with a damaged row fails. A
// job whose key has reached its limit is parked: the limit was lower or absent when the job was
// queued. A suspect is parked while another suspect runs.
func (t *tx) leaseOrPark(op *store.Claim, c *candidate, token job.Token) (leased bool, err error) {
	switch {
	case c.damaged:
		return false, t.repair(&c.job)
	case !t.queue(op.Queue).MayRun(fairqueue.KeyOf(&c.job.Job)):
		return false, t.park(&c.job, c.turn)
	case t.suspects.running > 0 && c.job.Suspect():
		return false, t.parkSuspect(&c.job, c.turn)
	}
	return true, t.leaseJob(op, c, token)
}

// leaseJob leases one ready job.
func (t *tx) leaseJob(op *store.Claim, c *candidate, token job.Token) error {
	j := c.job
	// fairqueue wants this call before the job moves.
	t.queue(j.Queue).AdvanceTurn(j.Owner.Tenant, j.Priority, c.turn)
	from := j.State
	j.Claim(t.now)
	t.updateCounts(&j.Job, from)
	leaseFor := op.LeaseFor
	if leaseFor == 0 {
		leaseFor = j.Policy.Timeouts.Lease
	}
	until := t.now.Add(leaseFor)
	t.addRunning(&runningJob{
		job: j, token: token, startCursor: j.Cursor, earlierOutputBytes: j.OutputBytes, worker: op.Worker, process: op.Process,
		leaseFor: leaseFor, leaseUntil: until, attemptStartedAt: t.now, leaseUsed: op.InUse, idempotencyKey: c.idempotencyKey,
	})
	err := t.q.lease.int(j.Revision).int(int64(j.Attempt)).time(j.StartedAt).token(&token).text(op.Worker).time(until).
		int(int64(leaseFor / time.Millisecond)).flag(op.InUse).process(&op.Process).int(j.n).run()
	if err != nil {
		return err
	}
	input, err := t.readInput(j.n)
	op.Claimed = append(op.Claimed, job.Claimed{Job: j.Job, Input: input, Token: token, Until: until})
	return err
}

func (t *tx) readInput(n int64) (input []byte, err error) {
	_, err = t.q.input.int(n).first(func(c column) error {
		input = c.bytes(0)
		return nil
	})
	return input, err
}

// Running lists running jobs; see [store.UpkeepReader].
func (s *Store) Running(_ context.Context, filter store.RunningFilter, after job.ID, limit int) ([]store.Running, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(); err != nil {
		return nil, unreadable(s.noteDamage(err))
	}
	now := s.Now()
	return s.page(after, limit, func(h *runningJob) bool { return h.matches(filter, now) }), nil
}

// RunningOf lists the running jobs of a process; see [store.UpkeepReader].
func (s *Store) RunningOf(_ context.Context, p job.Process, after job.ID, limit int) ([]store.Running, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(); err != nil {
		return nil, unreadable(s.noteDamage(err))
	}
	return s.page(after, limit, func(h *runningJob) bool { return h.process == p }), nil
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
		if h := s.running[l.Job]; h != nil && h.token == l.Token && !l.Token.IsZero() {
			list[i] = h.view()
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
		list[i] = s.running[id].view()
	}
	return list
}

func (h *runningJob) view() store.Running {
	return store.Running{
		Job: h.job.Job, Token: h.token, Worker: h.worker, Process: h.process, LeaseFor: h.leaseFor, AttemptStartedAt: h.attemptStartedAt, LastOutputAt: h.lastOutputAt,
		LeaseUsed: h.leaseUsed, EarlierOutputBytes: h.earlierOutputBytes, HasOutput: h.hasOutput,
	}
}

func (h *runningJob) matches(filter store.RunningFilter, now time.Time) bool {
	switch filter {
	case store.LapsedOnly:
		return !h.leaseUntil.After(now)
	case store.CancelOnly:
		return h.job.CancelOverdue(now)
	case store.OverrunOnly:
		return h.job.Policy.Timeouts.Overrun(h.attemptStartedAt, now)
	case store.SilentOnly:
		t := h.job.AttemptTimeouts()
		return t.Silent(h.attemptStartedAt, h.lastOutputAt, now)
	default:
		return true
	}
}
