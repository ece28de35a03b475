package engine

import "time"

// drift is how far the store's clock is ahead of the time that has passed here.
func (s *sweeper) drift() time.Duration {
	return s.e.store.Now().Sub(s.e.startedAt) - time.Since(s.e.startedAt)
}

// jumped says whether the store's clock has jumped since the last sweep: leases are
// measured by it, and workers renew by their own.
func (s *sweeper) jumped() bool {
	s.mu.Lock()
	before := s.lastDrift
	s.lastDrift = s.drift()
	by := (s.lastDrift - before).Abs()
	s.mu.Unlock()
	if by > maxStall {
		s.e.log.Warn("the clock has jumped: no lease is taken until all had the time to renew", "by", by.String())
	}
	return by > maxStall
}

// unhealthy notes a trouble of this process: no lease is taken for a while, and no job is
// held to be abandoned.
func (s *sweeper) markUnhealthy() {
	s.e.presence.restart()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.healthySince = time.Now()
}

// mayTake says whether leases may be taken.
func (s *sweeper) mayTakeLeases() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.healthySince) >= 2*s.e.renewEvery && (s.drift()-s.lastDrift).Abs() <= maxStall && !s.e.commits.slow()
}

// step notes that a read or a commit of the sweep is done, and what it came to. One that
// failed, or was slow, says that the store stood still, or all of us.
func (s *sweeper) recordStep(err error) {
	now := time.Now()
	took := now.Sub(s.steppedAt)
	if took > maxCommitTime {
		s.e.log.Warn("the sweep stood still: no lease is taken until all had the time to renew", "for", took.String())
	}
	if took > maxCommitTime || err != nil {
		s.markUnhealthy()
	}
	s.steppedAt = now
}
