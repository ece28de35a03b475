package engine

import "time"

// arrivalsAhead are statistics of the jobs that arrive ahead of waiting jobs, because they are
// more urgent or their key has its turn: how often they arrive, and how far ahead.
type arrivalsAhead struct {
	lastAt   time.Time                  // when the last one arrived
	interval float64                    // mean seconds between two arrivals
	share    [len(bucketStarts)]float64 // the part of the arrivals in each bucket; the sum is 1
}

// bucketStarts are the positions in a queue at which the buckets begin.
var bucketStarts = [...]int{0, 1, 2, 3, 5, 8, 12, 17, 24, 34, 48, 68, 96}

const (
	arrivalWeight = 1.0 / 16 // weight of the last arrival in the moving means
	minSpeed      = 0.2      // the slowest advance of a waiting job, where 1 is the advance without arrivals ahead
)

// record adds a job that arrived ahead of others, at the given position.
func (o *arrivalsAhead) record(now time.Time, position int) {
	weight := arrivalWeight
	switch gap := now.Sub(o.lastAt).Seconds(); {
	case o.lastAt.IsZero():
		weight = 1
	case o.interval == 0:
		o.interval = gap
	default:
		o.interval += (gap - o.interval) * weight
	}
	o.lastAt = now
	part := len(bucketStarts) - 1
	for bucketStarts[part] > position {
		part--
	}
	for i := range o.share {
		o.share[i] *= 1 - weight
	}
	o.share[part] += weight
}

// jobsAhead returns how many jobs will run before a given job. before is the number of jobs that
// are ahead of it now; the result adds the jobs that will arrive ahead of it while it waits. every
// is the mean time that the queue takes per job, in seconds.
func (o *arrivalsAhead) jobsAhead(now time.Time, before int, every float64) (jobs float64) {
	if o.interval == 0 {
		return float64(before)
	}
	// Arrivals ahead per job that the queue runs.
	load := every / max(o.interval, now.Sub(o.lastAt).Seconds())
	overtaken := 0.0
	for i, from := range bucketStarts {
		to := before
		if i+1 < len(bucketStarts) {
			to = min(before, bucketStarts[i+1])
		}
		if to <= from {
			break
		}
		// Arrivals in all earlier buckets overtake a job in this bucket, and so do half of those
		// in the bucket itself. Their load slows the job down.
		jobs += float64(to-from) / max(1-load*(overtaken+o.share[i]/2), minSpeed)
		overtaken += o.share[i]
	}
	return jobs
}

// recordArrival records a job that was queued at the given position, when queued jobs were known
// to wait. Some of those may have been claimed since, so it ignores small differences.
func (q *queue) recordArrival(position, queued int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if queued-position > max(2, queued/8) {
		q.estimator.arrivalsAhead.record(time.Now(), position)
	}
}
