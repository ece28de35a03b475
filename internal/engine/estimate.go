package engine

import (
	"math"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// estimate is how long an unfinished job will take from now until it has ended, with
// so many before it in the queue when it is queued, ready only after delay when it is
// scheduled, or running since so long. 0 when nobody knows: nothing was learned, the
// queue is paused or nobody serves it, or the job is parked, for its key's turn.
func (q *queue) estimate(s *Snapshot, delay, running time.Duration) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.estimator.samples == 0 {
		return 0
	}
	if s.State == job.Running {
		return seconds(q.estimator.remaining(running.Seconds()))
	}
	now := time.Now()
	before := s.Position
	if s.State == job.Scheduled {
		before = int(q.counts.Queued)
	}
	wait, known := q.estimateWaitLocked(now, before)
	if !known || s.State == job.Parked {
		return 0
	}
	return max(wait, delay) + seconds(q.estimator.expectedRun(now))
}

// waitLocked is how long a job waits with so many before it.
func (q *queue) estimateWaitLocked(now time.Time, before int) (wait time.Duration, known bool) {
	slots, free := 0, 0
	for _, c := range q.consumers {
		slots += c.Slots
		free += c.free
	}
	if q.MaxRunning > 0 {
		slots = min(slots, q.MaxRunning)
		free = max(min(free, q.MaxRunning-int(q.counts.Running)), 0)
	}
	if slots == 0 || q.counts.Paused {
		return 0, false
	}
	return seconds(q.estimator.expectedWait(now, before, slots, free)), true
}

// outlookLocked is what a job submitted now would wait and run.
func (q *queue) estimateNewLocked(now time.Time) (wait, run time.Duration) {
	if q.estimator.samples == 0 {
		return 0, 0
	}
	wait, _ = q.estimateWaitLocked(now, int(q.counts.Queued))
	return wait, seconds(q.estimator.expectedRun(now))
}

// roomInLocked is how long until a full queue may have room again.
func (q *queue) retryAfterLocked() time.Duration {
	return seconds(q.estimator.mean / float64(max(q.Concurrency, 1)))
}

// began tells of an attempt that runs here from then on.
func (q *queue) recordStart(at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.estimator.begin(at)
}

// over tells that one that began then is over. From one that has ended its job the
// queue learns.
func (q *queue) recordEnd(began time.Time, ran time.Duration, ended bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.estimator.end(began)
	if ended {
		q.estimator.learn(ran)
	}
}

func seconds(s float64) time.Duration {
	return time.Duration(min(s, job.MaxDuration.Seconds()) * float64(time.Second))
}

// pace is what a queue has learned from the jobs that it did, and how far those are
// that it does. It has no lock and no clock.
type estimator struct {
	durationStats
	runningStats
	arrivalsAhead
}

// run is how long an attempt that begins now will run: as usual, or as those do that
// run for much longer.
func (p *estimator) expectedRun(now time.Time) float64 {
	ran, _ := p.elapsed(now)
	if ran > p.usualMax() {
		return ran + p.remaining(ran)
	}
	return p.mean
}

// wait is how long a job waits, in seconds, with so many before it, for one of so many
// slots of which so many are free.
//
// The first that wait take the slots as they become free: the attempts that run are
// taken to be spread evenly around how far they are on the average, as far apart as
// they are and as chance has it. Those behind wait for whole rounds.
func (p *estimator) expectedWait(now time.Time, before, slots, free int) float64 {
	if before < free {
		return 0
	}
	run := p.expectedRun(now)
	before = int(p.jobsAhead(now, before-free, run/float64(slots)))
	ran, apart2 := p.elapsed(now)
	spread := math.Sqrt(3 * (apart2*square(1-p.randomness()) + p.variance))
	place := float64(before%slots+1) / float64(slots+1)
	first := p.remaining(ran) + spread*(2*place-1)
	return max(first, 0) + float64(before/slots)*run
}
