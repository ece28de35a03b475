package engine

import "time"

// maxUnread is how long no read of the store may have succeeded until the store is away. One is
// made within each [refreshWithin].
const maxUnread = 3 * refreshWithin

// StoreAway reports whether the store can be read and written no more: a commit fails or is slow,
// or the reads that are made each second fail or hang.
func (e *Engine) StoreAway() bool {
	unread := time.Since(e.startedAt) - time.Duration(e.refreshedAt.Load())
	return e.writable() != nil || unread > maxUnread
}

// maxLoopStall is how long ops may wait for the loop while no commit is in progress.
const maxLoopStall = 10 * time.Second

// Stalled reports whether the loop stands still: ops wait for it, and no commit is in progress
// that they could wait for. A slow or hanging disk is not a stalled loop.
func (e *Engine) Stalled() bool {
	since := e.lanes.oldest()
	return !since.IsZero() && time.Since(since) > maxLoopStall && e.commits.oldest.Load() == 0 && !e.lanes.hasInDoubt()
}

// drift returns how far the store's clock has gained on the clock of this process since the
// start.
func (s *sweeper) drift() time.Duration {
	return s.e.store.Now().Sub(s.e.startedAt) - time.Since(s.e.startedAt)
}

// hasClockJumped reports whether the store's clock has jumped since the last sweep. Leases
// expire by that clock, but workers renew by their own clocks.
func (s *sweeper) hasClockJumped() bool {
	s.mu.Lock()
	before := s.lastDrift
	s.lastDrift = s.drift()
	by := (s.lastDrift - before).Abs()
	s.mu.Unlock()
	if by > maxStall {
		s.e.log.Warn("the clock has jumped: no lease is swept until all workers had time to renew", "by", by.String())
	}
	return by > maxStall
}

// markUnhealthy records an outage of this process: for two renewal intervals no lease is swept,
// and every abandon timeout starts again.
func (s *sweeper) markUnhealthy() {
	s.e.presence.restart()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.healthySince = time.Now()
}

// maySweepLeases reports whether leases may be swept: renewals were possible for two intervals.
func (s *sweeper) maySweepLeases() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.healthySince) >= 2*s.e.renewEvery && (s.drift()-s.lastDrift).Abs() <= maxStall && !s.e.commits.slow()
}

// recordStep records the end of a read or a commit of the sweep. If it failed or was slow, it
// counts as an outage, because the store or this whole process was stalled.
func (s *sweeper) recordStep(err error) {
	now := time.Now()
	took := now.Sub(s.steppedAt)
	if took > maxCommitTime {
		s.e.log.Warn("the sweep stood still: no lease is swept until all workers had time to renew", "for", took.String())
	}
	if took > maxCommitTime || err != nil {
		s.markUnhealthy()
	}
	s.steppedAt = now
}
