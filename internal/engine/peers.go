package engine

import (
	"context"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// standingLimit is how many jobs are asked for in one read.
const standingLimit = 500

// peers connects the engine with other processes on its store. It tells them what was
// committed here, and finds out what they have changed of the jobs that run here or are
// watched here. Notices only make that soon: every job is also asked for once a second, so
// that a lost notice costs a second. An engine that is alone on its store has none.
type peers struct {
	// Set once.
	e      *Engine
	bus    bus.Bus
	wake   chan struct{} // has a value when a notice came; nobody closes it
	member bus.Member

	mu sync.Mutex
	// Guarded by mu.
	watched      map[job.ID]*watchedJob // the jobs that are watched here
	noticedJobs  map[job.ID]bool        // in notices since the last look, and running or watched here
	noticedQueue bool                   // a notice named a queue
}

// followed is a job that is watched here.
type watchedJob struct {
	owner    job.Owner
	watchers int
	// What its watchers have seen, or were asked to read. It may be behind: then they read
	// what they know already.
	revision, cursor int64
}

func newPeers(e *Engine, b bus.Bus) *peers {
	if b == nil {
		return nil
	}
	p := &peers{e: e, bus: b, wake: make(chan struct{}, 1), watched: map[job.ID]*watchedJob{}, noticedJobs: map[job.ID]bool{}}
	p.member = b.Join(p.notice)
	return p
}

// follow counts a watcher of a job, who has read it as it is given.
func (p *peers) follow(j *job.Job) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.watched[j.ID]
	if f == nil {
		f = &watchedJob{owner: j.Owner, revision: j.Revision, cursor: j.Cursor}
		p.watched[j.ID] = f
	}
	f.watchers++
	f.revision, f.cursor = min(f.revision, j.Revision), min(f.cursor, j.Cursor)
}

func (p *peers) unfollow(id job.ID) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.watched[id]; f != nil {
		if f.watchers--; f.watchers == 0 {
			delete(p.watched, id)
		}
	}
}

