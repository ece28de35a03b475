package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

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

func (q *queue) queued() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.counts.Queued
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

// Wait is Get, held until the job has ended or the wait is over. When ctx is over
// first, its error says so. [job.Overloaded] past the bound of watchers.
func (e *Engine) Wait(ctx context.Context, owner job.Owner, id job.ID, wait time.Duration) (Snapshot, error) {
	sub, err := e.subscribe(id)
	if err != nil {
		return Snapshot{}, err
	}
	j, err := e.store.Job(ctx, owner, id)
	if err != nil {
		sub.Close()
		return Snapshot{}, err
	}
	return e.awaitEnd(ctx, sub, j, wait)
}

// subscribe follows a job, if there is room for one more watcher.
func (e *Engine) subscribe(id job.ID) (*watch.Sub, error) {
	// Counted in before it is judged: of many that come at once no more stay than may.
	sub := e.hub.Subscribe(id)
	if e.hub.Watchers() > e.maxWatchers {
		sub.Close()
		return nil, &job.Error{
			Code:       job.Overloaded,
			Message:    fmt.Sprintf("the server has all the %d watchers that it may", e.maxWatchers),
			RetryAfter: 10 * time.Second,
		}
	}
	return sub, nil
}

// await holds until the subscribed job has ended, and closes the subscription.
func (e *Engine) awaitEnd(ctx context.Context, sub *watch.Sub, j job.Job, wait time.Duration) (Snapshot, error) {
	defer sub.Close()
	e.presence.addWatcher(&j)
	e.peers.follow(&j)
	defer e.peers.unfollow(j.ID)
	defer e.presence.removeWatcher(&j)
	if j.State.Ended() || wait <= 0 {
		return e.snapshot(ctx, &j, nil)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-sub.Ready:
		case <-timer.C:
			return e.Get(ctx, j.Owner, j.ID)
		case <-ctx.Done():
			return Snapshot{}, ctx.Err()
		}
		events, look := sub.Take()
		for _, ev := range events {
			if ev.Job != nil && ev.Job.State.Ended() && ev.Job.Revision > j.Revision {
				return e.ended(ctx, *ev.Job, ev.Result, nil)
			}
			look = look || ev.Job != nil && ev.Job.State == 0 // only the store knows
		}
		if !look {
			continue
		}
		now, err := e.store.Job(ctx, j.Owner, j.ID)
		if err != nil || now.State.Ended() {
			return e.ended(ctx, now, nil, err)
		}
		j = now
	}
}

func (e *Engine) ended(ctx context.Context, j job.Job, r *job.Result, err error) (Snapshot, error) {
	if err != nil {
		return Snapshot{}, err
	}
	return e.snapshot(ctx, &j, r)
}

// List returns a page of the owner's jobs, newest first.
func (e *Engine) List(ctx context.Context, f job.Filter) (page []job.Job, next job.ID, err error) {
	return e.store.List(ctx, f)
}

// Result returns what a job came to: [job.NotFinished] before it has succeeded.
func (e *Engine) Result(ctx context.Context, owner job.Owner, id job.ID) (job.Result, error) {
	return e.store.Result(ctx, owner, id)
}

// Output returns the entries after a number, held until there is one, or the job
// has changed or ended, or the wait is over. A wait of 0 answers at once.
func (e *Engine) Output(ctx context.Context, owner job.Owner, id job.ID, after int64, wait time.Duration) (Update, error) {
	w, err := e.Watch(ctx, owner, id, after)
	if err != nil {
		return Update{}, err
	}
	defer w.Close()
	first, err := w.Next(ctx)
	if err != nil || len(first.Entries) > 0 || first.Job.State.Ended() || wait <= 0 || after > first.Job.Cursor {
		return first, err
	}
	waiting, stop := context.WithTimeout(ctx, wait)
	defer stop()
	next, err := w.Next(waiting)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil || errors.Is(err, io.EOF) {
		return first, nil
	}
	return next, err
}

// Queues returns every queue, by name.
func (e *Engine) Queues(ctx context.Context) ([]QueueView, error) {
	views := make([]QueueView, 0, len(e.names))
	for _, name := range e.names {
		v, err := e.queueView(ctx, name)
		if err != nil {
			return nil, err
		}
		views = append(views, v)
	}
	return views, nil
}

func (e *Engine) queueView(ctx context.Context, name string) (QueueView, error) {
	v := e.queues[name].view()
	if v.Counts.Queued+v.Counts.Parked == 0 {
		return v, nil
	}
	since, err := e.store.OldestQueued(ctx, name)
	if !since.IsZero() {
		v.OldestQueued = max(e.store.Now().Sub(since), 0)
	}
	return v, err
}

func (q *queue) view() QueueView {
	q.mu.Lock()
	defer q.mu.Unlock()
	v := QueueView{Queue: q.Queue, Counts: q.counts}
	v.HeldBackBy = q.holdReasonLocked(0)
	v.Wait, v.Run = q.estimateNewLocked(time.Now())
	return v
}
