package llm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// model is a model with what is shared by its calls.
type model struct {
	Model
	url     *url.URL
	headers http.Header // of every call
	client  *http.Client
	slots   chan struct{} // one element per running call; nil without a limit

	breaker *breaker
	gate    *gate
	begun   atomic.Int64 // calls that passed the slots, the gate and the circuit breaker
	counted atomic.Int64 // those of them whose jobs the engine counts
	changed func()       // tells the engine that more calls may begin

	// What was learned from the server's answers.
	givesReasons atomic.Bool // its streams have finish reasons
	forms        forms
}

func newModel(m Model, c Config) (*model, error) {
	if m.Name == "" {
		return nil, errors.New("it has no name")
	}
	if m.Upstream == "" {
		m.Upstream = m.Name
	}
	if m.Transport == nil {
		m.Transport = c.Transport
	}
	at, err := endpoint(m.BaseURL, m.Query)
	if err != nil {
		return nil, err
	}
	ready := &model{Model: m, url: at, breaker: newBreaker(m.Name, c.Log), gate: newGate()}
	ready.Secrets = slices.Concat(m.Secrets, secretsOf(at.Query()))
	if ready.headers, err = m.callHeaders(); err != nil {
		return nil, err
	}
	// Do not follow redirects, because one could send the API key to another host.
	ready.client = &http.Client{Transport: m.Transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	if m.Concurrency > 0 {
		ready.slots = make(chan struct{}, m.Concurrency)
	}
	return ready, nil
}

// secretsOf returns the values of a URL's query that are secrets by their names.
func secretsOf(query url.Values) (secrets []string) {
	for name, values := range query {
		if secretName.MatchString(name) {
			secrets = append(secrets, values...)
		}
	}
	return secrets
}

var headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// callHeaders returns the headers of every call.
func (m *Model) callHeaders() (http.Header, error) {
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("Accept", "text/event-stream, application/json")
	h.Set("User-Agent", "meanwhile")
	if m.APIKey != "" {
		h.Set("Authorization", "Bearer "+m.APIKey)
	}
	for name, value := range m.Headers {
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case !headerName.MatchString(name) || !isHeaderValue(value):
			return nil, fmt.Errorf("the header %s cannot be sent", job.Quote(name))
		case slices.Contains([]string{"Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Te", "Trailer", "Accept-Encoding"}, canonical):
			return nil, fmt.Errorf("the header %s belongs to the connection and cannot be set", job.Quote(name))
		}
		h.Set(name, value)
	}
	return h, nil
}

func isHeaderValue(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// limit returns how many attempts may be under way in this process, those included that are, and
// when more may: zero if that depends on other attempts. Jobs that an older version stored have no
// resource, and the engine does not count them: their calls are not included.
func (m *model) limit(now time.Time) (n int, at time.Time) {
	counted := int(m.counted.Load())
	more, at := m.gate.available(now)
	probes, probeAt, open := m.breaker.available(now)
	if open && probes < more {
		more, at = probes, probeAt
	}
	n = counted + more
	if m.Concurrency > 0 && m.Concurrency < n {
		n, at = m.Concurrency, time.Time{}
	}
	return n, at
}

// acquireSlot waits for a free slot of the model. It resets the attempt's timeouts each second,
// so that the wait counts for none of them.
func (m *model) acquireSlot(ctx context.Context, out exec.Sink) error {
	if m.slots == nil {
		return nil
	}
	select {
	case m.slots <- struct{}{}:
		return nil
	default:
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case m.slots <- struct{}{}:
			out.ResetTimeouts()
			return nil
		case <-tick.C:
			out.ResetTimeouts()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (m *model) releaseSlot() {
	if m.slots != nil {
		<-m.slots
	}
}

// passGate waits until the gate lets a call begin. A job that the engine admitted does not wait,
// because it would hold a slot of its queue: it goes back to the queue.
func (m *model) passGate(ctx context.Context, t *exec.Task, out exec.Sink) (*pass, error) {
	for waited := false; ; waited = true {
		now := time.Now()
		p, at, changed := m.gate.begin(t.Job.ID, now)
		switch {
		case p != nil && waited:
			out.ResetTimeouts() // the wait counts for no timeout
			return p, nil
		case p != nil:
			return p, nil
		case t.Job.Resource == m.Name:
			return nil, exec.ErrNoRoom
		}
		wait := time.Second
		if !at.IsZero() {
			wait = min(wait, at.Sub(now))
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
			out.ResetTimeouts()
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
		timer.Stop()
	}
}
