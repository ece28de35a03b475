package engine

import (
	"math"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// pace is what a queue has learned from the jobs that it did, and how far those are
// that it does. It has no lock and no clock.
type estimator struct {
	durationStats
	runningStats
	arrivalsAhead
}

// usual is what attempts usually take that end their job.
type durationStats struct {
	samples  int     // attempts that were learned from
	mean     float64 // in seconds; the last one weighs an eighth
	variance float64 // the variance of that

	// Attempts in a row that took much longer than usual, or all much less: so many,
	// and their sum. They are not in the mean: it is theirs once they are a few, and
	// else they were exceptions.
	outliers   int // below 0: less
	outlierSum float64
}

const (
	meanWindow = 8
	outlierRun = 4
)

// learn learns from one more.
func (s *durationStats) learn(d time.Duration) {
	x := d.Seconds()
	switch side := s.outlierSide(x); {
	case side == 0 || side*s.outliers < 0:
		exceptions, each := max(s.outliers, -s.outliers), s.outlierSum/float64(max(s.outliers, -s.outliers, 1))
		s.outliers, s.outlierSum = 0, 0
		for range exceptions {
			s.add(each)
		}
		s.add(x)
	default:
		s.outliers, s.outlierSum = s.outliers+side, s.outlierSum+x
		if s.outliers*side == outlierRun {
			mean := s.outlierSum / outlierRun
			*s = durationStats{samples: outlierRun, mean: mean, variance: square(mean) * s.randomness()} // as far apart as they were
		}
	}
}

func (s *durationStats) add(x float64) {
	s.samples++
	weight := 1 / float64(min(s.samples, meanWindow))
	off := x - s.mean
	s.mean += weight * off
	s.variance = (1 - weight) * (s.variance + weight*off*off)
}

// side says whether an attempt took much longer than usual (1), or much less (-1).
func (s *durationStats) outlierSide(x float64) int {
	far := max(2*math.Sqrt(s.variance), s.mean/4)
	switch {
	case s.samples < outlierRun:
		return 0
	case x > s.mean+far:
		return 1
	case x < s.mean-far:
		return -1
	}
	return 0
}

// chance is how much of what an attempt takes is chance: 0 when all take the same, 1
// when what has passed says nothing about what is left.
func (s *durationStats) randomness() float64 {
	if s.mean == 0 {
		return 0
	}
	return min(s.variance/square(s.mean), 1)
}

// long is what few attempts take.
func (s *durationStats) usualMax() float64 { return s.mean + 2*math.Sqrt(s.variance) }

// left is how long an attempt will still run, in seconds, that has run for so long. One
// that takes much longer than usual is half done.
func (s *durationStats) remaining(ran float64) float64 {
	c := s.randomness()
	return max((1-c)*max(s.mean-ran, 0)+c*s.mean, ran-s.usualMax(), s.mean/10)
}

// underway is what runs: how many attempts, and the sums of when they began and of its
// square, in seconds since epoch.
type runningStats struct {
	epoch          time.Time
	running        int
	startSum       float64
	startSquareSum float64
}

// begin notes that an attempt runs, and end that it does no more.
func (w *runningStats) begin(at time.Time) { w.add(1, at) }
func (w *runningStats) end(began time.Time) {
	if w.add(-1, began); w.running == 0 {
		*w = runningStats{} // and no rounding is left
	}
}

func (w *runningStats) add(n int, at time.Time) {
	if w.epoch.IsZero() {
		w.epoch = at
	}
	s := at.Sub(w.epoch).Seconds()
	if s > time.Hour.Seconds() { // small numbers are exact
		w.startSquareSum += float64(w.running)*square(s) - 2*s*w.startSum
		w.startSum -= float64(w.running) * s
		w.epoch, s = at, 0
	}
	w.running += n
	w.startSum += float64(n) * s
	w.startSquareSum += float64(n) * square(s)
}

// elapsed is for how long the running attempts have run: the mean, and how far they
// are apart (the variance).
func (w *runningStats) elapsed(now time.Time) (mean, dev2 float64) {
	if w.running == 0 {
		return 0, 0
	}
	n := float64(w.running)
	began := w.startSum / n
	return max(now.Sub(w.epoch).Seconds()-began, 0), max(w.startSquareSum/n-square(began), 0)
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

func square(x float64) float64 { return x * x }

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

func seconds(s float64) time.Duration {
	return time.Duration(min(s, job.MaxDuration.Seconds()) * float64(time.Second))
}
