package engine

import "time"

// overtaking is how often jobs come that are to run before others which wait already:
// of a key whose turn it is, or more urgent; and how far to the front they come.
type arrivalsAhead struct {
	lastAt   time.Time                  // when the last one came
	interval float64                    // seconds between them, on the average
	share    [len(bucketStarts)]float64 // of those that came to each part of the queue
}

// places are where the parts of a queue begin.
var bucketStarts = [...]int{0, 1, 2, 3, 5, 8, 12, 17, 24, 34, 48, 68, 96}

const (
	arrivalWeight = 1.0 / 16 // of the last one
	minSpeed      = 0.2      // of the usual pace: slower nobody moves on
)

// note notes a job that overtakes others, and comes to that place.
func (o *arrivalsAhead) record(now time.Time, place int) {
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
	for bucketStarts[part] > place {
		part--
	}
	for i := range o.share {
		o.share[i] *= 1 - weight
	}
	o.share[part] += weight
}

// ahead is how many jobs will run before one with so many before it, with those that
// overtake it on its way to the front, when the queue does one every so many seconds.
func (o *arrivalsAhead) jobsAhead(now time.Time, before int, every float64) (jobs float64) {
	if o.interval == 0 {
		return float64(before)
	}
	load := every / max(o.interval, now.Sub(o.lastAt).Seconds()) // of what the queue does
	overtaken := 0.0
	for i, from := range bucketStarts {
		to := before
		if i+1 < len(bucketStarts) {
			to = min(before, bucketStarts[i+1])
		}
		if to <= from {
			break
		}
		jobs += float64(to-from) / max(1-load*(overtaken+o.share[i]/2), minSpeed)
		overtaken += o.share[i]
	}
	return jobs
}

// came tells of a job that was queued at that position, when so many were queued
// already. Some of those were claimed since, so it has to be clear that it overtook.
func (q *queue) recordArrival(position, queued int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if queued-position > max(2, queued/8) {
		q.estimator.arrivalsAhead.record(time.Now(), position)
	}
}
