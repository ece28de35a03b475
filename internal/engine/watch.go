package engine

import (
	"context"
	"io"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// pageBytes is how much of a log is read at once for a watcher that is behind.
const pageBytes = 256 << 10

// Update is what a watcher is told next.
type Update = watch.Update

// Watch is one watcher of one job. It is used by one goroutine.
type Watch struct {
	e      *Engine
	sub    *watch.Subscription
	job    job.Job // as the watcher knows it
	cursor int64   // the last entry that the watcher was given
	behind bool    // the log is to be read: nothing was, or something was missed
}

// Watch follows a job from a cursor. Close it when done. [job.Overloaded] past the
// bound of watchers.
func (e *Engine) Watch(ctx context.Context, owner job.Owner, id job.ID, after int64) (*Watch, error) {
	// Subscribed first: what is committed after the read is not missed.
	sub, err := e.subscribe(id)
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

// Next returns at once with the job and the entries after the cursor the first
// time; from then on when there is something new. After an update whose job has
// ended and whose entries reach the job's cursor, it returns io.EOF. A job that is
// deleted meanwhile is [job.NotFound].
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
		if u, news := w.take(); news {
			return u, nil
		}
	}
}

// Close lets go of the job.
func (w *Watch) Close() {
	w.sub.Close()
	w.e.presence.removeWatcher(&w.job)
	w.e.peers.unfollow(w.job.ID)
}

// read catches up from the log, a page at a time.
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

// take joins the events since the last update into one. No news are those that
// the log had told already; where they do not follow, the log is read.
func (w *Watch) take() (u Update, news bool) {
	events, missed := w.sub.Take()
	w.behind = w.behind || missed
	for _, ev := range events {
		if w.behind {
			break
		}
		news = w.apply(&u, ev) || news
	}
	u.Job = &w.job
	return u, news && !w.behind || len(u.Entries) > 0
}

// apply adds an event to an update, and says whether it was news.
func (w *Watch) apply(u *Update, ev watch.Event) (news bool) {
	for _, entry := range ev.Entries {
		switch {
		case entry.Seq <= w.cursor:
			continue
		case entry.Seq > w.cursor+1:
			w.behind = true
			return news
		}
		w.cursor = entry.Seq
		w.job.Cursor = max(w.job.Cursor, entry.Seq)
		u.Entries = append(u.Entries, entry)
		news = true
	}
	if ev.Progress != nil && ev.Job == nil && news {
		w.job.Progress = *ev.Progress
	}
	switch {
	case ev.Job != nil:
		return w.applyJob(ev.Job) || news
	case ev.State != 0:
		return w.applyState(ev.State, ev.Revision) || news
	}
	return news
}

// change takes over the job after a change, and says whether it was news. What the
// watcher knew already, because it has read the job since, has no higher revision.
func (w *Watch) applyJob(j *job.Job) (news bool) {
	switch {
	case j.State == 0:
		w.behind = true // only the store knows
	case j.Revision <= w.job.Revision:
	case j.Cursor > w.cursor:
		w.behind = true // ahead of what was seen
	default:
		w.job = *j
		return true
	}
	return false
}

// move is change where nothing but the state has changed. It can be applied to the
// job as it was just before only.
func (w *Watch) applyState(to job.State, revision int64) (news bool) {
	switch {
	case revision <= w.job.Revision:
	case revision > w.job.Revision+1:
		w.behind = true
	default:
		w.job.State, w.job.Revision = to, revision
		return true
	}
	return false
}
