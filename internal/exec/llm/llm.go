// Package llm is the executor that asks a language model, through any server that
// speaks the chat-completions API of OpenAI.
//
// A job's input is a chat-completions body. It is sent on as it is, unknown fields
// included; only "model" is filled in or translated, and "stream" and
// "stream_options" are set, because the answer is always streamed. The result is
// the completion object, rebuilt from the stream.
//
// The log holds all that a face needs to stream the answer again. Text of the first
// choice is said as text. A chunk that carries anything else (a tool call,
// reasoning, log probabilities, another choice) is said verbatim, as an event,
// before its text of the first choice; that text is not repeated as an event's, so
// a face leaves it out of the event. Role, finish reason and usage are in the result.
//
// The clocks of a whole attempt and of its output are the runner's. This package
// keeps one, [job.Timeouts.Request]: how long the server may take to begin a
// streamed answer, or to give a whole one.
package llm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Config is the models there are.
type Config struct {
	Models []Model
	// Default is the model of a job that names none; "" for the first.
	Default string
	// Transport carries the calls to models that have none of their own; nil for
	// one with sensible bounds.
	Transport http.RoundTripper
	// OnCall is told of every call; nil for nobody.
	OnCall CallHook
	Log    *slog.Logger // nil for none
}

// Model is a model and the server that runs it.
type Model struct {
	Name        string            // as a job asks for it
	Upstream    string            // as its server knows it; "" for Name
	BaseURL     string            // http or https; "/chat/completions" is added to it
	APIKey      string            // sent as a bearer token, to this server only; "" for none
	APIKeyEnv   string            // the variable that the key came from, to name it in a message
	Concurrency int               // calls at once; more wait for each other; 0 for no bound
	Transport   http.RoundTripper // nil for the Config's
}

// Executor asks models. It may be used by many queues at once: the bounds of its
// models hold over all of them.
type Executor struct {
	// set once
	models   map[string]*model
	names    []string
	fallback *model
	follow   CallHook // nil for nobody
	close    func()
}

// New makes an executor. Its error says what is wrong with the configuration.
func New(c Config) (*Executor, error) {
	e := &Executor{models: make(map[string]*model), follow: c.OnCall, close: func() {}}
	if c.Transport == nil {
		own := newTransport()
		c.Transport, e.close = own, own.CloseIdleConnections
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	for _, m := range c.Models {
		known, err := newModel(m, c)
		if err != nil {
			return nil, fmt.Errorf("the model %s: %w", job.Quote(m.Name), err)
		}
		if e.models[m.Name] != nil {
			return nil, fmt.Errorf("the model %s is there twice", job.Quote(m.Name))
		}
		e.models[m.Name] = known
		e.names = append(e.names, m.Name)
	}
	if len(e.names) == 0 {
		return nil, errors.New("there is no model")
	}
	if c.Default == "" {
		c.Default = e.names[0]
	}
	return e.WithDefault(c.Default)
}

// WithDefault is the same executor, with another model for jobs that name none.
// Both share the models and their bounds.
func (e *Executor) WithDefault(name string) (*Executor, error) {
	m := e.models[name]
	if m == nil {
		return nil, fmt.Errorf("there is no model %s to be the default: there are %s", job.Quote(name), strings.Join(e.names, ", "))
	}
	other := *e
	other.fallback = m
	return &other, nil
}

// Close lets go of idle connections. No attempt may be under way.
func (e *Executor) Close() { e.close() }

// Kind is "llm".
func (e *Executor) Kind() string { return "llm" }

// Check refuses what is no chat-completions body for one of the models.
func (e *Executor) Check(input []byte) error {
	if _, err := e.read(input); err != nil {
		return err
	}
	return nil
}

// Execute asks the model and relays its answer.
func (e *Executor) Execute(ctx context.Context, t exec.Task, out exec.Sink) error {
	req, refusal := e.read(t.Input)
	if refusal != nil {
		return &job.Fault{Code: "invalid_input", Message: refusal.Message, Class: job.Final}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := req.model.acquire(ctx, out); err != nil {
		return err
	}
	defer req.model.release()
	pass, err := req.model.circuit.enter(ctx, out)
	if err != nil {
		return err
	}
	defer pass.drop()
	c := call{model: req.model, pass: pass, out: out, patience: t.Job.Policy.Timeouts.Request, trace: t.Job.Trace}
	return pass.end(ctx, c.followed(ctx, e.follow, req.body()))
}

// Circuits shows the circuit of each model, in the order of the configuration.
func (e *Executor) Circuits() []CircuitStatus {
	list := make([]CircuitStatus, 0, len(e.names))
	for _, name := range e.names {
		list = append(list, e.models[name].circuit.show())
	}
	return list
}

// model is a model that is ready to be called.
type model struct {
	Model
	url    *url.URL
	client *http.Client
	slots  chan struct{} // a place for every call under way; nil without a bound

	circuit *circuit
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
	base, err := url.Parse(m.BaseURL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, errors.New("its base_url must be like https://api.example.com/v1")
	}
	if base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, errors.New("its base_url must be without a user, a query and a fragment; a key goes into the variable that api_key_env names")
	}
	ready := &model{Model: m, url: base.JoinPath("chat/completions"), circuit: newCircuit(m.Name, c.Log)}
	// A redirect is not followed: it could lead the key to another host.
	ready.client = &http.Client{Transport: m.Transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	if m.Concurrency > 0 {
		ready.slots = make(chan struct{}, m.Concurrency)
	}
	return ready, nil
}

// newTransport bounds what a server that misbehaves could cost, short of the
// answer itself. It asks for no compression: a compressed stream comes in bursts.
// Thousands of calls may be open, and each keeps its buffers; a request that is
// larger than its buffer is written past it.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		DisableCompression:     true,
		WriteBufferSize:        1 << 10,
	}
}

// acquire takes one of the model's places. While it waits it begins the attempt's
// clocks again each second: time spent in line is not the model's.
func (m *model) acquire(ctx context.Context, out exec.Sink) error {
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

func (m *model) release() {
	if m.slots != nil {
		<-m.slots
	}
}
