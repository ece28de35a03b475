package chat

import (
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	maxMessage  = maxAsk // bytes of a message from a client
	maxFollowed = 32     // tasks that one socket follows
)

var errFull = job.Errorf(job.TooLarge, "this socket follows %d tasks and takes no more: wait for one to end, or open another", maxFollowed)

// session is a socket on which a client asks, watches and cancels. Its messages are
// obeyed one after another.
type session struct {
	*stream.Session
	// set once
	face  *API
	owner job.Owner
	trace string // the traceparent that the socket came with, or ""
}

func (f *API) getSocket(w http.ResponseWriter, r *http.Request) error {
	s := &session{face: f, owner: gate.Owner(r), trace: api.Traceparent(r)}
	return f.sockets.Serve(w, r, maxMessage, func(socket *stream.Socket) {
		s.Session = stream.NewSession(socket, stream.SessionConfig{MaxJobs: maxFollowed, ErrFull: errFull, AbortMessage: s.cut})
		s.read()
	})
}

// read obeys one message after another, until the client leaves.
func (s *session) read() {
	for {
		data, err, ok := s.Read()
		if !ok {
			return
		}
		var in incoming
		if err == nil {
			in, err = parse(data)
		}
		if err == nil {
			err = s.obey(in)
		}
		if err != nil && !s.send(s.refusal(in, err)) {
			return
		}
	}
}

// refusal is the answer to a message that was not obeyed. What is our fault is
// logged.
func (s *session) refusal(in incoming, err error) errorFrame {
	if job.CodeOf(err) == job.Internal && s.Context().Err() == nil {
		s.face.log.Error("a socket's message failed", "type", in.Type, "task", in.TaskID, "error", err)
	}
	return refusal(in, err)
}

// cut is the message that ends a watch before its task, and the answer to one that cannot
// begin.
func (s *session) cut(task job.ID, err error) []byte {
	return encodeFrame(s.refusal(incoming{Type: "watch", TaskID: task.String()}, err))
}

// send writes one message, or drops the client that does not take it in time.
func (s *session) send(frame any) bool { return s.Send(encodeFrame(frame)) }
