package ops

import (
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Load fills a memory from what a store has on the disk. There may be a million waiting jobs, so
// names are bytes, which the caller may overwrite after the call: few of them need a new string.
// The caller passes jobs with the same queue and lane one after another if it can.
type Load struct {
	m     *Memory
	queue *queue // of the previous job

	lane             string // of the previous job
	state            job.State
	tenant           []byte
	resource         string
	laneIsOfSuspects bool
}

// Load empties the memory and begins to fill it.
func (m *Memory) Load() *Load {
	*m = *NewMemory(m.record)
	return &Load{m: m, state: job.Queued}
}

// Counts adds the counts of a queue. The counts of jobs that wait and run must fit the jobs that are
// added.
func (l *Load) Counts(queue string, c job.Counts) {
	q := l.m.find(queue)
	q.stored, q.Counts = true, c
}

// Ready adds a queued or parked job, which became ready at since.
func (l *Load) Ready(queue, lane, key []byte, priority int, turn int64, since time.Time) {
	if string(lane) != l.lane {
		l.lane = string(lane)
		var tenant string
		l.state, tenant, l.resource = ParseLane(l.lane)
		l.tenant = []byte(tenant)
		l.laneIsOfSuspects = strings.HasPrefix(l.lane, SuspectLanePrefix)
	}
	q := l.find(queue)
	if l.laneIsOfSuspects {
		l.m.suspects.noteParked(q.name)
	}
	q.Restore(l.tenant, key, l.resource, l.state, priority, turn, since)
}

// Scheduled adds a scheduled job.
func (l *Load) Scheduled(queue, tenant, key []byte) {
	l.find(queue).Restore(tenant, key, "", job.Scheduled, 0, 0, time.Time{})
}

// Running adds a running job. Of the job only Owner, Queue, Key, Priority, Losses and Cleared need
// to be set.
func (l *Load) Running(j *job.Job) {
	if j.Suspect() {
		l.m.suspects.running++
	}
	l.find([]byte(j.Queue)).Restore([]byte(j.Owner.Tenant), []byte(j.Key), "", job.Running, j.Priority, 0, time.Time{})
}

func (l *Load) find(name []byte) *queue {
	if l.queue == nil || l.queue.name != string(name) {
		l.queue = l.m.find(string(name))
	}
	return l.queue
}
