package engine

import (
	"context"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// versionLimit bounds the number of jobs whose versions are read at once.
const versionLimit = 500

// peers connects the engine with other processes on its store. It notifies them of the commits
// of this process, and detects their changes to the jobs that run here or are watched here.
// Notices only reduce the delay: all these jobs are also read once a second, so a lost notice
// costs a second. An engine without a bus has no peers.
type peers struct {
	// Set once.
	e      *Engine
	wake   chan struct{} // has a value after a notice; never closed
	member bus.Member

	mu sync.Mutex
	// Guarded by mu.
	watched      map[job.ID]*watchedJob // the jobs with watchers here
	noticedJobs  map[job.ID]bool        // relevant jobs named by notices since the last check
	noticedQueue bool                   // a notice since the last check named a queue
}

// watchedJob is a job with watchers in this process.
type watchedJob struct {
	owner    job.Owner
	watchers int
	// The version that its watchers have, or were notified to read. If it is too low, they only
	// read the same version again.
	revision, cursor int64
}

func newPeers(e *Engine, b bus.Bus) *peers {
	if b == nil {
		return nil
	}
	p := &peers{e: e, wake: make(chan struct{}, 1), watched: map[job.ID]*watchedJob{}, noticedJobs: map[job.ID]bool{}}
	p.member = b.Join(p.notice)
	return p
}

// follow adds a watcher that has the given version of a job.
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

// unfollow removes a watcher.
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

// notice handles a notice of another process; see [bus.Bus].
func (p *peers) notice(n bus.Notice) {
	p.e.mu.Lock()
	var here []job.ID
	for _, id := range n.Jobs {
		if p.e.leases[id] != nil {
			here = append(here, id)
		}
	}
	p.e.mu.Unlock()
	// Drop jobs that neither run nor are watched here: most notices name only such jobs.
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
	wake := p.noticedQueue || len(p.noticedJobs) > 0
	p.mu.Unlock()
	if wake {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// run checks for changes by other processes until ctx ends.
func (p *peers) run(ctx context.Context) {
	defer p.member.Leave()
	timer := time.NewTimer(jittered(refreshWithin))
	defer timer.Stop()
	failing := repeatedError{log: p.e.log, what: "the changes of other processes cannot be read"}
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
		if err := p.check(ctx, all); ctx.Err() == nil {
			failing.report(err)
		}
	}
}

// check reads the versions of the jobs that notices named, or of all relevant jobs.
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
		n := min(len(ids), versionLimit)
		list, err := p.e.store.Versions(ctx, ids[:n])
		if err != nil {
			return err
		}
		if err := p.applyVersions(ctx, ids[:n], list); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// relevantJobs returns the jobs that run here or are watched here: all of them, or only those
// that are named.
func (p *peers) relevantJobs(named map[job.ID]bool, all bool) (ids []store.OwnedID) {
	added := map[job.ID]bool{}
	p.e.mu.Lock()
	for id, local := range p.e.leases {
		if all || named[id] {
			added[id] = true
			ids = append(ids, store.OwnedID{Owner: local.job.Owner, ID: id})
		}
	}
	p.e.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, f := range p.watched {
		if (all || named[id]) && !added[id] {
			ids = append(ids, store.OwnedID{Owner: f.owner, ID: id})
		}
	}
	return ids
}

// applyVersions handles the current versions of jobs. A job without a version was deleted.
func (p *peers) applyVersions(ctx context.Context, ids []store.OwnedID, list []store.JobVersion) error {
	found := make(map[job.ID]*store.JobVersion, len(list))
	for i := range list {
		found[list[i].ID] = &list[i]
	}
	var behind []job.Lease // attempts with output that is not counted here
	for _, id := range ids {
		version := found[id.ID]
		ours := false
		if version == nil {
			p.e.dropLeaseOfRemoved(id.ID)
		} else {
			var lease job.Lease
			if ours, lease = p.e.applyVersion(version); !lease.Token.IsZero() {
				behind = append(behind, lease)
			}
		}
		if p.hasChanged(id.ID, version) && !ours {
			p.e.notifyReread(id.ID)
		}
	}
	if len(behind) == 0 {
		return nil
	}
	return p.e.catchUp(ctx, behind)
}

// hasChanged reports whether a watched job has changed since its watchers got their version, and
// records the new version.
func (p *peers) hasChanged(id job.ID, version *store.JobVersion) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.watched[id]
	if f == nil {
		return false
	}
	if version == nil || version.Deleted {
		gone := f.revision >= 0
		f.revision = -1 // so that the watchers are notified once
		return gone
	}
	changed := version.Revision != f.revision || version.Cursor != f.cursor
	f.revision, f.cursor = version.Revision, version.Cursor
	return changed
}

// applyVersion handles the current version of a job that runs here. It drops a lost lease and
// sends a cancel order. ours is true if this process made every change, so that the watchers
// have them already. behind is the lease if the attempt has output that is not counted here,
// else zero.
func (e *Engine) applyVersion(version *store.JobVersion) (ours bool, behind job.Lease) {
	e.mu.Lock()
	local := e.leases[version.ID]
	// The change may be its own finish, whose answer is pending.
	if local == nil || local.slotFreed {
		e.mu.Unlock()
		return false, behind
	}
	lease := job.Lease{Job: version.ID, Token: local.token}
	newer := version.Revision > local.job.Revision
	ours = !newer && !version.Deleted && version.Cursor <= local.job.Cursor // a delete may keep the revision
	lost := newer && version.Token != local.token
	if !lost && version.Cursor > local.job.Cursor {
		behind = lease
	}
	stop := newer && !lost && version.CancelRequested && local.job.CancelRequestedAt.IsZero()
	if newer && !lost {
		local.job.Revision = version.Revision
	}
	if stop {
		local.job.CancelRequestedAt = e.store.Now()
	}
	e.mu.Unlock()
	switch {
	case lost:
		e.handleLostLease(lease)
	case stop:
		e.order(lease, job.OrderCancel)
	}
	return ours, behind
}

// catchUp counts the output that attempts of this process wrote through another process.
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

// publish sends a notice of the changes of a stored batch.
func (p *peers) publish(pb *pendingBatch) {
	if p == nil {
		return
	}
	var n bus.Notice
	for _, op := range pb.batch.Appends {
		n.Jobs = append(n.Jobs, op.Lease.Job)
	}
	for _, op := range pb.batch.Finishes {
		n.Jobs = append(n.Jobs, op.Lease.Job)
	}
	for _, op := range pb.batch.Cancels {
		n.Jobs = append(n.Jobs, op.ID)
	}
	for _, op := range pb.batch.Deletes {
		n.Jobs = append(n.Jobs, op.ID)
	}
	for _, op := range pb.batch.Retries {
		n.Jobs = append(n.Jobs, op.ID)
	}
	for _, op := range pb.batch.Dues {
		for i := range op.Expired {
			n.Jobs = append(n.Jobs, op.Expired[i].ID)
		}
	}
	for _, op := range pb.batch.Claims {
		for i := range op.Claimed {
			n.Jobs = append(n.Jobs, op.Claimed[i].Job.ID)
		}
	}
	for _, m := range pb.batch.Moved {
		n.Jobs = append(n.Jobs, m.ID)
	}
	n.Jobs = append(n.Jobs, pb.batch.Damaged...)
	// Name a queue only if other processes may have to act: it has jobs to claim, was paused or
	// resumed, has a limit over all processes, or is unknown here.
	for name, c := range pb.batch.Counts {
		if q := p.e.queues[name]; c.Queued > 0 || c.Parked > 0 || len(pb.batch.Pauses) > 0 || q == nil || q.hasMaxRunning() {
			n.Queues = append(n.Queues, name)
		}
	}
	if !n.Empty() {
		p.member.Publish(n)
	}
}
