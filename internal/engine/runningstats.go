package engine

import "time"

// runningStats are the number of running attempts, the sum of their start times, and the sum of
// the squares of their start times, in seconds since epoch. The mean and the variance of the
// elapsed times follow from these sums, without a list of attempts.
type runningStats struct {
	epoch          time.Time
	running        int
	startSum       float64
	startSquareSum float64
}

// begin adds an attempt that started at that time.
func (w *runningStats) begin(at time.Time) { w.add(1, at) }

// end removes an attempt that started at that time.
func (w *runningStats) end(began time.Time) {
	if w.add(-1, began); w.running == 0 {
		*w = runningStats{} // drop rounding errors
	}
}

func (w *runningStats) add(n int, at time.Time) {
	if w.epoch.IsZero() {
		w.epoch = at
	}
	s := at.Sub(w.epoch).Seconds()
	if s > time.Hour.Seconds() { // move the epoch: sums of large numbers lose precision
		w.startSquareSum += float64(w.running)*square(s) - 2*s*w.startSum
		w.startSum -= float64(w.running) * s
		w.epoch, s = at, 0
	}
	w.running += n
	w.startSum += float64(n) * s
	w.startSquareSum += float64(n) * square(s)
}

// elapsed returns the mean and the variance of the time that the running attempts have run, in
// seconds.
func (w *runningStats) elapsed(now time.Time) (mean, variance float64) {
	if w.running == 0 {
		return 0, 0
	}
	n := float64(w.running)
	began := w.startSum / n
	return max(now.Sub(w.epoch).Seconds()-began, 0), max(w.startSquareSum/n-square(began), 0)
}
