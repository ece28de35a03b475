package ops

import (
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Change is one change of a memory. A process that shares its store with others stores the changes
// of each batch with it, and the others follow them in the same order. Their memories then have the
// same counts and suspects, and give the same turns. Only what an opening forgets may differ: turns
// of tenants, clocks of their lanes, and turns of keys without jobs.
type Change struct {
	Kind  ChangeKind
	Queue string

	Tenant, Key, Resource string
	Priority              int
	// Bytes is the size of the input of a job that begins or ends to wait.
	Bytes int64
	// RunAt is when a job became ready that begins or ends to be queued or parked.
	RunAt    time.Time
	From, To job.State
	// Turn is what Move or AdvanceTurn of package fairqueue returned; 0 for a job that has none.
	Turn int64
	// Flag is true if a job is a suspect that begins or ends to run, if a queue is paused, or if the
	// queue of a NextSuspect had a parked suspect.
	Flag bool
}

// changesBytes reports whether a move changes the bytes of waiting jobs.
func (c *Change) changesBytes() bool { return c.From.Waiting() != c.To.Waiting() }

// changesReady reports whether a job begins or ends to be queued or parked.
func (c *Change) changesReady() bool { return isReady(c.From) != isReady(c.To) }

func isReady(s job.State) bool { return s == job.Queued || s == job.Parked }

// ChangeKind is the kind of a change. Its numbers are stored: they are never used for another kind.
type ChangeKind uint8

// The kinds of changes.
const (
	Moved         ChangeKind = 1 + iota // a job moved from one state to another
	Advanced                            // the turns moved forward, before a claim
	Paused                              // a queue was paused or is no longer paused
	Forgot                              // no job of the tenant needs the resource
	ScanNeeded                          // a place of a key was freed but not used
	SuspectParked                       // the queue has a parked suspect
	NextSuspect                         // the next parked suspect was looked for in this queue
	Passed                              // a claim passed the tenant, whose jobs had no room
	Held                                // a claim passed the tenant's lane of the resource, which had no room
)

const lastKind = Held

// add records a change.
func (m *Memory) add(c Change) {
	if m.record {
		m.changes = append(m.changes, c)
	}
}

// Follow applies a change of another process. The caller follows all changes, in the order of the
// batches and within a batch in their order.
func (m *Memory) Follow(c *Change) {
	if c.Kind == NextSuspect || c.Kind == SuspectParked {
		m.followSuspect(c)
		return
	}
	q := m.find(c.Queue)
	q.stored = true
	switch c.Kind {
	case Moved:
		m.followMove(q, c)
	case Advanced:
		q.FollowAdvance(c.Tenant, c.Resource, c.Turn)
	case Passed:
		q.FollowPassed(c.Tenant)
	case Held:
		q.FollowHeld(c.Tenant, c.Resource)
	case Paused:
		q.Counts.Paused = c.Flag
	case Forgot:
		q.ForgetResource(c.Tenant, c.Resource)
	case ScanNeeded:
		q.EndUnparkScan(true)
	}
}

func (m *Memory) followSuspect(c *Change) {
	if c.Kind == SuspectParked {
		m.suspects.noteParked(c.Queue)
		return
	}
	s := &m.suspects
	s.queues = slices.DeleteFunc(s.queues, func(name string) bool { return name == c.Queue })
	if c.Flag {
		s.queues = append(s.queues, c.Queue)
	}
}
