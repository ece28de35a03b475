package ops

import "slices"

// suspects are the jobs whose workers were lost several times in a row; see [job.Job.Suspect].
// One suspect runs at a time, so that a job that kills its workers cannot hide among others.
//
// A claim decides whether a job may run. A suspect that is claimed or becomes ready while
// another runs is parked. Once none runs, each batch queues the first parked suspect of the
// next queue. A queued suspect that cannot run, because its queue is paused or busy, therefore
// blocks no other.
type suspects struct {
	running int
	// queues may have parked suspects; the first is examined next. A queue stays until no parked
	// suspect is found in it.
	queues []string
}

// noteParked notes that a queue has a parked suspect. It reports whether this is new.
func (s *suspects) noteParked(queue string) bool {
	if slices.Contains(s.queues, queue) {
		return false
	}
	s.queues = append(s.queues, queue)
	return true
}

// stuck reports whether a suspect is parked although none runs.
func (s *suspects) stuck() bool { return s.running == 0 && len(s.queues) > 0 }
