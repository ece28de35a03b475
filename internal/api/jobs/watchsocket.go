package jobs

import (
	"context"
	"errors"
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// maxFollowed is how many jobs one socket may follow. The engine bounds all sockets and
// streams together.
const maxFollowed = 1000

var errFull = job.Errorf(job.TooLarge, "this socket follows %d jobs and takes no more: unwatch one, or open another", maxFollowed)

// session is a socket on which a client follows many jobs. It handles the client's messages
// one by one.
type session struct {
	*stream.Session
	// set once
	api    *API
	caller *gate.Caller // who has opened the socket
}

// watchSocket serves the WebSocket /v1/watch.
func (a *API) watchSocket(w http.ResponseWriter, r *http.Request) error {
	if _, err := parseQuery(r); err != nil {
		return err
	}
	s := &session{api: a, caller: gate.CallerFrom(r)}
	return a.sockets.Serve(w, r, maxMessage, func(socket *stream.Socket) {
		s.Session = stream.NewSession(socket, stream.SessionConfig{MaxJobs: maxFollowed, ErrFull: errFull, AbortMessage: s.abortMessage})
		defer s.caller.OnEnd(socket.Cut)()
		s.run()
	})
}

// run handles messages until the client leaves.
func (s *session) run() {
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
			err = s.handle(m)
		}
		if err != nil && !s.replyError(m.Type, m.ID, err) {
			return
		}
	}
}

// replyError sends the error of a message. It logs an error that is the server's fault.
func (s *session) replyError(of, id string, err error) bool {
	if job.CodeOf(err) == job.Internal && s.Context().Err() == nil {
		s.api.log.Error("a socket's message failed", "type", of, "id", id, "error", err)
	}
	return s.Send(errorReply(of, id, err))
}

// abortMessage encodes the message that ends a watch before its job has ended.
func (s *session) abortMessage(id job.ID, err error) []byte {
	if job.CodeOf(err) == job.Internal && s.Context().Err() == nil {
		s.api.log.Error("a socket's watch failed", "id", id.String(), "error", err)
	}
	return errorReply("watch", id.String(), err)
}

// handle does what a message asks for.
func (s *session) handle(m watchMessage) error {
	c, id, err := s.authorize(m)
	if err != nil {
		return err
	}
	switch m.Type {
	case "watch":
		s.Unfollow(id)
		return s.watch(c, id, m.After)
	case "cancel":
		return s.cancel(c, id)
	default:
		s.Unfollow(id)
		s.Send(encodeReply("unwatched", id, nil))
		return nil
	}
}

// authorize returns the job of a message, and the caller in whose name it is handled: that of the
// message's token, else that of the socket. It refuses what the caller may not do.
func (s *session) authorize(m watchMessage) (*gate.Caller, job.ID, error) {
	id, err := job.ParseID(m.ID)
	if err != nil {
		return nil, id, err
	}
	c := s.caller
	if m.Token != "" {
		if c, err = c.CallerOfToken(m.Token); err != nil {
			return nil, id, err
		}
	}
	if err := errors.Join(c.CheckJob(id), c.Check()); err != nil {
		return nil, id, err
	}
	switch m.Type {
	case "watch":
		err = c.Require(access.Read)
	case "cancel":
		err = c.Require(access.Cancel)
	}
	return c, id, err
}

// watch follows a job after the entry after.
func (s *session) watch(c *gate.Caller, id job.ID, after int64) error {
	read := func() (engine.Snapshot, error) { return s.api.engine.Get(s.Context(), c.View(), id) }
	return s.Follow(id, &encoder{&messageOutput{s, id}, read}, func(ctx context.Context) (*stream.Feed, watch.Update, error) {
		return s.api.follow(ctx, c, id, after)
	})
}

// cancel requests the end of a job and replies with the job. Sessions that follow the job
// get a snapshot as well.
func (s *session) cancel(c *gate.Caller, id job.ID) error {
	snap, err := s.api.engine.Cancel(s.Context(), c.View(), id)
	if err != nil {
		return err
	}
	s.Send(encodeReply("cancel", id, func(b []byte) []byte { return appendJobFor(c, b, &snap.Job, &snap, "") }))
	return nil
}
