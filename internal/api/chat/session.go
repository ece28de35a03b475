package chat

import (
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	maxMessage  = maxQuestionBody // bytes of a client's message
	maxFollowed = 32              // tasks that one socket may follow
)

var errFull = job.Errorf(job.TooLarge, "this socket follows %d tasks and takes no more: wait for one to end, or open another", maxFollowed)

// session is a socket on which a client asks, watches and cancels. It handles the client's
// messages one by one.
type session struct {
	*stream.Session
	// set once
	api     *API
	trace   string // the traceparent of the request that opened the socket, or ""
	renewed func() // follows the key of a new caller

	// caller has opened the socket, or has renewed its token since. It is always of the same owner.
	// Only the goroutine that reads the socket uses it.
	caller *gate.Caller
}

func (a *API) getSocket(w http.ResponseWriter, r *http.Request) error {
	s := &session{api: a, caller: gate.CallerFrom(r), trace: api.Traceparent(r)}
	return a.sockets.Serve(w, r, maxMessage, func(socket *stream.Socket) {
		s.Session = stream.NewSession(socket, stream.SessionConfig{MaxJobs: maxFollowed, ErrFull: errFull, AbortMessage: s.abortMessage})
		release := s.caller.OnEnd(socket.Cut)
		defer func() { release() }()
		s.renewed = func() { release(); release = s.caller.OnEnd(socket.Cut) }
		s.run()
	})
}

// run handles messages until the client leaves.
func (s *session) run() {
	for {
		data, err, ok := s.Read()
		if !ok {
			return
		}
		var in clientMessage
		if err == nil {
			in, err = parseMessage(data)
		}
		if err == nil {
			err = s.handle(in)
		}
		if err != nil && !s.send(s.errorFrame(in, err)) {
			return
		}
	}
}

// renew replaces the token of the socket by another one of the same user, so that a socket may
// live as long as its page.
func (s *session) renew(token string) error {
	renewed, err := s.caller.CallerOfToken(token)
	if err != nil {
		return err
	}
	_, hadToken := s.caller.Grant()
	if g, _ := renewed.Grant(); !hadToken || !g.IsUser() || g.Owner != s.caller.Owner() {
		return job.Errorf(job.Forbidden, "a socket takes another token of the user for whom it was opened with a token")
	}
	s.caller = renewed
	s.renewed()
	return nil
}

// errorFrame returns the reply to a message that was refused. It logs an error that is the
// server's fault.
func (s *session) errorFrame(in clientMessage, err error) errorFrame {
	if job.CodeOf(err) == job.Internal && s.Context().Err() == nil {
		s.api.log.Error("a socket's message failed", "type", in.Type, "task", in.TaskID, "error", err)
	}
	return newErrorFrame(in, err)
}

// abortMessage encodes the message that ends a watch before its task has ended, or that
// refuses a watch.
func (s *session) abortMessage(task job.ID, err error) []byte {
	return encodeFrame(s.errorFrame(clientMessage{Type: "watch", TaskID: task.String()}, err))
}

// send sends one message. It disconnects a client that does not accept it in time.
func (s *session) send(frame any) bool { return s.Send(encodeFrame(frame)) }
