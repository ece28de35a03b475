package ops

import (
	"iter"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Memory is what a process keeps of the jobs of a store to decide on ops: the counts, limits and
// turns of each queue, and the suspects. A store fills it with [Memory.Load] when it opens. The ops
// of a batch change it before the batch is stored, so that a failed transaction needs a new load.
//
// It has no lock: one goroutine at a time uses it.
type Memory struct {
	queues   map[string]*queue
	suspects suspects

	// Of the current batch, or the last one.
	limits  map[string]job.Limits
	number  int64 // counts batches
	named   []string
	changed []string

	record  bool
	changes []Change
}

// queue is a queue with what the memory keeps besides it.
type queue struct {
	*fairqueue.Queue
	name    string
	stored  bool  // the queue once had a job or was paused
	number  int64 // of the last batch that used it
	named   bool  // that batch answers its counts
	changed bool  // that batch changed its counts
}

// NewMemory makes the memory of an empty store. If record is true, [Memory.Changes] returns the
// changes of each batch.
func NewMemory(record bool) *Memory {
	return &Memory{queues: map[string]*queue{}, record: record}
}

// begin begins a batch.
func (m *Memory) begin(b *store.Batch) {
	m.limits = b.Limits
	m.number++
	m.named, m.changed, m.changes = m.named[:0], m.changed[:0], m.changes[:0]
}

// Changed returns the names of the queues whose counts the last batch changed, until the next one.
func (m *Memory) Changed() []string { return m.changed }

// Changes returns the changes of the last batch in their order, until the next one.
func (m *Memory) Changes() []Change { return m.changes }

// Counts returns the counts of each queue that ever had a job or was paused.
func (m *Memory) Counts() map[string]job.Counts {
	counts := make(map[string]job.Counts, len(m.queues))
	for name, q := range m.queues {
		if q.stored {
			counts[name] = q.Counts
		}
	}
	return counts
}

// Queue returns a queue, which the caller must not change, or nil.
func (m *Memory) Queue(name string) *fairqueue.Queue {
	if q := m.queues[name]; q != nil {
		return q.Queue
	}
	return nil
}

// Queues returns all queues, which the caller must not change.
func (m *Memory) Queues() iter.Seq2[string, *fairqueue.Queue] {
	return func(yield func(string, *fairqueue.Queue) bool) {
		for name, q := range m.queues {
			if !yield(name, q.Queue) {
				return
			}
		}
	}
}

// SuspectIsReady reports whether a parked suspect can be queued by the next batch, because none
// runs.
func (m *Memory) SuspectIsReady() bool { return m.suspects.stuck() }

// find returns a queue as the last batch left it, and makes it if necessary.
func (m *Memory) find(name string) *queue {
	q := m.queues[name]
	if q == nil {
		q = &queue{Queue: fairqueue.New(), name: name}
		m.queues[name] = q
	}
	return q
}

// queue returns a queue with the limits of the batch.
func (m *Memory) queue(name string) *queue {
	q := m.find(name)
	if q.number != m.number {
		// Limits come with each batch: the configuration may have changed since the last one.
		q.number, q.Limits, q.named, q.changed = m.number, m.limits[name], false, false
	}
	return q
}

// namedQueue returns a queue whose counts the batch answers.
func (m *Memory) namedQueue(name string) *queue {
	q := m.queue(name)
	if !q.named {
		q.named = true
		m.named = append(m.named, name)
	}
	return q
}

// changedQueue returns a queue whose counts are about to change.
func (m *Memory) changedQueue(name string) *queue {
	q := m.namedQueue(name)
	if !q.changed {
		q.changed, q.stored = true, true
		m.changed = append(m.changed, name)
	}
	return q
}
