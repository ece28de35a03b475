// Package llm is the executor that calls a language model, on any server that speaks OpenAI's
// chat-completions API.
//
// A job's input is the body of a chat-completions request. It is forwarded unchanged, including
// unknown fields, with three exceptions: "model" is filled in or translated, and "stream" and
// "stream_options" are set, because the executor requests a stream unless the server has none.
// The result is the completion object, rebuilt from the stream.
//
// The job's log contains everything that is needed to stream the answer again. The text of the
// first choice is written as text. What else a chunk adds (a tool call, reasoning, log
// probabilities, another choice, members that the executor does not know) is written as an event,
// before the text of the same chunk. The event has the form of a chunk, without its wrapping and
// without that text: {"choices":[{"index":0,"delta":{"reasoning":"hm"}}]}. Each tool call in it has
// an index, whatever the server wrote. Pieces of one string that arrive together are one event.
// Role, finish reason, id and usage are in the result.
//
// The files follow a call: llm.go (configuration), model.go, url.go and transport.go (models and
// the way to them), request.go and form.go (the request), resources.go, gate.go and budget.go (the
// line in front of a model), breaker.go (the circuit breaker), call.go (one call), sse.go (events),
// chunk.go and plainchunk.go (chunks), tree.go and shape.go (JSON), completion.go and merge.go (the
// rebuilt completion), output.go (the log), fault.go (errors and their consequences), reason.go
// (what a server says about an error), verdict.go (what that means), wait.go (how long to wait).
//
// The runner enforces the timeouts of the attempt and of its output. This package enforces only
// [job.Timeouts.Request]: how long the server may take to begin a streamed answer, or to
// complete an answer that is not streamed.
package llm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Config configures an executor.
type Config struct {
	Models []Model // at least one
	// Default is the name of the model for jobs that name none; "" means the first model.
	Default string
	// Transport makes the calls to models without their own transport; nil means one with limits
	// on dialling, idle connections and headers.
	Transport http.RoundTripper
	// OnCall is called for every call to a model; nil for no hook.
	OnCall CallHook
	Log    *slog.Logger // nil discards
}

// Model is a model and the server that runs it.
type Model struct {
	Name        string            // the name that jobs use
	Upstream    string            // the name that its server uses; "" for Name
	BaseURL     string            // http or https, with or without the path "/chat/completions"
	Query       map[string]string // added to the URL of every call
	Headers     map[string]string // sent with every call; they replace those of the executor
	Secrets     []string          // further values that must not appear in a message, such as those of Headers
	APIKey      string            // sent as a bearer token, to this server only; "" for none
	APIKeyEnv   string            // the variable that contained the key, for error messages
	Concurrency int               // maximum number of calls at once; further calls wait; 0 for no limit
	Transport   http.RoundTripper // nil for Config.Transport

	// Whether to ask for streamed answers, and whether to send stream_options; nil learns it from
	// the server's refusals.
	Stream        *bool
	StreamOptions *bool
}

// Executor calls models. Many queues may share it; then its models' concurrency limits apply to
// all of them together.
type Executor struct {
	// set once
	models       map[string]*model
	names        []string // in the order of the configuration
	defaultModel *model   // for jobs that name none
	onCall       CallHook // nil for no hook
	close        func()   // closes the idle connections of the executor's own transport
	resources    *resources
}

