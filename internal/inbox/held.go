package inbox

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// maxLanes bounds the lanes that are held. A queue with more is held as a whole.
const maxLanes = 1000

// held is what is over a limit, and until when it is not tried again. A lane is the rows of one
// key of one owner in a queue.
type held struct {
	queues map[string]time.Time
	lanes  map[string]map[string]time.Time // by queue and lane
}

func newHeld() held {
	return held{queues: map[string]time.Time{}, lanes: map[string]map[string]time.Time{}}
}

// laneOf is how a statement writes a lane; see laneSQL.
func laneOf(owner job.Owner, key string) string {
	return owner.Tenant + "\x01" + owner.User + "\x01" + key
}

const laneSQL = `tenant || E'\x01' || usr || E'\x01' || key`

func (h *held) queue(name string) { h.queues[name] = time.Now().Add(retryInterval) }

func (h *held) lane(r *row) {
	lanes := h.lanes[r.Queue]
	if lanes == nil {
		lanes = map[string]time.Time{}
		h.lanes[r.Queue] = lanes
	}
	if len(lanes) >= maxLanes {
		h.queue(r.Queue)
		return
	}
	lanes[laneOf(r.Owner, r.key)] = time.Now().Add(retryInterval)
}

// free lists the queues that are not held.
func (h *held) free(queues []string) (list []string) {
	for _, name := range queues {
		if time.Now().After(h.queues[name]) {
			list = append(list, name)
		}
	}
	return list
}

// lanesOf lists the lanes of a queue that are held, and forgets those that are not any more.
func (h *held) lanesOf(queue string) []string {
	list := []string{}
	for lane, until := range h.lanes[queue] {
		if time.Now().After(until) {
			delete(h.lanes[queue], lane)
			continue
		}
		list = append(list, lane)
	}
	return list
}
