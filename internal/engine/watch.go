package engine

import (
	"context"
	"io"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// pageBytes is how many bytes of a log are read at once for a watcher that is behind.
const pageBytes = 256 << 10

// Update is a change of a watched job.
type Update = watch.Update

// Watch is one watcher of one job. One goroutine uses it.
type Watch struct {
	e      *Engine
	sub    *watch.Subscription
	job    job.Job // as last given to the watcher
	cursor int64   // the last entry given to the watcher
	behind bool    // the log must be read: nothing was read yet, or events were missed
}

// Watch follows a job from a cursor. Close it when done. Above the limit of watchers it returns
// [job.Overloaded].
func (e *Engine) Watch(ctx context.Context, owner job.Owner, id job.ID, after int64) (*Watch, error) {
	// Subscribe before the read, so that no later commit is missed.
	sub, err := e.subscribe(owner, id)
	if err != nil {
		return nil, err
	}
	w := &Watch{e: e, sub: sub, cursor: after, behind: true}
	j, err := e.store.Job(ctx, owner, id)
	if err != nil {
		w.sub.Close()
		return nil, err
	}
	w.job = j
	e.presence.addWatcher(&w.job)
	e.peers.follow(&w.job)
	return w, nil
}

// Next returns the next change. The first call returns at once, with the job and the entries
// after the cursor; later calls wait. After an update with an ended job and all its entries,
// Next returns io.EOF. If the job is deleted, it returns [job.NotFound].
func (w *Watch) Next(ctx context.Context) (Update, error) {
	for {
		if w.behind {
			return w.read(ctx)
		}
		if w.job.State.Ended() && w.cursor >= w.job.Cursor {
			return Update{}, io.EOF
		}
		select {
		case <-w.sub.Ready:
		case <-ctx.Done():
			return Update{}, ctx.Err()
		}
		if u, changed := w.take(); changed {
			return u, nil
		}
	}
}

// Close ends the watch.
func (w *Watch) Close() {
	w.sub.Close()
	w.e.presence.removeWatcher(&w.job)
	w.e.peers.unfollow(w.job.ID)
}

// read reads a page of the log.
func (w *Watch) read(ctx context.Context) (Update, error) {
	j, entries, err := w.e.store.Output(ctx, w.job.Owner, w.job.ID, w.cursor, pageBytes)
	if err != nil {
		return Update{}, err
	}
	w.job = j
	if len(entries) > 0 {
		w.cursor = entries[len(entries)-1].Seq
	}
	w.behind = w.cursor < j.Cursor
	return Update{Job: &w.job, Entries: entries}, nil
}

// take joins the events since the last update into one update. It ignores events that were
// already read from the log. If events are missing in between, the log must be read.
func (w *Watch) take() (u Update, changed bool) {
	events, missed := w.sub.Take()
	w.behind = w.behind || missed
	for _, ev := range events {
		if w.behind { // the log has the rest
			break
		}
		changed = w.apply(&u, ev) || changed
	}
	u.Job = &w.job
	return u, changed && !w.behind || len(u.Entries) > 0
}

// apply adds an event to an update, and reports whether the event was new.
func (w *Watch) apply(u *Update, ev watch.Event) (changed bool) {
	for _, entry := range ev.Entries {
		switch {
		case entry.Seq <= w.cursor: // was already read from the log
			continue
		case entry.Seq > w.cursor+1: // entries are missing
			w.behind = true
			return changed
		}
		w.cursor = entry.Seq
		w.job.Cursor = max(w.job.Cursor, entry.Seq)
		u.Entries = append(u.Entries, entry)
		changed = true
	}
	if ev.Progress != nil && ev.Job == nil && changed {
		w.job.Progress = *ev.Progress
	}
	switch {
	case ev.Job != nil:
		return w.applyJob(ev.Job) || changed
	case ev.State != 0:
		return w.applyState(ev.State, ev.Revision) || changed
	}
	return changed
}

// applyJob sets the job after a change, and reports whether the change was new. It ignores a
// change that was already read from the log, by its revision.
func (w *Watch) applyJob(j *job.Job) (changed bool) {
	switch {
	case j.State == 0:
		w.behind = true // only the store has the change
	case j.Revision <= w.job.Revision:
	case j.Cursor > w.cursor:
		w.behind = true // entries before the change are missing
	default:
		w.job = *j
		return true
	}
	return false
}

// applyState sets the state after a change of the state alone, and reports whether the change
// was new. The watcher must have the revision just before the change.
func (w *Watch) applyState(to job.State, revision int64) (changed bool) {
	switch {
	case revision <= w.job.Revision:
	case revision > w.job.Revision+1: // changes are missing
		w.behind = true
	default:
		w.job.State, w.job.Revision = to, revision
		return true
	}
	return false
}
