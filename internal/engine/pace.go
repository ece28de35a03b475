package engine

import "time"

// pace is what a queue has learned from the jobs that it did: moving averages, in
// which the last job weighs an eighth.
type pace struct {
	run  time.Duration // of an attempt that ended its job
	wait time.Duration // from ready to started
	seen int           // attempts that were learned from
}

const paceWeight = 8

func (q *queue) ran(d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pace.seen == 0 {
		q.pace.run = d
	}
	q.pace.seen++
	q.pace.run += (d - q.pace.run) / paceWeight
}

func (q *queue) waited(d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pace.wait += (max(d, 0) - q.pace.wait) / paceWeight
}

// estimate is how long a job will take from now until it has ended, with so many
// before it in the queue, or running since so long; 0 when nothing was learned.
func (q *queue) estimate(queued bool, before int, running time.Duration) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pace.seen == 0 {
		return 0
	}
	if !queued {
		return max(q.pace.run-running, q.pace.run/10)
	}
	rounds := before/max(q.Concurrency, 1) + 1
	free := q.counts.Running < int64(q.Concurrency)
	if free && before == 0 {
		return q.pace.run
	}
	return time.Duration(rounds)*q.pace.run + q.pace.run/2
}
