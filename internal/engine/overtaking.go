package engine

import "time"

// overtaking is how often jobs come that are to run before others which wait already:
// of a key whose turn it is, or more urgent; and how far to the front they come.
type overtaking struct {
	last  time.Time            // when the last one came
	every float64              // seconds between them, on the average
	share [len(places)]float64 // of those that came to each part of the queue
}

// places are where the parts of a queue begin.
var places = [...]int{0, 1, 2, 3, 5, 8, 12, 17, 24, 34, 48, 68, 96}

const (
	overtakingWeight = 1.0 / 16 // of the last one
	slowest          = 0.2      // of the usual pace: slower nobody moves on
)

// note notes a job that overtakes others, and comes to that place.
func (o *overtaking) note(now time.Time, place int) {
	weight := overtakingWeight
	switch gap := now.Sub(o.last).Seconds(); {
	case o.last.IsZero():
		weight = 1
	case o.every == 0:
		o.every = gap
	default:
		o.every += (gap - o.every) * weight
	}
	o.last = now
	part := len(places) - 1
	for places[part] > place {
		part--
	}
	for i := range o.share {
		o.share[i] *= 1 - weight
	}
	o.share[part] += weight
}

// ahead is how many jobs will run before one with so many before it, with those that
// overtake it on its way to the front, when the queue does one every so many seconds.
func (o *overtaking) ahead(now time.Time, before int, every float64) (jobs float64) {
	if o.every == 0 {
		return float64(before)
	}
	load := every / max(o.every, now.Sub(o.last).Seconds()) // of what the queue does
	overtaken := 0.0
	for i, from := range places {
		to := before
		if i+1 < len(places) {
			to = min(before, places[i+1])
		}
		if to <= from {
			break
		}
		jobs += float64(to-from) / max(1-load*(overtaken+o.share[i]/2), slowest)
		overtaken += o.share[i]
	}
	return jobs
}

// came tells of a job that was queued at that position, when so many were queued
// already. Some of those were claimed since, so it has to be clear that it overtook.
func (q *queue) came(position, queued int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if queued-position > max(2, queued/8) {
		q.pace.overtaking.note(time.Now(), position)
	}
}
