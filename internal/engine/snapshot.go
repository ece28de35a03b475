package engine

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Snapshot is the view of a job that the APIs show: the job with its position, estimate, text
// and result.
type Snapshot struct {
	job.Job
	Position int           // number of jobs of its queue that will run before it; 0 unless queued
	Estimate time.Duration // from now until its end; 0 if unknown or ended
	// HeldBackBy is the reason why a waiting job does not start; "" if there is no such reason.
	// Changes by other processes appear within about a second.
	HeldBackBy job.HeldBackBy
	Text       string      // output of this attempt so far, at most job.MaxInline bytes
	Result     *job.Result // of a succeeded job, if it has at most job.MaxInline bytes
}

// exactPosition is the largest position that is counted exactly. For later jobs the queue's
// count is used.
const exactPosition = 100

// Get returns a job, and records a presence at it. It returns [job.NotFound] if the job does not
// exist or belongs to another owner.
func (e *Engine) Get(ctx context.Context, owner job.Owner, id job.ID) (Snapshot, error) {
	s, err := e.snapshot(ctx, &job.Job{ID: id, Owner: owner}, nil)
	if err == nil {
		e.presence.touch(&s.Job)
	}
	return s, err
}

// Result returns a part of the result of a job: up to limit bytes after the first from bytes. It
// returns [job.NotFinished] unless the job has succeeded.
func (e *Engine) Result(ctx context.Context, owner job.Owner, id job.ID, from int64, limit int) (job.ResultPart, error) {
	return e.store.Result(ctx, owner, id, from, limit)
}

// newJobSnapshot returns the snapshot of a job that was just stored. queued is the number of
// jobs that were queued before it.
func (e *Engine) newJobSnapshot(ctx context.Context, j *job.Job, queued int) Snapshot {
	s := Snapshot{Job: *j}
	if s.State == job.Running {
		s.Estimate = e.queues[s.Queue].estimate(&s, 0, 0) // it has just begun
		return s
	}
	if e.locate(ctx, &s) != nil {
		e.locateWithoutRead(&s) // the job is stored, so the answer is a success
	} else if s.State == job.Queued {
		e.queues[s.Queue].recordArrival(s.Position, queued)
	}
	return s
}

// snapshotAfter returns the snapshot for the answer of an op that is on disk. The answer must be
// a success, because the op cannot be undone. So if the read fails, or the job was deleted
// meanwhile, or the caller left, it returns the job as the commit stored it.
func (e *Engine) snapshotAfter(ctx context.Context, j *job.Job) Snapshot {
	s, err := e.snapshot(ctx, j, nil)
	if err != nil {
		s = Snapshot{Job: *j}
		e.locateWithoutRead(&s)
	}
	return s
}

// snapshot reads a job with its text, position, estimate and result. State, cursor and text are
// of the same moment. It does not read an ended job without output again, because that cannot
// change.
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
		r, err := e.store.Result(ctx, s.Owner, s.ID, 0, job.MaxInline)
		if err != nil {
			return s, err
		}
		if r.Size <= job.MaxInline {
			s.Result = &job.Result{ContentType: r.ContentType, Body: r.Body}
		}
	}
	return s, nil
}

// locate sets the position of a waiting job, its estimate, and HeldBackBy.
func (e *Engine) locate(ctx context.Context, s *Snapshot) error {
	q := e.queues[s.Queue]
	if s.State.Ended() || q == nil {
		s.HeldBackBy = q.heldBackBy(s)
		return nil
	}
	if s.State == job.Queued {
		n, err := e.store.Position(ctx, s.Owner, s.ID, exactPosition)
		if err != nil {
			return err
		}
		if n == exactPosition { // the store counts no further
			n = max(n, int(q.queuedCount())-1)
		}
		s.Position = n
	}
	e.addEstimate(s, q)
	return nil
}

// locateWithoutRead does the same as locate without a read: it assumes that the job is the last
// of its queue.
func (e *Engine) locateWithoutRead(s *Snapshot) {
	q := e.queues[s.Queue]
	if s.State.Ended() || q == nil {
		s.HeldBackBy = q.heldBackBy(s)
		return
	}
	if s.State == job.Queued {
		s.Position = max(int(q.queuedCount())-1, 0)
	}
	e.addEstimate(s, q)
}

// addEstimate sets the estimate and HeldBackBy of a job with a known position.
func (e *Engine) addEstimate(s *Snapshot, q *queue) {
	s.HeldBackBy = q.heldBackBy(s)
	var delay, running time.Duration
	switch s.State {
	case job.Running:
		running = e.runningFor(s.ID)
	case job.Scheduled:
		delay = max(s.RunAt.Sub(e.store.Now()), 0)
	}
	s.Estimate = q.estimate(s, delay, running)
}

// runningFor returns how long the job's attempt has run; 0 if it runs in another process.
func (e *Engine) runningFor(id job.ID) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if local := e.leases[id]; local != nil {
		return time.Since(local.startedAt)
	}
	return 0
}
