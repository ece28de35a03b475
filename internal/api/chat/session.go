package chat

import (
	"net/http"
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	maxMessage = maxAsk // bytes of a message from a client
	maxWatches = 32     // tasks that one socket follows
)

// session is what one socket's client is told: it asks, watches and cancels. Each
// watch has a goroutine of its own. Leaving ends them all, and nothing of the tasks.
type session struct {
	*stream.Socket
	// set once
	face  *Face
	owner job.Owner
	trace string // the traceparent that the socket came with, or ""

	mu      sync.Mutex
	watches map[job.ID]*watch // guarded by mu
}

func (f *Face) getSocket(w http.ResponseWriter, r *http.Request) error {
	owner, trace := gate.Owner(r), api.Traceparent(r)
	return f.sockets.Serve(w, r, maxMessage, func(socket *stream.Socket) {
		s := &session{Socket: socket, face: f, owner: owner, trace: trace, watches: map[job.ID]*watch{}}
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

// send writes one message, or drops the client that does not take it in time.
func (s *session) send(frame any) bool { return s.Send(encodeFrame(frame)) }
