package engine

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// abandons remembers who was last seen at the jobs that asked to be cancelled when
// nobody cares for them any more. It is a matter of memory: after a start everyone
// has their whole time again.
type abandons struct {
	now func() time.Time // set once: the store's clock

	mu sync.Mutex
	// Guarded by mu.
	jobs   map[job.ID]*cared
	owners map[job.Owner]*here // those with a job in jobs, and no others
	since  time.Time           // since when nothing of ours kept anyone from being seen
}

// cared is an unfinished job that may be abandoned.
type cared struct {
	owner *here
	after time.Duration
	seen  time.Time // when someone watched it or asked for it
}

// here is an owner of such jobs.
type here struct {
	name job.Owner
	jobs int
	seen time.Time // the last heartbeat
}

func newAbandons(now func() time.Time) *abandons {
	return &abandons{now: now, jobs: map[job.ID]*cared{}, owners: map[job.Owner]*here{}}
}

// again gives everyone their whole time again: it was us who stood still.
func (a *abandons) again() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.since = a.now()
}

// add remembers a job, if it may be abandoned: whoever submitted it is here.
func (a *abandons) add(j *job.Job) {
	after := j.Policy.Timeouts.Abandon
	if after <= 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.jobs[j.ID]; c != nil {
		c.seen = a.now()
		return
	}
	owner := a.owners[j.Owner]
	if owner == nil {
		owner = &here{name: j.Owner}
		a.owners[j.Owner] = owner
	}
	owner.jobs++
	a.jobs[j.ID] = &cared{owner: owner, after: after, seen: a.now()}
}

// forget drops a job that has ended.
func (a *abandons) forget(id job.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.jobs[id]
	if c == nil {
		return
	}
	delete(a.jobs, id)
	if c.owner.jobs--; c.owner.jobs == 0 {
		delete(a.owners, c.owner.name)
	}
}

// asked notes that someone asked for a job.
func (a *abandons) asked(id job.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.jobs[id]; c != nil {
		c.seen = a.now()
	}
}

// Present says that a user is here: their jobs are not abandoned for the time
// being.
func (e *Engine) Present(owner job.Owner) {
	a := e.abandons
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := a.owners[owner]; h != nil {
		h.seen = a.now()
	}
}

// left lists the jobs that nobody was seen at for as long as they asked. Those that
// watched says are being watched are seen now.
func (a *abandons) left(watched func(job.ID) bool) map[job.ID]job.Owner {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := map[job.ID]job.Owner{}
	now := a.now()
	for id, c := range a.jobs {
		if watched(id) {
			c.seen = now
		}
		if now.Sub(latest(c.seen, c.owner.seen, a.since)) > c.after {
			list[id] = c.owner.name
		}
	}
	return list
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// abandonEvery is how often the sweep looks for abandoned jobs.
const abandonEvery = 5 * time.Second

// abandon cancels the jobs that nobody cares for any more.
func (e *Engine) abandon(ctx context.Context) error {
	for id, owner := range e.abandons.left(e.hub.Watched) {
		e.log.Info("nobody watched, asked or sent a heartbeat: the job is cancelled", "job", id)
		if _, err := e.Cancel(ctx, owner, id); err != nil && job.CodeOf(err) != job.NotFound {
			return err
		}
		e.abandons.forget(id)
	}
	return nil
}

// loadAbandons remembers the jobs of a former process.
func (e *Engine) loadAbandons(ctx context.Context) error {
	for after := int64(0); ; {
		list, next, err := e.store.Abandonable(ctx, after, sweepLimit)
		if err != nil {
			return err
		}
		for i := range list {
			e.abandons.add(&list[i])
		}
		if next == 0 {
			return nil
		}
		after = next
	}
}
