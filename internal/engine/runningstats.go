package engine

import "time"

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
