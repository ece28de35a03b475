package chat

import (
	"context"
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// TraceFunc traces a question that came over a socket, which has no HTTP request of its own.
// parent is the traceparent (W3C Trace Context) of the request that opened the socket, or "".
// It returns the traceparent for the question's job. The API calls ended once: when the job
// is on disk, or with the error of a refused question and the HTTP status of that error.
type TraceFunc func(ctx context.Context, parent string) (trace string, ended func(task job.ID, status int, err error))

// askTraced asks a question, and traces it where the API has a TraceFunc.
func (s *session) askTraced(q question, key string) (acceptedTask, error) {
	q.trace = s.trace
	if s.api.trace == nil {
		return s.api.ask(s.Context(), s.caller, q, key)
	}
	trace, ended := s.api.trace(s.Context(), s.trace)
	q.trace = trace
	a, err := s.api.ask(s.Context(), s.caller, q, key)
	status := http.StatusAccepted
	if err != nil {
		status = api.ProblemOf(err).Status
	}
	ended(a.ID, status, err)
	return a, err
}
