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
	order   secondHeap // of all in the map
	empty   int        // how many of them are of no job any more
}

// second is the jobs that became ready within one second, and still wait.
type second struct {
	number int64
	jobs   int
	first  int64 // the earliest of them that there ever was, in microseconds
}

func secondOf(micros int64) int64 { return micros >> 20 }

func (r *readyTimes) add(at time.Time) {
	micros := at.UnixMicro()
	n := secondOf(micros)
	s := r.seconds[n]
	if s == nil {
		if r.seconds == nil {
			r.seconds = map[int64]*second{}
		}
		s = &second{number: n}
		r.seconds[n] = s
		heap.Push(&r.order, s)
	} else if s.jobs == 0 {
		r.empty--
	}
	if s.jobs == 0 || micros < s.first {
		s.first = micros
	}
	s.jobs++
}

func (r *readyTimes) remove(at time.Time) {
	if s := r.seconds[secondOf(at.UnixMicro())]; s != nil && s.jobs > 0 {
		if s.jobs--; s.jobs == 0 {
			r.empty++
		}
	}
	for len(r.order) > 0 && r.order[0].jobs == 0 {
		delete(r.seconds, r.order[0].number)
		heap.Pop(&r.order)
		r.empty--
	}
	if r.empty > 64 && r.empty > len(r.order)/2 {
		r.dropEmpty()
	}
}

// dropEmpty forgets the seconds of no job: one that waits for days keeps them from coming
// first.
func (r *readyTimes) dropEmpty() {
	left := r.order[:0]
	for _, s := range r.order {
		if s.jobs > 0 {
			left = append(left, s)
		} else {
			delete(r.seconds, s.number)
		}
	}
	clear(r.order[len(left):])
	r.order, r.empty = left, 0
	heap.Init(&r.order)
}

// OldestReady is since when the job has been ready that has waited longest, queued or
// parked, to the second; zero when none waits.
func (q *Queue) OldestReady() time.Time {
	if len(q.ready.order) == 0 {
		return time.Time{}
	}
	return time.UnixMicro(q.ready.order[0].first)
}

// secondHeap is a heap, the earliest first.
type secondHeap []*second

func (s secondHeap) Len() int           { return len(s) }
func (s secondHeap) Less(i, k int) bool { return s[i].number < s[k].number }
func (s secondHeap) Swap(i, k int)      { s[i], s[k] = s[k], s[i] }
func (s *secondHeap) Push(x any)        { *s = append(*s, x.(*second)) }

func (s *secondHeap) Pop() any {
	last := len(*s) - 1
	x := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	return x
}
