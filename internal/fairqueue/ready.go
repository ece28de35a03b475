package fairqueue

import (
	"container/heap"
	"time"
)

// readyTimes finds the time at which the longest waiting job became ready, to the second. It
// counts the jobs that became ready within each second, so its memory grows with the number of
// seconds, not of jobs.
type readyTimes struct {
	seconds map[int64]*second
	order   secondHeap // all seconds of the map
	empty   int        // number of seconds in order without a job
}

// second counts the waiting jobs that became ready within one second (2^20 microseconds).
type second struct {
	number int64
	jobs   int
	first  int64 // the earliest time of all jobs counted so far, in microseconds
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
	// OldestReady reads the first second, so the first second must have a job.
	for len(r.order) > 0 && r.order[0].jobs == 0 {
		delete(r.seconds, r.order[0].number)
		heap.Pop(&r.order)
		r.empty--
	}
	if r.empty > 64 && r.empty > len(r.order)/2 {
		r.dropEmpty()
	}
}

// dropEmpty removes the seconds without a job. The heap alone does not remove them: while one
// job waits for days, they never become its first element.
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

// OldestReady returns when the longest waiting queued or parked job became ready; zero if no job
// waits. It may be up to a second too early.
func (q *Queue) OldestReady() time.Time {
	if len(q.ready.order) == 0 {
		return time.Time{}
	}
	return time.UnixMicro(q.ready.order[0].first)
}

// secondHeap is a heap with the earliest second first.
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
