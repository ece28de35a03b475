package engine

import (
	"context"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

const (
	// abandonEvery is how often presences are stored and abandoned jobs are looked for.
	abandonEvery = 5 * time.Second
	// stampEvery is how often the presence at one job, or of one owner, is stored at most.
	// It is a quarter of the shortest [job.Timeouts.Abandon].
	stampEvery = job.MinAbandon / 4
)

// presence gathers who is seen at jobs with an abandon timeout, until the next sweep
// stores it: the store's clock then says, for every process, which jobs are abandoned.
type presence struct {
	mu sync.Mutex
	// Guarded by mu.
	jobs         map[job.ID]*presenceState
	owners       map[job.Owner]*presenceState
	healthySince time.Time // since when requests of watchers and owners could be served
}

// sighting is what is known of one job or owner. It is forgotten when nobody watches and
// nothing is left to store.
type presenceState struct {
	watchers int
	present  bool      // since it was stored last
	storedAt time.Time // zero when it never was
}

func newPresence() *presence {
	return &presence{jobs: map[job.ID]*presenceState{}, owners: map[job.Owner]*presenceState{}, healthySince: time.Now()}
}

// restart gives all jobs their whole timeout again: it was us who stood still.
func (p *presence) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.healthySince = time.Now()
}

// healthyFor is how long requests of watchers and owners could be served without a break.
func (p *presence) healthyFor() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.healthySince)
}

// asked notes that someone asked for a job.
func (p *presence) touch(j *job.Job) { p.update(j, 0) }

// watches and leaves count the watchers of a job. One that leaves was present until now.
func (p *presence) addWatcher(j *job.Job) { p.update(j, 1) }

func (p *presence) removeWatcher(j *job.Job) { p.update(j, -1) }

func (p *presence) update(j *job.Job, watchers int) {
	if j.Policy.Timeouts.Abandon == 0 || watchers == 0 && j.State.Ended() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := stateOf(p.jobs, j.ID)
	s.present = true
	s.watchers += watchers
}

// MarkPresent says that a user is here: their jobs are not abandoned for the time being.
func (e *Engine) MarkPresent(owner job.Owner) {
	p := e.presence
	p.mu.Lock()
	defer p.mu.Unlock()
	stateOf(p.owners, owner).present = true
}

func stateOf[K comparable](of map[K]*presenceState, k K) *presenceState {
	s := of[k]
	if s == nil {
		s = &presenceState{}
		of[k] = s
	}
	return s
}

// unstored takes the presences to be stored now; nil when there are none.
func (p *presence) takeUnstored(now time.Time) *store.Presence {
	p.mu.Lock()
	defer p.mu.Unlock()
	op := &store.Presence{Jobs: takePresent(p.jobs, now), Owners: takePresent(p.owners, now)}
	if len(op.Jobs) == 0 && len(op.Owners) == 0 {
		return nil
	}
	return op
}

func takePresent[K comparable](of map[K]*presenceState, now time.Time) (seen []K) {
	for k, s := range of {
		s.present = s.present || s.watchers > 0
		fresh := !s.storedAt.IsZero() && now.Sub(s.storedAt) < stampEvery
		switch {
		case s.present && !fresh:
			seen = append(seen, k)
			s.present, s.storedAt = false, now
		case !s.present && !fresh:
			delete(of, k)
		}
	}
	return seen
}

// missed makes presences be stored again that a commit did not take.
func (p *presence) markUnstored(op *store.Presence) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range op.Jobs {
		stateOf(p.jobs, id).markUnstored()
	}
	for _, o := range op.Owners {
		stateOf(p.owners, o).markUnstored()
	}
}

func (s *presenceState) markUnstored() { s.present, s.storedAt = true, time.Time{} }

// abandon stores the presences that were gathered, and cancels the abandoned jobs.
func (e *Engine) cancelAllAbandoned(ctx context.Context) error {
	if op := e.presence.takeUnstored(time.Now()); op != nil {
		err := e.doUrgent(ctx, op)
		e.sweeper.recordStep(err)
		if err == nil { // else the op may still be under way
			err = op.Err
		}
		if err != nil {
			e.presence.markUnstored(op)
			if job.CodeOf(err) == job.NoSpace { // that was said
				return nil
			}
			return err
		}
	}
	for after := ""; ; {
		list, next, err := e.store.Abandonable(ctx, after, sweepLimit)
		e.sweeper.recordStep(err)
		if err != nil {
			return err
		}
		for i := range list {
			if err := e.cancelAbandoned(ctx, &list[i]); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		after = next
	}
}

// cancelAbandoned cancels a job without a presence for its whole timeout. This process must
// have served requests for as long: before it started there may have been no process that
// a watcher could reach.
func (e *Engine) cancelAbandoned(ctx context.Context, j *job.Job) error {
	if e.presence.healthyFor() < j.Policy.Timeouts.Abandon {
		return nil
	}
	op := &store.Cancel{Owner: j.Owner, ID: j.ID, IfAbandoned: true}
	err := e.doUrgent(ctx, op)
	e.sweeper.recordStep(err)
	if err != nil {
		return err
	}
	switch job.CodeOf(op.Err) {
	case "":
		e.log.Info("nobody watched, asked or sent a heartbeat: the job is cancelled", "job", j.ID)
	case job.NotFound, job.Conflict: // deleted, ended or seen meanwhile
	default: // it keeps no other from being cancelled, and is no trouble of the store
		e.log.Error("an abandoned job could not be cancelled: its timeout begins anew", "job", j.ID, "error", op.Err)
		e.presence.touch(j)
	}
	return nil
}
