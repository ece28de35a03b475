package engine

import (
	"math"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// pace is what a queue has learned from the jobs that it did, and how far those are
// that it does. It has no lock and no clock.
type pace struct {
	usual
	underway
	overtaking
}

// usual is what attempts usually take that end their job.
type usual struct {
	seen int     // attempts that were learned from
	mean float64 // in seconds; the last one weighs an eighth
	dev2 float64 // the variance of that

	// Attempts in a row that took much longer than usual, or all much less: so many,
	// and their sum. They are not in the mean: it is theirs once they are a few, and
	// else they were exceptions.
	row  int // below 0: less
	rows float64
}

const (
	paceWeight = 8
	paceRow    = 4
)

// learn learns from one more.
func (u *usual) learn(d time.Duration) {
	x := d.Seconds()
	switch side := u.side(x); {
	case side == 0 || side*u.row < 0:
		exceptions, each := max(u.row, -u.row), u.rows/float64(max(u.row, -u.row, 1))
		u.row, u.rows = 0, 0
		for range exceptions {
			u.add(each)
		}
		u.add(x)
	default:
		u.row, u.rows = u.row+side, u.rows+x
		if u.row*side == paceRow {
			mean := u.rows / paceRow
			*u = usual{seen: paceRow, mean: mean, dev2: square(mean) * u.chance()} // as far apart as they were
		}
	}
}

func (u *usual) add(x float64) {
	u.seen++
	weight := 1 / float64(min(u.seen, paceWeight))
	off := x - u.mean
	u.mean += weight * off
	u.dev2 = (1 - weight) * (u.dev2 + weight*off*off)
}

// side says whether an attempt took much longer than usual (1), or much less (-1).
func (u *usual) side(x float64) int {
	far := max(2*math.Sqrt(u.dev2), u.mean/4)
	switch {
	case u.seen < paceRow:
		return 0
	case x > u.mean+far:
		return 1
	case x < u.mean-far:
		return -1
	}
	return 0
}

// chance is how much of what an attempt takes is chance: 0 when all take the same, 1
// when what has passed says nothing about what is left.
func (u *usual) chance() float64 {
	if u.mean == 0 {
		return 0
	}
	return min(u.dev2/square(u.mean), 1)
}

// long is what few attempts take.
func (u *usual) long() float64 { return u.mean + 2*math.Sqrt(u.dev2) }

// left is how long an attempt will still run, in seconds, that has run for so long. One
// that takes much longer than usual is half done.
func (u *usual) left(ran float64) float64 {
	c := u.chance()
	return max((1-c)*max(u.mean-ran, 0)+c*u.mean, ran-u.long(), u.mean/10)
}

// underway is what runs: how many attempts, and the sums of when they began and of its
// square, in seconds since epoch.
type underway struct {
	epoch   time.Time
	running int
	began   float64
	began2  float64
}

// begin notes that an attempt runs, and end that it does no more.
func (w *underway) begin(at time.Time) { w.add(1, at) }
func (w *underway) end(began time.Time) {
	if w.add(-1, began); w.running == 0 {
		*w = underway{} // and no rounding is left
	}
}

func (w *underway) add(n int, at time.Time) {
	if w.epoch.IsZero() {
		w.epoch = at
	}
	s := at.Sub(w.epoch).Seconds()
	if s > time.Hour.Seconds() { // small numbers are exact
		w.began2 += float64(w.running)*square(s) - 2*s*w.began
		w.began -= float64(w.running) * s
		w.epoch, s = at, 0
	}
	w.running += n
	w.began += float64(n) * s
	w.began2 += float64(n) * square(s)
}

// elapsed is for how long the running attempts have run: the mean, and how far they
// are apart (the variance).
func (w *underway) elapsed(now time.Time) (mean, dev2 float64) {
	if w.running == 0 {
		return 0, 0
	}
	n := float64(w.running)
	began := w.began / n
	return max(now.Sub(w.epoch).Seconds()-began, 0), max(w.began2/n-square(began), 0)
}

// run is how long an attempt that begins now will run: as usual, or as those do that
// run for much longer.
func (p *pace) run(now time.Time) float64 {
	ran, _ := p.elapsed(now)
	if ran > p.long() {
		return ran + p.left(ran)
	}
	return p.mean
}

// wait is how long a job waits, in seconds, with so many before it, for one of so many
// slots of which so many are free.
//
// The first that wait take the slots as they become free: the attempts that run are
// taken to be spread evenly around how far they are on the average, as far apart as
// they are and as chance has it. Those behind wait for whole rounds.
func (p *pace) wait(now time.Time, before, slots, free int) float64 {
	if before < free {
		return 0
	}
	run := p.run(now)
	before = int(p.ahead(now, before-free, run/float64(slots)))
	ran, apart2 := p.elapsed(now)
	spread := math.Sqrt(3 * (apart2*square(1-p.chance()) + p.dev2))
	place := float64(before%slots+1) / float64(slots+1)
	first := p.left(ran) + spread*(2*place-1)
	return max(first, 0) + float64(before/slots)*run
}

func square(x float64) float64 { return x * x }

// began tells of an attempt that runs here from then on.
func (q *queue) began(at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pace.begin(at)
}

// over tells that one that began then is over. From one that has ended its job the
// queue learns.
func (q *queue) over(began time.Time, ran time.Duration, ended bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pace.end(began)
	if ended {
		q.pace.learn(ran)
	}
}

// estimate is how long an unfinished job will take from now until it has ended, with
// so many before it in the queue when it is queued, ready only after delay when it is
// scheduled, or running since so long. 0 when nobody knows: nothing was learned, the
// queue is paused or nobody serves it, or the job is parked, for its key's turn.
func (q *queue) estimate(s *Snapshot, delay, running time.Duration) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pace.seen == 0 {
		return 0
	}
	if s.State == job.Running {
		return seconds(q.pace.left(running.Seconds()))
	}
	now := time.Now()
	before := s.Position
	if s.State == job.Scheduled {
		before = int(q.counts.Queued)
	}
	wait, known := q.waitLocked(now, before)
	if !known || s.State == job.Parked {
		return 0
	}
	return max(wait, delay) + seconds(q.pace.run(now))
}

// waitLocked is how long a job waits with so many before it.
func (q *queue) waitLocked(now time.Time, before int) (wait time.Duration, known bool) {
	slots, free := 0, 0
	for _, s := range q.servers {
		slots += s.Slots
		free += s.free
	}
	if q.MaxRunning > 0 {
		slots = min(slots, q.MaxRunning)
		free = max(min(free, q.MaxRunning-int(q.counts.Running)), 0)
	}
	if slots == 0 || q.counts.Paused {
		return 0, false
	}
	return seconds(q.pace.wait(now, before, slots, free)), true
}

// outlookLocked is what a job submitted now would wait and run.
func (q *queue) outlookLocked(now time.Time) (wait, run time.Duration) {
	if q.pace.seen == 0 {
		return 0, 0
	}
	wait, _ = q.waitLocked(now, int(q.counts.Queued))
	return wait, seconds(q.pace.run(now))
}

// roomInLocked is how long until a full queue may have room again.
func (q *queue) roomInLocked() time.Duration {
	return seconds(q.pace.mean / float64(max(q.Concurrency, 1)))
}

func seconds(s float64) time.Duration {
	return time.Duration(min(s, job.MaxDuration.Seconds()) * float64(time.Second))
}
