package ops

import (
	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// maxSkipped limits how many ready jobs one claim may find and not lease.
const maxSkipped = 1000

func (a *applier) claim(op *store.Claim) error {
	op.Err, op.Claimed = nil, nil
	q := a.m.namedQueue(op.Queue)
	ahead := readAhead{applier: a, queue: op.Queue}
	free, err := a.answerRepeated(op)
	if err != nil {
		return err
	}
	for skipped := 0; skipped <= maxSkipped; {
		// Each job that was leased or parked may change the limit, the room and the next tenant.
		want := q.Claimable(len(free))
		if want <= 0 {
			break
		}
		tenant, share := a.m.nextTenant(q, op.Tenant, want, a.room)
		if share == 0 {
			break
		}
		j, err := ahead.next(tenant, share)
		if j == nil || err != nil {
			return err
		}
		leased, err := a.leaseOrPark(op, j, free[0])
		if err != nil {
			return err
		}
		if leased {
			free = free[1:]
			a.room.Take(j.Resource)
		} else {
			skipped++
		}
	}
	return nil
}

// answerRepeated answers the tokens that already hold a job, and returns the others.
func (a *applier) answerRepeated(op *store.Claim) (free []job.Token, err error) {
	held := make([]*Job, 0, 8) // nearly always all are nil: no token holds a job
	any := false
	for _, token := range op.Tokens {
		j, err := a.tx.Holder(token)
		if err != nil {
			return nil, err
		}
		held, any = append(held, j), any || j != nil
	}
	if !any {
		return op.Tokens, nil
	}
	for i, j := range held {
		if j == nil {
			free = append(free, op.Tokens[i])
			continue
		}
		if err := a.addClaimed(op, j); err != nil {
			return nil, err
		}
	}
	return free, nil
}

// addClaimed adds a running job to the answer of a claim.
func (a *applier) addClaimed(op *store.Claim, j *Job) error {
	input, err := a.tx.Input(j)
	unreadable, err := refusalOf(err)
	op.Claimed = append(op.Claimed, job.Claimed{Job: j.Job, Input: input, Unreadable: unreadable, Token: j.Lease.Token, Until: j.Lease.Until})
	return err
}

// leaseOrPark leases a ready job and reports whether it did. A damaged job fails. A job whose key
// has reached its limit is parked: a job of the key that needs another resource was claimed, or the
// limit was higher or absent when the job was queued. A suspect is parked while another one runs.
func (a *applier) leaseOrPark(op *store.Claim, j *Job, token job.Token) (leased bool, err error) {
	switch {
	case j.Damaged:
		return false, a.repair(j)
	case !a.m.queue(op.Queue).MayRun(fairqueue.KeyOf(&j.Job)):
		return false, a.moveReady(j, job.Parked)
	case a.m.suspects.running > 0 && j.Suspect():
		return false, a.parkSuspect(j)
	}
	return true, a.lease(op, j, token)
}

// lease leases one ready job.
func (a *applier) lease(op *store.Claim, j *Job, token job.Token) error {
	// fairqueue wants this call before the job moves.
	a.m.advance(j, a.room)
	from := j.State
	j.Claim(a.now)
	a.move(&j.Job, from, j.Suspect())
	leaseFor := op.LeaseFor
	if leaseFor == 0 {
		leaseFor = j.Policy.Timeouts.Lease
	}
	j.Lease = Lease{
		Token: token, Worker: op.Worker, Process: op.Process, For: leaseFor, Until: a.now.Add(leaseFor), Used: op.InUse,
		AttemptStartedAt: a.now, StartCursor: j.Cursor, EarlierOutputBytes: j.OutputBytes,
	}
	if err := a.tx.SaveLease(j); err != nil {
		return err
	}
	return a.addClaimed(op, j)
}

// readAhead has the ready jobs that one claim has read and not used yet.
type readAhead struct {
	*applier
	queue string
	lanes []*laneAhead
}

// laneAhead has the next ready jobs of a lane that a claim has read. A tenant has a lane for each
// resource that its jobs need.
type laneAhead struct {
	tenant, resource string
	shift            int64 // see [fairqueue.Claimable]
	ready            []*Job
}

// next returns the tenant's next ready job for which there is room, or nil. It reads as many jobs
// at a time as share says.
func (h *readAhead) next(tenant string, share int) (*Job, error) {
	var first *laneAhead
	for _, c := range h.m.queue(h.queue).Claimables(tenant, h.room) {
		resource := c.Resource
		l := h.lane(tenant, resource)
		l.shift = c.Shift
		// This is the first call, or the jobs that were read are used up.
		if len(l.ready) == 0 {
			limit := share
			if left, limited := h.room[resource]; limited {
				limit = min(limit, left)
			}
			var err error
			name := Lane(job.Queued, fairqueue.Key{Tenant: tenant}, resource)
			if l.ready, err = h.tx.Ready(h.queue, name, limit); err != nil {
				return nil, err
			}
		}
		switch {
		case len(l.ready) == 0:
			h.m.forgetResource(h.queue, tenant, resource)
		case first == nil || l.before(first):
			first = l
		}
	}
	if first == nil {
		return nil, nil
	}
	j := first.ready[0]
	first.ready = first.ready[1:]
	return j, nil
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

// before reports whether the next job of the lane is before that of another lane of the tenant.
func (l *laneAhead) before(other *laneAhead) bool {
	a, b := l.ready[0], other.ready[0]
	if x, y := a.Turn+l.shift, b.Turn+other.shift; x != y {
		return x < y
	}
	return a.N < b.N
}