// notice takes a notice of another process; see [bus.Bus].
func (p *peers) notice(n bus.Notice) {
	p.e.mu.Lock()
	var here []job.ID
	for _, id := range n.Jobs {
		if p.e.leases[id] != nil {
			here = append(here, id)
		}
	}
	p.e.mu.Unlock()
	p.mu.Lock()
	for _, id := range n.Jobs {
		if p.watched[id] != nil {
			p.noticedJobs[id] = true
		}
	}
	for _, id := range here {
		p.noticedJobs[id] = true
	}
	p.noticedQueue = p.noticedQueue || len(n.Queues) > 0
	ring := p.noticedQueue || len(p.noticedJobs) > 0
	p.mu.Unlock()
	if ring {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// run looks after what others have changed, until ctx ends.
func (p *peers) run(ctx context.Context) {
	defer p.member.Leave()
	timer := time.NewTimer(jittered(refreshWithin))
	defer timer.Stop()
	for {
		all := false
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-timer.C:
			all = true
			timer.Reset(jittered(refreshWithin))
		}
		if err := p.check(ctx, all); err != nil && ctx.Err() == nil {
			p.e.log.Error("what other processes have changed could not be read, and will be asked for again", "error", err)
		}
	}
}

// look asks where the jobs stand that notices named, or all that matter here.
func (p *peers) check(ctx context.Context, all bool) error {
	p.mu.Lock()
	queues, named := p.noticedQueue, p.noticedJobs
	p.noticedQueue, p.noticedJobs = false, map[job.ID]bool{}
	p.mu.Unlock()
	if queues {
		if err := p.e.refresh(ctx); err != nil {
			return err
		}
	}
	ids := p.relevantJobs(named, all)
	for len(ids) > 0 {
		n := min(len(ids), standingLimit)
		list, err := p.e.store.Versions(ctx, ids[:n])
		if err != nil {
			return err
		}
		if err := p.applyStandings(ctx, ids[:n], list); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// matters are the jobs that run here or are watched here: those named, or all.
func (p *peers) relevantJobs(named map[job.ID]bool, all bool) (ids []store.OwnedID) {
	taken := map[job.ID]bool{}
	p.e.mu.Lock()
	for id, local := range p.e.leases {
		if all || named[id] {
			taken[id] = true
			ids = append(ids, store.OwnedID{Owner: local.job.Owner, ID: id})
		}
	}
	p.e.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, f := range p.watched {
		if (all || named[id]) && !taken[id] {
			ids = append(ids, store.OwnedID{Owner: f.owner, ID: id})
		}
	}
	return ids
}

// stand acts on where jobs stand. One that was asked for and is not in the list is gone.
func (p *peers) applyStandings(ctx context.Context, asked []store.OwnedID, list []store.JobVersion) error {
	there := make(map[job.ID]*store.JobVersion, len(list))
	for i := range list {
		there[list[i].ID] = &list[i]
	}
	var said []job.Lease // under which more was said than is known here
	for _, of := range asked {
		st := there[of.ID]
		ours := false
		if st == nil {
			p.e.jobRemoved(of.ID)
		} else {
			var lease job.Lease
			if ours, lease = p.e.applyStanding(st); !lease.Token.IsZero() {
				said = append(said, lease)
			}
		}
		if p.changed(of.ID, st) && !ours {
			p.e.notifyReread(of.ID)
		}
	}
	if len(said) == 0 {
		return nil
	}
	return p.e.catchUp(ctx, said)
}

// changed says whether a followed job has changed since its watchers were last asked to
// read it.
func (p *peers) changed(id job.ID, st *store.JobVersion) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.watched[id]
	if f == nil {
		return false
	}
	if st == nil || st.Deleted {
		gone := f.revision >= 0
		f.revision = -1 // so that the watchers are notified once
		return gone
	}
	changed := st.Revision != f.revision || st.Cursor != f.cursor
	f.revision, f.cursor = st.Revision, st.Cursor
	return changed
}

// stands acts on where a job stands that runs here, and says whether all of that was done
// here: its watchers know it then. said is its lease when more was said under it than is
// known here.
func (e *Engine) applyStanding(st *store.JobVersion) (ours bool, said job.Lease) {
	e.mu.Lock()
	local := e.leases[st.ID]
	if local == nil || local.slotFreed { // what stands there may be its own finish, which is about to be answered
		e.mu.Unlock()
		return false, said
	}
	lease := job.Lease{Job: st.ID, Token: local.token}
	newer := st.Revision > local.job.Revision
	ours = !newer && !st.Deleted && st.Cursor <= local.job.Cursor // a delete need not change the revision
	lost := newer && st.Token != local.token
	if !lost && st.Cursor > local.job.Cursor {
		said = lease
	}
	stop := newer && !lost && st.CancelRequested && local.job.CancelRequestedAt.IsZero()
	if newer && !lost {
		local.job.Revision = st.Revision
	}
	if stop {
		local.job.CancelRequestedAt = e.store.Now()
	}
	e.mu.Unlock()
	switch {
	case lost:
		e.leaseLost(lease)
	case stop:
		e.order(lease, job.OrderCancel)
	}
	return ours, said
}

// catchUp takes over what attempts that run here have said through another process.
func (e *Engine) catchUp(ctx context.Context, leases []job.Lease) error {
	list, err := e.store.Leases(ctx, leases)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range list {
		r := &list[i]
		if local := e.leases[r.Job.ID]; local != nil && local.token == r.Token && r.Job.Cursor > local.job.Cursor {
			local.job.Cursor, local.job.OutputBytes, local.job.Progress = r.Job.Cursor, r.Job.OutputBytes, r.Job.Progress
			local.hasOutput = local.hasOutput || r.HasOutput
		}
	}
	return nil
}

// tell publishes what a batch that is on disk has changed.
func (p *peers) publish(w *pendingBatch) {
	if p == nil {
		return
	}
	var n bus.Notice
	for _, op := range w.batch.Appends {
		n.Jobs = append(n.Jobs, op.Lease.Job)
	}
	for _, op := range w.batch.Finishes {
		n.Jobs = append(n.Jobs, op.Lease.Job)
	}
	for _, op := range w.batch.Cancels {
		n.Jobs = append(n.Jobs, op.ID)
	}
	for _, op := range w.batch.Deletes {
		n.Jobs = append(n.Jobs, op.ID)
	}
	for _, op := range w.batch.Retries {
		n.Jobs = append(n.Jobs, op.ID)
	}
	for _, op := range w.batch.Dues {
		for i := range op.Expired {
			n.Jobs = append(n.Jobs, op.Expired[i].ID)
		}
	}
	for _, op := range w.batch.Claims {
		for i := range op.Claimed {
			n.Jobs = append(n.Jobs, op.Claimed[i].Job.ID)
		}
	}
	for _, m := range w.batch.Moved {
		n.Jobs = append(n.Jobs, m.ID)
	}
	n.Jobs = append(n.Jobs, w.batch.Damaged...)
	for name, c := range w.batch.Counts {
		if q := p.e.queues[name]; c.Queued > 0 || c.Parked > 0 || len(w.batch.Pauses) > 0 || q == nil || q.MaxRunning > 0 {
			n.Queues = append(n.Queues, name)
		}
	}
	if !n.Empty() {
		p.member.Publish(n)
	}
}
