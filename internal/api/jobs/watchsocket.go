package jobs

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// mostWatched is how many jobs one socket follows. All sockets and streams together
// are bounded by the engine.
const mostWatched = 1000

// session is a socket on which a client follows many jobs. The goroutine that reads
// it obeys its messages, one after another; each followed job has a goroutine of its
// own. Leaving ends them all, and nothing of the jobs.
type session struct {
	*stream.Socket
	// set once
	face   *Face
	owner  job.Owner
	bearer *gate.Grant // what the socket's own token grants; nil where it came without one

	mu       sync.Mutex
	followed map[job.ID]*followed // guarded by mu
}

// followed is a job that a session follows.
type followed struct {
	// set once
	id    job.ID
	watch Watcher
	stop  context.CancelFunc
	gone  chan struct{} // closed by its goroutine, which says nothing more

	over bool // the watch is closed; guarded by the session's mu
}

// watchSocket is WS /v1/watch.
func (f *Face) watchSocket(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	s := &session{face: f, owner: gate.Owner(r), followed: map[job.ID]*followed{}}
	if g, ok := gate.GrantOf(r); ok {
		s.bearer = &g
	}
	return f.sockets.Serve(w, r, maxMessage, func(socket *stream.Socket) {
		s.Socket = socket
		s.read()
	})
}

// read obeys one message after another, until the client leaves.
func (s *session) read() {
	for {
		text, err, ok := s.Read()
		if !ok {
			return
		}
		var m watchMessage
		if err == nil {
			m, err = parseMessage(text)
		}
		if err == nil {
			err = s.obey(m)
		}
		if err != nil && !s.refuse(m.Type, m.ID, err) {
			return
		}
	}
}

// refuse answers a message that was not obeyed, or ends a watch. What is our fault is
// logged.
func (s *session) refuse(of, id string, err error) bool {
	if job.CodeOf(err) == job.Internal && s.Context().Err() == nil {
		s.face.log.Error("a socket's message failed", "type", of, "id", id, "error", err)
	}
	return s.Send(refusal(of, id, err))
}

func (s *session) obey(m watchMessage) error {
	owner, id, err := s.grant(m)
	if err != nil {
		return err
	}
	switch m.Type {
	case "watch":
		s.unwatch(id)
		return s.watch(owner, id, m.After)
	case "cancel":
		return s.cancel(owner, id)
	default:
		s.unwatch(id)
		s.Send(answer("unwatched", id, nil))
		return nil
	}
}

// grant says in whose name a message asks, if it may: by its own token, by the
// socket's, or as the socket's owner.
func (s *session) grant(m watchMessage) (job.Owner, job.ID, error) {
	id, err := job.ParseID(m.ID)
	if err != nil {
		return job.Owner{}, id, err
	}
	g := s.bearer
	if m.Token != "" {
		own, err := s.face.gate.OpenToken(m.Token)
		if err != nil {
			return job.Owner{}, id, err
		}
		g = &own
	}
	if g == nil {
		return s.owner, id, nil
	}
	var right gate.Rights
	if m.Type == "cancel" {
		right = gate.MayCancel
	}
	if err := errors.Join(g.Of(id), g.Current()); err != nil {
		return job.Owner{}, id, err
	}
	return g.Owner, id, g.May(right)
}

// watch follows a job from behind an entry. Only the reader calls it, and it waits
// for the first look at the job, so that a client gets as many looks as it has
// answers read.
func (s *session) watch(owner job.Owner, id job.ID, after int64) error {
	if err := s.room(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(s.Context())
	watch, err := s.face.engine.Watch(ctx, owner, id, after)
	if err != nil {
		stop()
		return err
	}
	first, err := watch.Next(ctx)
	if err == nil {
		err = pastEnd(after, first.Job)
	}
	if err != nil {
		watch.Close()
		stop()
		return err
	}
	w := &followed{id, watch, stop, make(chan struct{}), false}
	s.mu.Lock()
	s.followed[id] = w
	s.mu.Unlock()
	tale := story{
		out: &frames{session: s, id: id}, cursor: after,
		full: func() (engine.Snapshot, error) { return s.face.engine.Get(ctx, owner, id) },
		last: func(tell func() error) error { return s.last(w, tell) },
	}
	s.Go(func() {
		defer close(w.gone)
		defer stop()
		s.end(ctx, w, tale.follow(ctx, watch, first))
	})
	return nil
}

// last lets go of a job and tells the last of it, in one step: whoever has heard that
// may follow another in its place, and whoever finds the job here hears it first.
func (s *session) last(w *followed, tell func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !w.over {
		w.over = true
		w.watch.Close()
		delete(s.followed, w.id)
	}
	return tell()
}

// end lets go of a job, and says why it is not followed any more where that is not
// its end.
func (s *session) end(ctx context.Context, w *followed, err error) {
	_ = s.last(w, func() error {
		if err != nil && !errors.Is(err, errGone) && ctx.Err() == nil {
			s.refuse("watch", w.id.String(), err)
		}
		return nil
	})
}

// room refuses one job too many.
func (s *session) room() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.followed) >= mostWatched {
		return job.Errorf(job.TooLarge, "this socket follows %d jobs and takes no more: unwatch one, or open another", mostWatched)
	}
	return nil
}

// unwatch lets go of a job, if it is followed, and returns when nothing more is said
// of it.
func (s *session) unwatch(id job.ID) {
	s.mu.Lock()
	w := s.followed[id]
	s.mu.Unlock()
	if w != nil {
		w.stop()
		<-w.gone
	}
}

// cancel asks for a job's end, and answers with the job as that left it. Whoever
// follows it hears of it there too.
func (s *session) cancel(owner job.Owner, id job.ID) error {
	snap, err := s.face.engine.Cancel(s.Context(), owner, id)
	if err != nil {
		return err
	}
	s.Send(answer("cancel", id, func(b []byte) []byte { return appendJob(b, &snap.Job, &snap, "") }))
	return nil
}
