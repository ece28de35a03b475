package engine

import (
	"math"
	"time"
)

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

func square(x float64) float64 { return x * x }
