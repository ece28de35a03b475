package engine

import (
	"context"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

const (
	// abandonEvery is how often presences are stored and abandoned jobs are cancelled.
	abandonEvery = 5 * time.Second
	// presenceInterval is the minimum time between two stored presences of one job or owner: a
	// quarter of the shortest [job.Timeouts.Abandon].
	presenceInterval = job.MinAbandon / 4
)

// presence collects the presences of watchers and owners at jobs with an abandon timeout. The
// next sweep stores them, so that the store's clock decides for all processes which jobs are
// abandoned.
type presence struct {
	mu sync.Mutex
	// Guarded by mu.
	jobs         map[job.ID]*presenceState
	owners       map[job.Owner]*presenceState
	healthySince time.Time // when this process became able to serve watchers and owners
}

// presenceState is the presence at one job, or of one owner. It is dropped when it has no
// watcher and nothing to store.
type presenceState struct {
	watchers int
	present  bool      // a presence was recorded since storedAt
	storedAt time.Time // zero if never
}

func newPresence() *presence {
	return &presence{jobs: map[job.ID]*presenceState{}, owners: map[job.Owner]*presenceState{}, healthySince: time.Now()}
}

// restart starts every abandon timeout again, after an outage of this process.
func (p *presence) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.healthySince = time.Now()
}

// healthyFor returns for how long this process has served watchers and owners without an outage.
func (p *presence) healthyFor() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.healthySince)
}

// touch records a request for a job.
func (p *presence) touch(j *job.Job) { p.update(j, 0) }

// addWatcher and removeWatcher count the watchers of a job. removeWatcher also records a
// presence.
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

// MarkPresent records that a user is present, so that their jobs are not abandoned during the
// next abandon timeout.
func (e *Engine) MarkPresent(owner job.Owner) {
	p := e.presence
	p.mu.Lock()
	defer p.mu.Unlock()
	stateOf(p.owners, owner).present = true
}

// stateOf returns the state of a key, and adds it if needed.
func stateOf[K comparable](of map[K]*presenceState, k K) *presenceState {
	s := of[k]
	if s == nil {
		s = &presenceState{}
		of[k] = s
	}
	return s
}

// takeUnstored returns the presences that are to be stored now; nil if there are none.
func (p *presence) takeUnstored(now time.Time) *store.Presence {
	p.mu.Lock()
	defer p.mu.Unlock()
	op := &store.Presence{Jobs: takePresent(p.jobs, now), Owners: takePresent(p.owners, now)}
	if len(op.Jobs) == 0 && len(op.Owners) == 0 {
		return nil
	}
	return op
}

// takePresent returns the keys whose presence is to be stored now, and drops the idle ones.
func takePresent[K comparable](of map[K]*presenceState, now time.Time) (list []K) {
	for k, s := range of {
		s.present = s.present || s.watchers > 0 // a watcher is present all the time
		recent := !s.storedAt.IsZero() && now.Sub(s.storedAt) < presenceInterval
		switch {
		case s.present && !recent:
			list = append(list, k)
			s.present, s.storedAt = false, now
		case !s.present && !recent:
			delete(of, k)
		}
	}
	return list
}

// markUnstored marks the presences of a failed op to be stored again.
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

// cancelAllAbandoned stores the collected presences and cancels the abandoned jobs.
func (e *Engine) cancelAllAbandoned(ctx context.Context) error {
	if op := e.presence.takeUnstored(time.Now()); op != nil {
		err := e.doUrgent(ctx, op)
		e.sweeper.recordStep(err)
		if err == nil { // otherwise the loop may still be writing the op
			err = op.Err
		}
		if err != nil {
			e.presence.markUnstored(op)
			if job.CodeOf(err) == job.NoSpace { // the disk has logged it
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

// cancelAbandoned cancels a job that had no presence for its whole timeout. It cancels no job
// whose timeout passed while this process could not serve requests: before its start there may
// have been no process that a watcher could reach.
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
		e.log.Info("an abandoned job is cancelled: it had no watcher, no request and no heartbeat", "job", j.ID)
	case job.NotFound, job.Conflict: // deleted, ended or watched meanwhile
	default: // log it and go on: it is no outage, and must not stop the other cancels
		e.log.Error("an abandoned job could not be cancelled: its timeout begins anew", "job", j.ID, "error", op.Err)
		e.presence.touch(j)
	}
	return nil
}