// New makes an executor. It returns an error if the configuration is invalid.
func New(c Config) (*Executor, error) {
	e := &Executor{models: make(map[string]*model), onCall: c.OnCall, close: func() {}}
	if c.Transport == nil {
		own := newTransport()
		c.Transport, e.close = own, own.CloseIdleConnections
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	for _, m := range c.Models {
		ready, err := newModel(m, c)
		if err != nil {
			return nil, fmt.Errorf("the model %s: %w", job.Quote(m.Name), err)
		}
		if e.models[m.Name] != nil {
			return nil, fmt.Errorf("the model %s is there twice", job.Quote(m.Name))
		}
		e.models[m.Name] = ready
		e.names = append(e.names, m.Name)
	}
	if len(e.names) == 0 {
		return nil, errors.New("there is no model")
	}
	e.resources = &resources{models: e.models}
	for _, m := range e.models {
		m.changed = e.resources.changed
	}
	if c.Default == "" {
		c.Default = e.names[0]
	}
	return e.WithDefault(c.Default)
}

// WithDefault returns an executor with another model for jobs that name none. Both executors
// share the models and their limits.
func (e *Executor) WithDefault(name string) (*Executor, error) {
	m := e.models[name]
	if m == nil {
		return nil, fmt.Errorf("there is no model %s to be the default: there are %s", job.Quote(name), strings.Join(e.names, ", "))
	}
	other := *e
	other.defaultModel = m
	return &other, nil
}

// Close closes idle connections. No attempt may be running.
func (e *Executor) Close() {
	e.resources.close()
	e.close()
}

// Kind is "llm".
func (e *Executor) Kind() string { return "llm" }

// TakesFiles is true: the content parts of a message may name files of the job.
func (e *Executor) TakesFiles() bool { return true }

// Check refuses an input that is not a chat-completions request for one of the models.
func (e *Executor) Check(input []byte) error {
	if _, err := e.parseRequest(input); err != nil {
		return err
	}
	return nil
}

// Execute calls the model and writes its answer to out.
func (e *Executor) Execute(ctx context.Context, t exec.Task, out exec.Sink) error {
	req, refusal := e.parseRequest(t.Input)
	if refusal != nil {
		return &job.Fault{Code: "invalid_input", Message: refusal.Message, Class: job.Final}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m := req.model
	// First the slot, then the gate, because an attempt that waits for them must not occupy the
	// only probe.
	if err := m.acquireSlot(ctx, out); err != nil {
		return err
	}
	defer m.changed()
	defer m.releaseSlot()
	pass, err := m.passGate(ctx, &t, out)
	if err != nil {
		return err
	}
	if err := req.attach(t.Files); err != nil {
		pass.cancel()
		return err
	}
	permit, err := m.breaker.acquire(ctx, out, callerOf(&t, m))
	if err != nil {
		pass.end()
		pass.cancel()
		return err
	}
	permit.model, permit.pass, permit.began, permit.patience = m, pass, time.Now(), patience(&t.Clocks)
	m.begun.Add(1)
	defer m.begun.Add(-1)
	if t.Job.Resource == m.Name {
		m.counted.Add(1)
		defer m.counted.Add(-1)
	}
	defer permit.release() // in case the hook or the sink panics
	c := call{model: m, permit: permit, out: out, timeout: t.Job.Policy.Timeouts.Request, trace: t.Job.Trace}
	return permit.finish(ctx, c.doWithHook(ctx, e.onCall, req))
}

// Resource implements [exec.Limited]: it returns the name of the input's model.
func (e *Executor) Resource(input []byte) string {
	req, refusal := e.parseRequest(input)
	if refusal != nil {
		return ""
	}
	return req.model.Name
}

// Resources implements [exec.Limited]. Executors that share models share them.
func (e *Executor) Resources() exec.Resources { return e.resources }

var _ exec.Limited = (*Executor)(nil)

// Circuits returns the state of each model's circuit breaker, in the order of the
// configuration.
func (e *Executor) Circuits() []CircuitStatus {
	list := make([]CircuitStatus, 0, len(e.names))
	for _, name := range e.names {
		list = append(list, e.models[name].breaker.status())
	}
	return list
}

// Gates returns what the gate of each model has learned, in the order of the configuration.
func (e *Executor) Gates() []GateStatus {
	list := make([]GateStatus, 0, len(e.names))
	for _, name := range e.names {
		m := e.models[name]
		s := m.gate.status(name, time.Now())
		s.Calls = int(m.begun.Load())
		list = append(list, s)
	}
	return list
}
