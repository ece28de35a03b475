// Package watch passes committed changes of jobs to the subscribers of those jobs. It stores
// nothing. When a subscriber's unread events exceed a bound, they are dropped, and the
// subscriber reads the job's log instead.
package watch

import (
	"sync"
	"sync/atomic"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// maxUnread is the maximum number of bytes of unread entries of one subscription.
const maxUnread = 256 << 10

// Event is a committed change of a job. All subscribers share its parts and must not change
// them.
type Event struct {
	Entries []job.Entry // new entries, in order
	// Job is the job after the change. nil if only its output changed.
	Job *job.Job
	// State and Revision are set, and Job is nil, if a commit changed only the state of a job
	// that none of its ops names; see store.Batch.Moved. Otherwise they are zero.
	State    job.State
	Revision int64
	// Progress is the job's progress, if it changed.
	Progress *job.Progress
	// Result is the job's result, if it has succeeded with a small result.
	Result *job.Result
}

// Hub has the subscriptions of all jobs. Any goroutine may call its methods.
type Hub struct {
	watchers atomic.Int64
	shards   [64]shard

	mu     sync.Mutex
	owners map[job.Owner]int // how many subscriptions each has; guarded by mu
}

type shard struct {
	mu     sync.Mutex
	topics map[job.ID][]*Subscription // guarded by mu; no list is empty
}

// Subscription receives the events of one job. One goroutine calls Take.
type Subscription struct {
	hub   *Hub
	owner job.Owner
	id    job.ID
	// Ready receives a value when Take has something to return. It is never closed.
	Ready chan struct{}

	index int // in the job's list of subscriptions; guarded by the shard's mu

	mu     sync.Mutex
	events []Event // guarded by mu
	unread int     // bytes in events; guarded by mu
	missed bool    // events were dropped; guarded by mu
}

// NewHub makes a hub without subscriptions.
func NewHub() *Hub {
	h := &Hub{owners: map[job.Owner]int{}}
	for i := range h.shards {
		h.shards[i].topics = map[job.ID][]*Subscription{}
	}
	return h
}

// shardOf returns the shard of a job. It uses the random end of its id.
func (h *Hub) shardOf(id job.ID) *shard { return &h.shards[id[15]%64] }

// Watchers returns the number of subscriptions.
func (h *Hub) Watchers() int { return int(h.watchers.Load()) }

// Watched reports whether the job has a subscription.
func (h *Hub) Watched(id job.ID) bool {
	s := h.shardOf(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.topics[id]) > 0
}

// WatchersOf returns the number of subscriptions of an owner.
func (h *Hub) WatchersOf(owner job.Owner) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.owners[owner]
}

// count adds n to the subscriptions of an owner.
func (h *Hub) count(owner job.Owner, n int) {
	h.watchers.Add(int64(n))
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.owners[owner] += n; h.owners[owner] == 0 {
		delete(h.owners, owner)
	}
}

// Subscribe subscribes to the events of a job from now on, and counts for an owner. The job need
// not exist, nor belong to the owner.
func (h *Hub) Subscribe(owner job.Owner, id job.ID) *Subscription {
	sub := &Subscription{hub: h, owner: owner, id: id, Ready: make(chan struct{}, 1)}
	s := h.shardOf(id)
	s.mu.Lock()
	sub.index = len(s.topics[id])
	s.topics[id] = append(s.topics[id], sub)
	s.mu.Unlock()
	h.count(owner, 1)
	return sub
}

// Close ends the subscription. It must be called exactly once.
func (s *Subscription) Close() {
	sh := s.hub.shardOf(s.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	subs := sh.topics[s.id]
	// Move the last subscription here, so that the removal needs no search in a job with many
	// watchers.
	last := len(subs) - 1
	subs[s.index], subs[last].index = subs[last], s.index
	subs[last] = nil
	sh.topics[s.id] = subs[:last]
	if last == 0 {
		delete(sh.topics, s.id)
	}
	s.hub.count(s.owner, -1)
}

// Publish passes a committed change to the job's subscriptions. It never blocks.
func (h *Hub) Publish(id job.ID, e Event) {
	if h.watchers.Load() == 0 {
		return
	}
	s := h.shardOf(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range s.topics[id] {
		sub.add(e)
	}
}

func (s *Subscription) add(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range e.Entries {
		s.unread += len(e.Entries[i].Data)
	}
	if s.unread > maxUnread {
		s.events, s.unread, s.missed = nil, 0, true
	}
	if !s.missed {
		s.events = append(s.events, e)
	}
	select {
	case s.Ready <- struct{}{}:
	default: // one value is enough: Take returns all events
	}
}

// Take returns the events since the last call, in the order of the commits. If missed is true,
// events were dropped: Take then returns none, and the subscriber must read the log.
func (s *Subscription) Take() (events []Event, missed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events, missed = s.events, s.missed
	s.events, s.unread, s.missed = nil, 0, false
	return events, missed
}
