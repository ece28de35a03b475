package llm

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// form is how a request asks for its answer.
type form struct {
	stream  bool // streamed
	options bool // with stream_options
}

// forms learns which forms a model's server refuses. Some servers do not know stream_options,
// and some models or accounts have no streams.
type forms struct {
	// Until when the server is not asked in that form, in nanoseconds since 1970. It is asked
	// again then, because servers are updated and accounts are verified.
	noStream  atomic.Int64
	noOptions atomic.Int64
	// When it last accepted that form. Then a refusal is about the request: some servers have no
	// streams with tools, or with log probabilities.
	streamAt  atomic.Int64
	optionsAt atomic.Int64
}

// learnedFor is how long a refusal is remembered.
const learnedFor = time.Hour

// form returns the form in which to ask the model's server.
func (m *model) form() form {
	now := time.Now().UnixNano()
	f := form{stream: now >= m.forms.noStream.Load(), options: now >= m.forms.noOptions.Load()}
	if m.Stream != nil {
		f.stream = *m.Stream
	}
	if m.StreamOptions != nil {
		f.options = *m.StreamOptions
	}
	f.options = f.options && f.stream
	return f
}

// simpler returns a form in which a server may accept what it has just refused in the form f. ok
// is false if the refusal is not about the form, or the configuration demands it.
func (m *model) simpler(f form, refused reason) (simpler form, ok bool) {
	switch {
	case f.options && m.StreamOptions == nil && refusesOptions(refused):
		return form{stream: true}, true
	case f.stream && m.Stream == nil && refusesStream(refused):
		return form{}, true
	}
	return f, false
}

// remember records that the server accepts the form now, and did not accept the form before.
func (m *model) remember(before, now form) {
	at := time.Now()
	until, since := at.Add(learnedFor).UnixNano(), at.Add(-learnedFor).UnixNano()
	if before.stream && !now.stream && m.forms.streamAt.Load() < since {
		m.forms.noStream.Store(until)
	}
	if before.options && now.stream && !now.options && m.forms.optionsAt.Load() < since {
		m.forms.noOptions.Store(until)
	}
}

// accepted records that the server accepts the form.
func (m *model) accepted(f form) {
	now := time.Now().UnixNano()
	if f.stream {
		m.forms.streamAt.Store(now)
	}
	if f.options {
		m.forms.optionsAt.Store(now)
	}
}

func refusesOptions(r reason) bool {
	message := strings.ToLower(r.message)
	return strings.HasPrefix(r.param, "stream_options") || strings.Contains(message, "stream_options") ||
		strings.Contains(message, "stream options") || strings.Contains(message, "include_usage")
}

func refusesStream(r reason) bool {
	// "cannot connect to upstream" is not about streams.
	message := strings.NewReplacer("upstream", "", "downstream", "").Replace(strings.ToLower(r.message))
	if r.param == "stream" {
		return true
	}
	if !strings.Contains(message, "stream") {
		return false
	}
	return slices.ContainsFunc([]string{
		"not support", "n't support", "unsupported", "not allowed", "not available", "not enabled", "not implemented", "not permitted",
		"disabled", "must be verified", "must be false", "set to false", "cannot", "can't", "only non-stream",
	}, func(says string) bool { return strings.Contains(message, says) })
}

// isFormRefusal reports whether an error may be about the form of the request: not about the key,
// the account or the load.
func isFormRefusal(err error) bool {
	f, isFault := errors.AsType[*job.Fault](err)
	return isFault && (f.Class == job.Final && f.Code != "upstream_quota_exhausted" && f.Code != "upstream_unauthorized" ||
		f.Code == judgeStatus(http.StatusInternalServerError).code())
}
