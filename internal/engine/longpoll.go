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

// Wait returns the job once it has ended, or after wait. If ctx ends first, it returns ctx's
// error. Above the limit of watchers it returns [job.Overloaded].
func (e *Engine) Wait(ctx context.Context, owner job.Owner, id job.ID, wait time.Duration) (Snapshot, error) {
	sub, err := e.subscribe(owner, id)
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

// Output returns the entries after the given number. Without such entries it waits until one
// arrives, the job changes or ends, or wait is over. A wait of 0 returns at once.
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

// subscribe subscribes to a job's events, unless the limit of watchers is reached. An owner has
// at most three times as many watchers as are free, which is three quarters for one owner alone.
// So no owner takes the watchers of all others.
func (e *Engine) subscribe(owner job.Owner, id job.ID) (*watch.Subscription, error) {
	// Count this watcher before the check, so that concurrent calls cannot exceed the limit.
	sub := e.hub.Subscribe(owner, id)
	free := e.maxWatchers - (e.hub.Watchers() - 1)
	var refusal string
	switch { // with half of all free, no owner can have three times as many
	case free < 1:
		refusal = fmt.Sprintf("the server has %d watchers and accepts no more", e.maxWatchers)
	case free < e.maxWatchers/2 && e.hub.WatchersOf(owner) > 3*free:
		refusal = fmt.Sprintf("few of the server's %d watchers are free, and they are for other users", e.maxWatchers)
	default:
		return sub, nil
	}
	sub.Close()
	return nil, &job.Error{Code: job.Overloaded, Message: refusal, RetryAfter: 10 * time.Second}
}

// awaitEnd waits until the subscribed job has ended or wait is over, and closes the
// subscription.
func (e *Engine) awaitEnd(ctx context.Context, sub *watch.Subscription, j job.Job, wait time.Duration) (Snapshot, error) {
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
		events, reread := sub.Take()
		for _, ev := range events {
			if ev.Job != nil && ev.Job.State.Ended() && ev.Job.Revision > j.Revision {
				return e.snapshot(ctx, ev.Job, ev.Result)
			}
			reread = reread || ev.Job != nil && ev.Job.State == 0 // the event has no job: read it
		}
		if !reread {
			continue
		}
		current, err := e.store.Job(ctx, j.Owner, j.ID)
		if err != nil {
			return Snapshot{}, err
		}
		if current.State.Ended() {
			return e.snapshot(ctx, &current, nil)
		}
		j = current
	}
}
