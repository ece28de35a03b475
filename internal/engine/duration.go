package engine

import (
	"math"
	"time"
)

// durationStats are the mean and the variance of the duration of final attempts.
type durationStats struct {
	samples  int     // attempts recorded so far
	mean     float64 // in seconds; a moving mean in which the last attempt has the weight 1/meanWindow
	variance float64 // moving as well

	// The latest consecutive attempts that all took much longer than usual, or all much less.
	// They are not in the mean yet. Once there are outlierRun of them they replace the mean,
	// because the durations have changed. If fewer, they were exceptions.
	outliers   int     // their number; negative if they took less than usual
	outlierSum float64 // sum of their durations, in seconds
}

const (
	meanWindow = 8 // attempts in the moving mean
	outlierRun = 4 // consecutive outliers that replace the mean
)

// learn adds the duration of one attempt.
func (s *durationStats) learn(d time.Duration) {
	x := d.Seconds()
	switch side := s.outlierSide(x); {
	case side == 0 || side*s.outliers < 0:
		// The outliers before this one were exceptions: add each as their average.
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
			// Keep the relative variance.
			*s = durationStats{samples: outlierRun, mean: mean, variance: square(mean) * s.randomness()}
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

// outlierSide returns 1 if an attempt took much longer than usual, -1 if much less, else 0.
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

// randomness returns how random the durations are: 0 if all are equal, 1 if the remaining time
// does not depend on the elapsed time.
func (s *durationStats) randomness() float64 {
	if s.mean == 0 {
		return 0
	}
	return min(s.variance/square(s.mean), 1)
}

// usualMax is a duration that few attempts exceed, in seconds.
func (s *durationStats) usualMax() float64 { return s.mean + 2*math.Sqrt(s.variance) }

// remaining returns the remaining time of an attempt that has run for ran seconds. If it takes much
// longer than usual, that is the excess over usualMax.
func (s *durationStats) remaining(ran float64) float64 {
	c := s.randomness()
	return max((1-c)*max(s.mean-ran, 0)+c*s.mean, ran-s.usualMax(), s.mean/10)
}

func square(x float64) float64 { return x * x }
