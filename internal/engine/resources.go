package engine

import (
	"sync"
	"sync/atomic"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// resources counts, by resource, the jobs that this process holds, so that claims take no job
// whose resource has no room; see [job.Job.Resource]. Other processes count for themselves.
//
// A job counts from the batch that leases it until its slot is free.
type resources struct {
	limits func() map[string]int // from Config.ResourceLimits; nil for none. Set once

	changes atomic.Int64 // how often a limit may have risen

	mu sync.Mutex
	// Guarded by mu.
	held map[string]int
}

// add counts n more jobs of a resource.
func (r *resources) add(resource string, n int) {
	if resource == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held[resource] += n; r.held[resource] == 0 {
		delete(r.held, resource)
	}
}

// room returns how many more jobs of each limited resource may be leased.
func (r *resources) room() fairqueue.Room {
	if r.limits == nil {
		return nil
	}
	room := fairqueue.Room(r.limits())
	r.mu.Lock()
	defer r.mu.Unlock()
	for resource, limit := range room {
		room[resource] = max(limit-r.held[resource], 0)
	}
	return room
}

// hasRoom reports whether another job of a resource may be leased.
func (r *resources) hasRoom(resource string) bool { return resource == "" || r.room().Has(resource) }

// anyFull reports whether some resource has no room.
func (r *resources) anyFull() bool {
	for _, n := range r.room() {
		if n == 0 {
			return true
		}
	}
	return false
}

// recount counts the jobs that a batch leases now instead of those that it leased before. A batch
// with an unknown outcome is applied again, and may lease other jobs.
func (r *resources) recount(before, now map[string]int) {
	for resource, n := range before {
		r.add(resource, -n)
	}
	for resource, n := range now {
		r.add(resource, n)
	}
}

// leasedResources counts the jobs that an applied batch has leased, by resource.
func (pb *pendingBatch) leasedResources() map[string]int {
	var leased map[string]int
	add := func(j *job.Job) {
		if j.Resource == "" {
			return
		}
		if leased == nil {
			leased = map[string]int{}
		}
		leased[j.Resource]++
	}
	for _, p := range pb.ops {
		for i, s := range p.submits {
			if p.consumers[i] != nil && s.Err == nil && s.Existing == nil && s.Job.State == job.Running {
				add(&s.Job)
			}
		}
	}
	for i := range pb.claims {
		for k := range pb.claims[i].op.Claimed {
			add(&pb.claims[i].op.Claimed[k].Job)
		}
	}
	return leased
}

// RoomChanged tells the engine that a limit of [Config.ResourceLimits] may have risen. It does not
// block, and costs little if no job waits for room.
func (e *Engine) RoomChanged() {
	e.resources.changes.Add(1)
	e.claimAgain()
}

// claimAgain lets queues claim whose last claim left jobs without room.
func (e *Engine) claimAgain() {
	waiting := false
	for _, q := range e.queues {
		q.mu.Lock()
		waiting = waiting || q.claimFellShort
		q.claimFellShort = false
		q.mu.Unlock()
	}
	if waiting {
		e.lanes.signal()
	}
}
