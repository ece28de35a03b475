package jobs

import (
	"context"
	"errors"
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// maxFollowed is how many jobs one socket follows. All sockets and streams together
// are bounded by the engine.
const maxFollowed = 1000

var errFull = job.Errorf(job.TooLarge, "this socket follows %d jobs and takes no more: unwatch one, or open another", maxFollowed)

// session is a socket on which a client follows many jobs. Its messages are obeyed one
// after another.
type session struct {
	*stream.Session
	// set once
	face   *API
	owner  job.Owner
	bearer *gate.Grant // what the socket's own token grants; nil where it came without one
}

// watchSocket is WS /v1/watch.
func (f *API) watchSocket(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	s := &session{face: f, owner: gate.Owner(r)}
	if g, ok := gate.GrantOf(r); ok {
		s.bearer = &g
	}
	return f.sockets.Serve(w, r, maxMessage, func(socket *stream.Socket) {
		s.Session = stream.NewSession(socket, stream.SessionConfig{MaxJobs: maxFollowed, ErrFull: errFull, AbortMessage: s.cut})
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

// refuse answers a message that was not obeyed. What is our fault is logged.
func (s *session) refuse(of, id string, err error) bool {
	if job.CodeOf(err) == job.Internal && s.Context().Err() == nil {
		s.face.log.Error("a socket's message failed", "type", of, "id", id, "error", err)
	}
	return s.Send(refusal(of, id, err))
}

// cut is the message that ends a watch before its job.
func (s *session) cut(id job.ID, err error) []byte {
	if job.CodeOf(err) == job.Internal && s.Context().Err() == nil {
		s.face.log.Error("a socket's watch failed", "id", id.String(), "error", err)
	}
	return refusal("watch", id.String(), err)
}

func (s *session) obey(m watchMessage) error {
	owner, id, err := s.grant(m)
	if err != nil {
		return err
	}
	switch m.Type {
	case "watch":
		s.Unfollow(id)
		return s.watch(owner, id, m.After)
	case "cancel":
		return s.cancel(owner, id)
	default:
		s.Unfollow(id)
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
	if err := errors.Join(g.CheckJob(id), g.CheckExpiry()); err != nil {
		return job.Owner{}, id, err
	}
	return g.Owner, id, g.CheckRights(right)
}

// watch follows a job from behind an entry.
func (s *session) watch(owner job.Owner, id job.ID, after int64) error {
	full := func() (engine.Snapshot, error) { return s.face.engine.Get(s.Context(), owner, id) }
	return s.Follow(id, &encoder{&messages{s, id}, full}, func(ctx context.Context) (*stream.Feed, watch.Update, error) {
		return s.face.follow(ctx, owner, id, after)
	})
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
