package engine

import (
	"math"
	"testing"
	"time"
)

// statsOf returns the statistics of attempts with the given durations in seconds.
func statsOf(seconds ...float64) *durationStats {
	stats := new(durationStats)
	for _, s := range seconds {
		stats.learn(time.Duration(s * float64(time.Second)))
	}
	return stats
}

func expectNear(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.IsNaN(got) || math.Abs(got-want) > 0.05*math.Abs(want)+1e-9 {
		t.Errorf("%s: %g, want %g", what, got, want)
	}
}

func TestMeanOfDurations(t *testing.T) {
	t.Parallel()
	expectNear(t, "one duration", statsOf(3).mean, 3)
	expectNear(t, "a few durations", statsOf(1, 2, 3).mean, 2)
	expectNear(t, "an exception at the end", statsOf(2, 2, 2, 2, 2, 2, 2, 2, 18).mean, 2)
	expectNear(t, "an exception before a usual duration", statsOf(2, 2, 2, 2, 2, 2, 2, 2, 18, 2).mean, 3.75)
	expectNear(t, "several longer durations at the end", statsOf(2, 2, 2, 2, 2, 2, 2, 2, 18, 20, 22, 20).mean, 20)
	expectNear(t, "several shorter durations at the end", statsOf(20, 20, 20, 20, 20, 1, 1, 1, 1).mean, 1)
	expectNear(t, "only zero durations", statsOf(0, 0, 0, 0, 0, 0).mean, 0)
	expectNear(t, "zero durations before others", statsOf(0, 0, 0, 0, 5, 5, 5, 5).mean, 5)
}

func TestRemainingTimeOfAttempt(t *testing.T) {
	t.Parallel()
	even := statsOf(10, 10, 10, 10)
	expectNear(t, "equal durations, at the start", even.remaining(0), 10)
	expectNear(t, "equal durations, in the middle", even.remaining(6), 4)
	expectNear(t, "equal durations, near the end", even.remaining(9.9), 1)
	expectNear(t, "equal durations, much longer than usual", even.remaining(50), 40)
	random := &durationStats{samples: 100, mean: 10, variance: 100}
	expectNear(t, "random durations, at the start", random.remaining(0), 10)
	expectNear(t, "random durations, in the middle", random.remaining(9), 10)
}

// Ended attempts leave no trace in the statistics, even after months of uptime.
func TestRunningStatsAreExact(t *testing.T) {
	t.Parallel()
	var w runningStats
	start := time.Unix(0, 0)
	w.begin(start)
	now := start.Add(200 * 24 * time.Hour)
	for i := range 1000 {
		w.begin(now.Add(time.Duration(i) * time.Millisecond))
	}
	w.end(start)
	mean, dev2 := w.elapsed(now.Add(10 * time.Second))
	expectNear(t, "the mean", mean, 9.5)
	expectNear(t, "how far apart", math.Sqrt(dev2), 0.29)
	for i := range 1000 {
		w.end(now.Add(time.Duration(i) * time.Millisecond))
	}
	if w != (runningStats{}) {
		t.Errorf("%+v is left", w)
	}
}

func TestExpectedWait(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	p := estimator{durationStats: *statsOf(10, 10, 10, 10)}
	expectNear(t, "with a free slot", p.expectedWait(now, 0, 4, 1), 0)
	for i := range 4 {
		p.begin(now.Add(-time.Duration(i) * 2500 * time.Millisecond)) // at equal distances
	}
	expectNear(t, "as the next", p.expectedWait(now, 0, 4, 0), 3.3)
	expectNear(t, "as the last of a round", p.expectedWait(now, 3, 4, 0), 9.2)
	expectNear(t, "a round later", p.expectedWait(now, 4, 4, 0), 13.3)
	expectNear(t, "ten rounds later", p.expectedWait(now, 40, 4, 0), 103.3)

	p = estimator{durationStats: p.durationStats}
	for range 4 {
		p.begin(now.Add(-3 * time.Second)) // at the same time
	}
	expectNear(t, "as the next, when all began together", p.expectedWait(now, 0, 4, 0), 7)
	expectNear(t, "as the last", p.expectedWait(now, 3, 4, 0), 7)
}

// A job waits longer if jobs of higher priority arrive ahead of it. A job ahead of the arrivals
// does not wait longer.
func TestOvertakenJobWaitsLonger(t *testing.T) {
	t.Parallel()
	var o arrivalsAhead
	now := time.Unix(1000, 0)
	expectNear(t, "nobody overtakes", o.jobsAhead(now, 50, 1), 50)
	for range 100 {
		now = now.Add(2 * time.Second) // every second job arrives at position 3
		o.record(now, 3)
	}
	expectNear(t, "before them", o.jobsAhead(now, 3, 1), 3)
	expectNear(t, "behind them", o.jobsAhead(now, 50, 1), 3+2/0.75+45/0.5)
	expectNear(t, "once they have stopped coming", o.jobsAhead(now.Add(time.Hour), 50, 1), 50)
	expectNear(t, "when more come than are done", o.jobsAhead(now, 50, 10), 3+(50-3)/minSpeed)
}
