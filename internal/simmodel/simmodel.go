// Package simmodel is a simulated language model with OpenAI's chat-completions API. It needs
// no key, no network and no GPU. It answers every question, and gives the same answer to the
// same question. A server without a configured model uses it, and so do tests and benchmarks.
// It can also behave in all known ways of real model servers: see [Fault].
//
// [Options] set its behaviour. A request may override them in the field "sim":
//
//	"sim": {
//	  "first_token_ms": 500,  "tokens_per_s": 25,  "tokens": 100,
//	  "fault": "429",  "fault_after": 3,  "retry_after_s": 1,
//	  "fault_times": 2,  "key": "some name"
//	}
//
// A request for the model "sim/429" has the fault "429", and so on.
//
// With fault_times only the first requests with the same key fail, up to that number. Later
// requests are answered, so that a retry can succeed.
package simmodel

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Options set the model's behaviour. The zero value answers at once and without a fault.
type Options struct {
	Models          []string      // the names in GET /v1/models; a request may use any name
	FirstToken      time.Duration // from the request to the first token
	TokensPerSecond float64       // 0 sends all tokens at once
	Tokens          int           // number of tokens of an answer; 0 for the length of the text
	Fault           Fault         // "" for none
	FaultAfter      int           // tokens before a mid-stream fault
	FaultTimes      int           // number of requests with the same key that fail; 0 for all
	RetryAfter      time.Duration // sent with status 429 or 503
	// KeepAlive sends a comment in this interval while a streamed answer waits for its next token;
	// 0 for none.
	KeepAlive time.Duration
	// RequestsPerMinute are answered, and further ones get 429 with Retry-After; 0 for no limit.
	RequestsPerMinute int
	// Load is how long the first request waits until the model is loaded. The load is given up
	// when all who wait for it have gone.
	Load time.Duration
	// FailUser is the "user" whose requests fail with 500; "" for none.
	FailUser string
	// DeadAfter is how many requests of one connection are answered before the connection dies
	// without closing; 0 for no limit. It needs [Listener].
	DeadAfter int
	// Timestamps replaces each streamed token with the time at which it is sent, in microseconds
	// since 1970, followed by a space, so that a client can measure the delay.
	Timestamps bool
}

// Defaults are the options of a model of medium speed.
func Defaults() Options {
	return Options{
		Models:          []string{"sim"},
		FirstToken:      500 * time.Millisecond,
		TokensPerSecond: 25,
		FaultAfter:      3,
		RetryAfter:      time.Second,
	}
}

// Limits of what a request may set.
const (
	maxTokens          = 100_000
	maxFirstToken      = time.Hour
	maxTokensPerSecond = 1e6
	maxRetryAfter      = 24 * time.Hour
	maxFaultTimes      = 1_000_000
	maxKey             = 256     // bytes
	maxKeys            = 10_000  // remembered at once; one more key clears all
	maxBody            = 4 << 20 // bytes of a request
)

// faultModel begins the names of models that have a fault: "sim/429", "sim/hang".
const faultModel = "sim/"

// overrides is the field "sim" of a request.
type overrides struct {
	FirstTokenMS *float64 `json:"first_token_ms"`
	TokensPerS   *float64 `json:"tokens_per_s"`
	Tokens       *float64 `json:"tokens"`
	Fault        *string  `json:"fault"`
	FaultAfter   *float64 `json:"fault_after"`
	FaultTimes   *float64 `json:"fault_times"`
	RetryAfterS  *float64 `json:"retry_after_s"`
	Key          string   `json:"key"`
}

