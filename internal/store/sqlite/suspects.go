package sqlite

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
)

// suspectLanePrefix begins the lane of parked suspects, which wait until no suspect runs. The
// tenant follows.
const suspectLanePrefix = "!"

// suspects are the jobs whose workers were lost several times in a row; see [job.Job.Suspect].
// One suspect runs at a time, so that a job that kills its workers cannot hide among others.
//
// A claim decides whether a job may run. A suspect that is claimed or becomes ready while
// another runs is parked. Once none runs, each batch queues the first parked suspect of the
// next queue. A queued suspect that cannot run, because its queue is paused or busy, therefore
// blocks no other.
//
// Guarded by the store's mu.
type suspects struct {
	running int
	// queues may have parked suspects; the first is examined next. A queue stays until no parked
	// suspect is found in it.
	queues []string
}

// noteParked notes that a queue has a parked suspect.
func (s *suspects) noteParked(queue string) {
	for _, name := range s.queues {
		if name == queue {
			return
		}
	}
	s.queues = append(s.queues, queue)
}

// stuck reports whether a suspect is parked although none runs.
func (s *suspects) stuck() bool { return s.running == 0 && len(s.queues) > 0 }

// parkSuspect parks a suspect until the running one has ended. It keeps its turn, if it had one.
func (t *tx) parkSuspect(j *row, turn int64) error {
	t.suspects.noteParked(j.Queue)
	from := j.State
	j.MoveWaiting(job.Parked)
	behind := t.updateCounts(&j.Job, from)
	// A job that becomes ready had no turn: it gets one behind the others.
	if turn == 0 {
		turn = behind
	}
	return t.saveReady(j, suspectLanePrefix+j.Owner.Tenant, turn)
}

// queueSuspect queues the next parked suspect if none runs.
func (t *tx) queueSuspect() error {
	s := &t.suspects
	for s.stuck() {
		queue := s.queues[0]
		s.queues = s.queues[1:]
		j, found, err := t.firstSuspect(queue)
		if err != nil {
			return err
		}
		if found {
			// Move the queue to the end, so that the next suspect comes from another one.
			s.queues = append(s.queues, queue)
			return t.unparkSuspect(j)
		}
	}
	return nil
}

// firstSuspect finds the parked suspect of a queue that has been ready for the longest time.
func (t *tx) firstSuspect(queue string) (j *row, found bool, err error) {
	found, err = t.q.firstSuspect.text(queue).first(func(c column) error {
		j = &row{n: c.int(0), Job: job.Job{
			ID: c.id(2), Owner: job.Owner{Tenant: c.text(5), User: c.text(7)}, Queue: queue, Key: c.text(4),
			State: job.Parked, Priority: int(c.int(1)), Revision: c.int(3), RunAt: c.time(6),
		}}
		j.Tally, j.Resource = codec.DecodeGroups(c.bytes(8))
		return nil
	})
	return j, found, err
}

// unparkSuspect queues a parked suspect, or leaves it parked because of its key's limit.
func (t *tx) unparkSuspect(j *row) error {
	if t.readyState(&j.Job) == job.Queued {
		return t.moveReady(j, job.Queued)
	}
	// Only the lane and the turn change. The state stays parked, so no move is reported.
	turn, _ := t.queue(j.Queue).Move(&j.Job, job.Parked)
	return t.q.setReady.int(int64(job.Parked)).int(j.Revision).text(laneOf(&j.Job)).int(turn).int(j.n).run()
}
