package fairqueue

import (
	"container/heap"
	"time"
)

// readyTimes knows since when the longest waiting of many jobs has been ready, to the
// second: it counts the jobs that became ready in each, so that a million that wait
// cost no more than the seconds in which they came.
type readyTimes struct {
	seconds map[int64]*second
	order   seconds // of all in the map; the empty ones are dropped when they come first
}

// second is the jobs that became ready within one second, and still wait.
type second struct {
	number int64
	jobs   int
	first  int64 // the earliest of them that there ever was, in microseconds
}

func numberOf(micros int64) int64 { return micros >> 20 }

func (r *readyTimes) add(at time.Time) {
	micros := at.UnixMicro()
	n := numberOf(micros)
	s := r.seconds[n]
	if s == nil {
		if r.seconds == nil {
			r.seconds = map[int64]*second{}
		}
		s = &second{number: n}
		r.seconds[n] = s
		heap.Push(&r.order, s)
	}
	if s.jobs == 0 || micros < s.first {
		s.first = micros
	}
	s.jobs++
}

func (r *readyTimes) remove(at time.Time) {
	if s := r.seconds[numberOf(at.UnixMicro())]; s != nil && s.jobs > 0 {
		s.jobs--
	}
	for len(r.order) > 0 && r.order[0].jobs == 0 {
		delete(r.seconds, r.order[0].number)
		heap.Pop(&r.order)
	}
}

// Oldest is since when the job has been ready that has waited longest, queued or
// parked, to the second; zero when none waits.
func (q *Queue) Oldest() time.Time {
	if len(q.ready.order) == 0 {
		return time.Time{}
	}
	return time.UnixMicro(q.ready.order[0].first)
}

// seconds is a heap, the earliest first.
type seconds []*second

func (s seconds) Len() int           { return len(s) }
func (s seconds) Less(i, k int) bool { return s[i].number < s[k].number }
func (s seconds) Swap(i, k int)      { s[i], s[k] = s[k], s[i] }
func (s *seconds) Push(x any)        { *s = append(*s, x.(*second)) }

func (s *seconds) Pop() any {
	last := len(*s) - 1
	x := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	return x
}