// override returns the options with a request's overrides.
func (o Options) override(r overrides) (Options, error) {
	var errs []error
	number := func(name string, from *float64, limit float64, set func(float64)) {
		switch {
		case from == nil:
		case *from < 0 || *from > limit:
			errs = append(errs, fmt.Errorf("sim.%s must be a number from 0 to %g", name, limit))
		default:
			set(*from)
		}
	}
	number("first_token_ms", r.FirstTokenMS, float64(maxFirstToken/time.Millisecond), func(n float64) {
		o.FirstToken = time.Duration(n * float64(time.Millisecond))
	})
	number("tokens_per_s", r.TokensPerS, maxTokensPerSecond, func(n float64) { o.TokensPerSecond = n })
	number("tokens", r.Tokens, maxTokens, func(n float64) { o.Tokens = int(n) })
	number("fault_after", r.FaultAfter, maxTokens, func(n float64) { o.FaultAfter = int(n) })
	number("fault_times", r.FaultTimes, maxFaultTimes, func(n float64) { o.FaultTimes = int(n) })
	number("retry_after_s", r.RetryAfterS, maxRetryAfter.Seconds(), func(n float64) {
		o.RetryAfter = time.Duration(n * float64(time.Second))
	})
	if r.Fault != nil {
		fault, err := ParseFault(*r.Fault)
		errs = append(errs, err)
		o.Fault = fault
	}
	if len(r.Key) > maxKey {
		errs = append(errs, fmt.Errorf("sim.key may have %d bytes", maxKey))
	}
	return o, errors.Join(errs...)
}

// model is the handler's state.
type model struct {
	options Options // set once
	limit   rateLimit
	loader  loader

	mu     sync.Mutex
	faults map[string]int // number of failed requests, by key
}

// New returns the model's handler: POST /v1/chat/completions, streamed or not, and GET
// /v1/models. The handler returns when the request is answered or its context ends.
func New(o Options) http.Handler {
	m := &model{options: o, faults: make(map[string]int)}
	m.limit.perMinute, m.loader.takes = o.RequestsPerMinute, o.Load
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", m.handleCompletion)
	mux.HandleFunc("GET /v1/models", m.handleModels)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, "there are POST /v1/chat/completions and GET /v1/models")
	})
	return mux
}

func (m *model) handleModels(w http.ResponseWriter, r *http.Request) {
	type listed struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Created int64  `json:"created"`
		OwnedBy string `json:"owned_by"`
	}
	models := []listed{}
	for _, name := range m.options.Models {
		models = append(models, listed{name, "model", 0, "meanwhile"})
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": models})
}

func (m *model) handleCompletion(w http.ResponseWriter, r *http.Request) {
	req, err := parseRequest(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	if conn, ok := r.Context().Value(connKey{}).(*Conn); ok && m.options.DeadAfter > 0 && conn.countRequest(m.options.DeadAfter) {
		<-r.Context().Done()
		return
	}
	if m.limit.refuse(w) {
		return
	}
	if req.User != "" && req.User == m.options.FailUser {
		writeError(w, http.StatusInternalServerError, "the simulated model was told to fail for this user")
		return
	}
	if !m.loader.wait(r.Context()) {
		return
	}
	// A client that cannot send the field "sim" names the fault in the model.
	if name, ok := strings.CutPrefix(req.Model, faultModel); ok && req.Sim.Fault == nil {
		req.Sim.Fault = &name
	}
	o, err := m.options.override(req.Sim)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	if o.Fault != "" && !m.takeFault(req.Sim.Key, o.FaultTimes) {
		o.Fault = ""
	}
	newCall(w, r, req, o).answer()
}

// takeFault counts a request with this key and reports whether it must fail.
func (m *model) takeFault(key string, times int) bool {
	if times == 0 {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.faults[key] >= times {
		return false
	}
	// Clearing all counts is harmless: some requests fail more often than configured.
	if len(m.faults) >= maxKeys {
		clear(m.faults)
	}
	m.faults[key]++
	return true
}

// writeError answers with an error object in OpenAI's form.
func writeError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, errorBody(status, message))
}

func errorBody(status int, message string) map[string]any {
	kind := "server_error"
	switch {
	case status == http.StatusUnauthorized:
		kind = "authentication_error"
	case status == http.StatusTooManyRequests:
		kind = "rate_limit_error"
	case status < 500:
		kind = "invalid_request_error"
	}
	return map[string]any{"error": map[string]any{"message": message, "type": kind, "param": nil, "code": nil}}
}
