package sqlite

import (
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// suspectLane begins the lane of parked suspects, which wait for the one that runs to
// end. Their tenant follows.
const suspectLanePrefix = "!"

func isSuspectLane(lane string) bool { return strings.HasPrefix(lane, suspectLanePrefix) }

// suspects are the jobs that were lost again, of which one runs at a time.
//
// Whether a job may run is decided when it is claimed. A suspect that is claimed or
// becomes ready while another runs is parked; as soon as none runs, each batch queues
// the first parked one of the next queue. One that is queued and cannot run (its queue
// is paused, or busy) therefore keeps nobody else waiting.
//
// Guarded by the store's mu.
type suspects struct {
	running int
	// queues may have parked suspects; the first one is the next to be asked. A name stays
	// until no parked suspect is found there.
	queues []string
}

// mayWait notes that a queue has a parked suspect.
func (s *suspects) noteParked(queue string) {
	for _, name := range s.queues {
		if name == queue {
			return
		}
	}
	s.queues = append(s.queues, queue)
}

// stuck says whether a parked suspect waits while none runs.
func (s *suspects) stuck() bool { return s.running == 0 && len(s.queues) > 0 }

// parkSuspect parks a suspect until the one that runs has ended. It keeps the turn that
// it had, if it had one.
func (t *tx) parkSuspect(j *row, turn int64) error {
	t.suspects.noteParked(j.Queue)
	from := j.State
	j.MoveWaiting(job.Parked)
	behind := t.count(&j.Job, from)
	if turn == 0 {
		turn = behind
	}
	return t.saveReady(j, suspectLanePrefix+j.Owner.Tenant, turn)
}

// trySuspect queues the next parked suspect if none runs.
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
			s.queues = append(s.queues, queue)
			return t.unparkSuspect(j)
		}
	}
	return nil
}

// firstSuspect finds the parked suspect of a queue that has been ready for the longest.
func (t *tx) firstSuspect(queue string) (j *row, found bool, err error) {
	found, err = t.q.firstSuspect.text(queue).first(func(c column) error {
		j = &row{n: c.int(0), Job: job.Job{
			ID: c.id(2), Owner: job.Owner{Tenant: c.text(5), User: c.text(7)}, Queue: queue, Key: c.text(4), Tally: decodeTally(c.bytes(8)),
			State: job.Parked, Priority: int(c.int(1)), Revision: c.int(3), RunAt: c.time(6),
		}}
		return nil
	})
	return j, found, err
}

// unparkSuspect queues a parked suspect, or leaves it parked for its key.
func (t *tx) unparkSuspect(j *row) error {
	if t.readyState(&j.Job) == job.Queued {
		return t.moveReady(j, job.Queued)
	}
	turn, _ := t.queue(j.Queue).Move(&j.Job, job.Parked)
	return t.q.setReady.int(int64(job.Parked)).int(j.Revision).text(lane(job.Parked, fairqueue.KeyOf(&j.Job))).int(turn).int(j.n).run()
}
