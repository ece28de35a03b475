package engine

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Snapshot is a job as it is shown: the job itself and what is known around it.
type Snapshot struct {
	job.Job
	Position int           // how many jobs of its queue will run before it; 0 unless queued
	Estimate time.Duration // until it has ended, from now; 0 when unknown or ended
	// HeldBackBy is why a waiting job is not given to a worker; "" when nothing holds it
	// back. What another process changed shows in about a second.
	HeldBackBy job.HeldBackBy
	Text       string      // said so far in this attempt, at most job.MaxInline bytes
	Result     *job.Result // of a succeeded job, when at most job.MaxInline bytes
}

// exactPosition is up to where a job's place in its queue is counted; beyond, it
// is taken from the queue's count.
const exactPosition = 100

// Get returns a job as it is now.
func (e *Engine) Get(ctx context.Context, owner job.Owner, id job.ID) (Snapshot, error) {
	s, err := e.snapshot(ctx, &job.Job{ID: id, Owner: owner}, nil)
	if err == nil {
		e.presence.touch(&s.Job)
	}
	return s, err
}

// List returns a page of the owner's jobs, newest first.
func (e *Engine) List(ctx context.Context, f job.Filter) (page []job.Job, next job.ID, err error) {
	return e.store.List(ctx, f)
}

// Result returns what a job came to: [job.NotFinished] before it has succeeded.
func (e *Engine) Result(ctx context.Context, owner job.Owner, id job.ID) (job.Result, error) {
	return e.store.Result(ctx, owner, id)
}

// fresh is the snapshot of a job that was just stored, when so many were queued.
func (e *Engine) newJobSnapshot(ctx context.Context, j *job.Job, queued int) Snapshot {
	s := Snapshot{Job: *j}
	if s.State == job.Running {
		s.Estimate = e.queues[s.Queue].estimate(&s, 0, 0) // it has only just begun
		return s
	}
	if e.locate(ctx, &s) != nil {
		e.locateWithoutRead(&s) // it is stored all the same
	} else if s.State == job.Queued {
		e.queues[s.Queue].recordArrival(s.Position, queued)
	}
	return s
}

// snapshotAfter is the snapshot for the answer of an op that is on disk. The op cannot
// be taken back, so its answer is a success whatever the reads meet: when one fails
// (the job was deleted since, the disk does not answer, the caller left), the job is
// shown as the commit left it.
func (e *Engine) snapshotAfter(ctx context.Context, j *job.Job) Snapshot {
	s, err := e.snapshot(ctx, j, nil)
	if err != nil {
		s = Snapshot{Job: *j}
		e.locateWithoutRead(&s)
	}
	return s
}

// snapshot shows a job with what is known around it: its state, its cursor and its
// text are of one moment. What the caller knows of an ended job that has said
// nothing is not read again.
func (e *Engine) snapshot(ctx context.Context, known *job.Job, result *job.Result) (s Snapshot, err error) {
	s = Snapshot{Job: *known, Result: result}
	if !known.State.Ended() || known.Cursor > 0 {
		if s.Job, s.Text, err = e.store.Text(ctx, known.Owner, known.ID, job.MaxInline); err != nil {
			return s, err
		}
	}
	if err := e.locate(ctx, &s); err != nil {
		return s, err
	}
	if s.State == job.Succeeded && result == nil {
		r, err := e.store.Result(ctx, s.Owner, s.ID)
		if err != nil {
			return s, err
		}
		if len(r.Body) <= job.MaxInline {
			s.Result = &r
		}
	}
	return s, nil
}

// locate finds a waiting job's place, and guesses when an unfinished one will end.
func (e *Engine) locate(ctx context.Context, s *Snapshot) error {
	q := e.queues[s.Queue]
	if s.State.Ended() || q == nil {
		s.HeldBackBy = q.holdReason(s)
		return nil
	}
	if s.State == job.Queued {
		n, err := e.store.Position(ctx, s.Owner, s.ID, exactPosition)
		if err != nil {
			return err
		}
		if n == exactPosition {
			n = max(n, int(q.queued())-1)
		}
		s.Position = n
	}
	e.addEstimate(s, q)
	return nil
}

// guess is locate without a read: as if the job had just been put at the end of its
// queue.
func (e *Engine) locateWithoutRead(s *Snapshot) {
	q := e.queues[s.Queue]
	if s.State.Ended() || q == nil {
		s.HeldBackBy = q.holdReason(s)
		return
	}
	if s.State == job.Queued {
		s.Position = max(int(q.queued())-1, 0)
	}
	e.addEstimate(s, q)
}

// foresee guesses when a job will end that has this position, and says what holds it
// back.
func (e *Engine) addEstimate(s *Snapshot, q *queue) {
	s.HeldBackBy = q.holdReason(s)
	var delay, running time.Duration
	switch s.State {
	case job.Running:
		running = e.runningFor(s.ID)
	case job.Scheduled:
		delay = max(s.RunAt.Sub(e.store.Now()), 0)
	}
	s.Estimate = q.estimate(s, delay, running)
}

// runningFor is since when the job's attempt runs here; 0 when it runs elsewhere.
func (e *Engine) runningFor(id job.ID) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if local := e.leases[id]; local != nil {
		return time.Since(local.startedAt)
	}
	return 0
}
