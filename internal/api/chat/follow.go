package chat

import (
	"context"
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Follow is told of a question that came over a socket, where no request of its own
// tells of it. parent is the traceparent (W3C Trace Context) of the request that the
// socket was opened by, or ""; trace is what the question's job is a child of. ended is
// called when the job is on disk, or with why the question was refused and the status
// that HTTP has for that.
type TraceFunc func(ctx context.Context, parent string) (trace string, ended func(task job.ID, status int, err error))

// askFollowed asks a question, with someone to follow it where there is anyone.
func (s *session) askFollowed(q question, key string) (asked, error) {
	q.trace = s.trace
	if s.face.follow == nil {
		return s.face.ask(s.Context(), s.owner, q, key)
	}
	trace, ended := s.face.follow(s.Context(), s.trace)
	q.trace = trace
	a, err := s.face.ask(s.Context(), s.owner, q, key)
	status := http.StatusAccepted
	if err != nil {
		status = api.ProblemOf(err).Status
	}
	ended(a.ID, status, err)
	return a, err
}
