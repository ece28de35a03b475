package engine

import (
	"math"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// estimate returns the time from now until an unfinished job ends. delay is the time until a
// scheduled job is ready; running is how long a running job has run. It returns 0 if that is
// unknown: no job has ended yet, the queue is paused or has no consumer, or the job is parked.
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

// estimateWaitLocked returns how long a job waits if before jobs are ahead of it. The wait is
// unknown if the queue is paused or has no consumer.
func (q *queue) estimateWaitLocked(now time.Time, before int) (wait time.Duration, known bool) {
	slots, free := 0, 0
	for _, c := range q.consumers {
		slots += c.Slots
		free += c.free
	}
	if q.limits.Running > 0 {
		slots = min(slots, q.limits.Running)
		free = max(min(free, q.limits.Running-int(q.counts.Running)), 0)
	}
	if slots == 0 || q.counts.Paused {
		return 0, false
	}
	return seconds(q.estimator.expectedWait(now, before, slots, free)), true
}

// estimateNewLocked returns how long a job submitted now would wait, and how long it would run.
func (q *queue) estimateNewLocked(now time.Time) (wait, run time.Duration) {
	if q.estimator.samples == 0 {
		return 0, 0
	}
	wait, _ = q.estimateWaitLocked(now, int(q.counts.Queued))
	return wait, seconds(q.estimator.expectedRun(now))
}

// retryAfterLocked returns how long until a full queue may have capacity: the mean time between
// the ends of two jobs.
func (q *queue) retryAfterLocked() time.Duration {
	return seconds(q.estimator.mean / float64(max(q.Concurrency, 1)))
}

// recordStart counts an attempt that starts in this process.
func (q *queue) recordStart(at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.estimator.begin(at)
}

// recordEnd removes an ended attempt from the counts. If it ended the job, the estimator records
// its duration.
func (q *queue) recordEnd(began time.Time, ran time.Duration, ended bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.estimator.end(began)
	if ended {
		q.estimator.learn(ran)
	}
}

// seconds converts s to a duration of at most job.MaxDuration.
func seconds(s float64) time.Duration {
	return time.Duration(min(s, job.MaxDuration.Seconds()) * float64(time.Second))
}

// estimator estimates waits and durations from three statistics: of attempts that have ended, of
// running attempts, and of jobs that arrive ahead of others. It has no lock and no clock.
type estimator struct {
	durationStats
	runningStats
	arrivalsAhead
}

// expectedRun returns how long an attempt that begins now will run, in seconds: the mean, or
// more if the running attempts already take longer than usual.
func (p *estimator) expectedRun(now time.Time) float64 {
	ran, _ := p.elapsed(now)
	if ran > p.usualMax() {
		return ran + p.remaining(ran)
	}
	return p.mean
}

// expectedWait returns how long a job waits, in seconds, if before jobs are ahead of it. slots
// is the number of the queue's slots, free the number of free ones.
//
// The first waiting jobs get the slots as they become free. The remaining times of the running
// attempts are assumed to be spread evenly around their mean; the width follows from the spread
// of their start times and from the variance of durations. Jobs behind the first ones also wait
// for whole rounds of the slots.
func (p *estimator) expectedWait(now time.Time, before, slots, free int) float64 {
	if before < free {
		return 0
	}
	run := p.expectedRun(now)
	before = int(p.jobsAhead(now, before-free, run/float64(slots)))
	ran, ranVariance := p.elapsed(now)
	// An even spread of half width w has the variance w²/3.
	spread := math.Sqrt(3 * (ranVariance*square(1-p.randomness()) + p.variance))
	// place is the job's place among the slots, between 0 and 1: the first of n free slots
	// is expected at 1/(n+1) of the spread.
	place := float64(before%slots+1) / float64(slots+1)
	first := p.remaining(ran) + spread*(2*place-1)
	return max(first, 0) + float64(before/slots)*run
}
