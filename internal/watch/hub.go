// Package watch tells those who follow a job what was committed of it. It keeps
// nothing: what a watcher has not taken within its bound is dropped, and the
// watcher reads the log instead.
package watch

import (
	"sync"
	"sync/atomic"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// maxUnread is how many bytes of entries wait for one watcher.
const maxUnread = 256 << 10

// Event is a committed change of a job. Its parts are shared by all watchers and
// not to be changed.
type Event struct {
	Entries []job.Entry // new entries, in order
	// Job is the job after the change, when more than its output changed.
	Job *job.Job
	// State and Revision are those of a job that has moved where no op named it: nothing
	// else of it has changed. Zero for other events; Job is then nil.
	State    job.State
	Revision int64
	// Progress is the job's progress, when that changed.
	Progress *job.Progress
	// Result is what the job came to, when it succeeded with a small one.
	Result *job.Result
}

// Hub knows who follows which job.
type Hub struct {
	watchers atomic.Int64
	shards   [64]shard
}

type shard struct {
	mu     sync.Mutex
	topics map[job.ID][]*Subscription // guarded by mu; no empty lists
}

// Subscription is one watcher of one job.
type Subscription struct {
	hub *Hub
	id  job.ID
	// Ready has a value when there is something to take. Nobody closes it.
	Ready chan struct{}

	index int // its place among the job's watchers; guarded by the shard's mu

	mu     sync.Mutex
	events []Event // guarded by mu
	unread int     // bytes in events; guarded by mu
	missed bool    // events were dropped; guarded by mu
}

// NewHub makes a hub without watchers.
func NewHub() *Hub {
	h := &Hub{}
	for i := range h.shards {
		h.shards[i].topics = map[job.ID][]*Subscription{}
	}
	return h
}

// shardOf finds a job's shard by the random end of its id.
func (h *Hub) shardOf(id job.ID) *shard { return &h.shards[id[15]%64] }

// Watchers is how many watchers there are.
func (h *Hub) Watchers() int { return int(h.watchers.Load()) }

// Watched says whether anyone follows a job.
func (h *Hub) Watched(id job.ID) bool {
	s := h.shardOf(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.topics[id]) > 0
}

// Subscribe follows a job from now on, whether or not it exists.
func (h *Hub) Subscribe(id job.ID) *Subscription {
	sub := &Subscription{hub: h, id: id, Ready: make(chan struct{}, 1)}
	s := h.shardOf(id)
	s.mu.Lock()
	sub.index = len(s.topics[id])
	s.topics[id] = append(s.topics[id], sub)
	s.mu.Unlock()
	h.watchers.Add(1)
	return sub
}

// Close ends the following. It may be called once.
func (s *Subscription) Close() {
	sh := s.hub.shardOf(s.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	subs := sh.topics[s.id]
	last := len(subs) - 1
	subs[s.index], subs[last].index = subs[last], s.index
	subs[last] = nil
	sh.topics[s.id] = subs[:last]
	if last == 0 {
		delete(sh.topics, s.id)
	}
	s.hub.watchers.Add(-1)
}

// Publish tells a job's watchers of a committed change. It never blocks.
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
		s.dropLocked()
	}
	if !s.missed {
		s.events = append(s.events, e)
	}
	s.signal()
}

func (s *Subscription) dropLocked() { s.events, s.unread, s.missed = nil, 0, true }

func (s *Subscription) signal() {
	select {
	case s.Ready <- struct{}{}:
	default:
	}
}

// Take returns the events since the last call. Missed says that there were more
// than fit: none is returned then, and the watcher is to read the log.
func (s *Subscription) Take() (events []Event, missed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events, missed = s.events, s.missed
	s.events, s.unread, s.missed = nil, 0, false
	return events, missed
}
