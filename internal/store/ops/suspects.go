package ops

import (
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

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

// parkSuspect parks a suspect until the running one has ended.
func (a *applier) parkSuspect(j *Job) error {
	a.m.noteParkedSuspect(j.Queue)
	from := j.State
	j.MoveWaiting(job.Parked)
	j.Turn = a.move(&j.Job, from, false)
	return a.saveReady(j, SuspectLane(&j.Job))
}

// queueSuspect queues the next parked suspect if none runs.
func (a *applier) queueSuspect() error {
	for a.m.suspects.stuck() {
		queue := a.m.nextSuspectQueue()
		j, err := a.tx.FirstSuspect(queue)
		if err != nil {
			return err
		}
		a.m.keepSuspectQueue(queue, j != nil)
		if j != nil {
			return a.unparkSuspect(j)
		}
	}
	return nil
}

// unparkSuspect queues a parked suspect, or leaves it parked because of its key's limit.
func (a *applier) unparkSuspect(j *Job) error {
	if a.readyState(&j.Job) == job.Queued {
		return a.moveReady(j, job.Queued)
	}
	// Only the lane and the turn change. The state stays parked, so no move is reported.
	j.Turn, _ = a.m.move(&j.Job, job.Parked, false)
	return a.tx.SaveReady(j, LaneOf(&j.Job))
}
