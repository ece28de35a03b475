// Package simmodel is a simulated language model behind the chat-completions API
// of OpenAI: it needs no key, no network and no GPU, says something about every
// question, and says the same again when it is asked the same. It is what a server
// without a configured model answers with, and what tests and benchmarks call:
// beside a pace it has faults, each of which a real model server has shown.
//
// [Options] say how it behaves. A request may say otherwise in a field of its own:
//
//	"sim": {
//	  "first_token_ms": 500,  "tokens_per_s": 25,  "tokens": 100,
//	  "fault": "429",  "fault_after": 3,  "retry_after_s": 1,
//	  "fault_times": 2,  "key": "some name"
//	}
//
// With fault_times the fault happens to the first so many requests that carry the
// same key, and the following ones are answered, so that a retry can succeed.
package simmodel

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Options say how the model behaves. The zero value answers at once and without a
// fault.
type Options struct {
	Models          []string      // the names it lists; it answers to any
	FirstToken      time.Duration // from the request to the first token
	TokensPerSecond float64       // 0: all at once
	Tokens          int           // how many; 0: as many as the answer has
	Fault           Fault         // "" for none
	FaultAfter      int           // tokens before a fault in the middle of a stream
	FaultTimes      int           // only the first so many requests with the same key; 0: all
	RetryAfter      time.Duration // what a 429 or 503 asks for
	// Timestamps makes each streamed token the time at which it is sent, in microseconds
	// since 1970 with a space after it: whoever reads it knows how long it took.
	Timestamps bool
}

// Defaults are the pace of a model of middling speed.
func Defaults() Options {
	return Options{
		Models:          []string{"sim"},
		FirstToken:      500 * time.Millisecond,
		TokensPerSecond: 25,
		FaultAfter:      3,
		RetryAfter:      time.Second,
	}
}

// Bounds of what a request may ask for.
const (
	maxTokens     = 100_000
	maxFirstToken = time.Hour
	maxPerSecond  = 1e6
	maxRetryAfter = 24 * time.Hour
	maxTimes      = 1_000_000
	maxKey        = 256     // bytes
	maxKeys       = 10_000  // remembered at once; one more and all are forgotten
	maxBody       = 4 << 20 // bytes of a request
)

// overrides are the field "sim" of a request.
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

// with returns the options as a request wants them.
func (o Options) with(r overrides) (Options, error) {
	var errs []error
	number := func(name string, from *float64, most float64, set func(float64)) {
		switch {
		case from == nil:
		case *from < 0 || *from > most:
			errs = append(errs, fmt.Errorf("sim.%s must be a number from 0 to %g", name, most))
		default:
			set(*from)
		}
	}
	number("first_token_ms", r.FirstTokenMS, float64(maxFirstToken/time.Millisecond), func(n float64) {
		o.FirstToken = time.Duration(n * float64(time.Millisecond))
	})
	number("tokens_per_s", r.TokensPerS, maxPerSecond, func(n float64) { o.TokensPerSecond = n })
	number("tokens", r.Tokens, maxTokens, func(n float64) { o.Tokens = int(n) })
	number("fault_after", r.FaultAfter, maxTokens, func(n float64) { o.FaultAfter = int(n) })
	number("fault_times", r.FaultTimes, maxTimes, func(n float64) { o.FaultTimes = int(n) })
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

	mu    sync.Mutex
	times map[string]int // requests that met a fault, by key
}

// New makes the model: POST /v1/chat/completions, streamed and not, and GET
// /v1/models. A request holds its handler until it is answered or its context ends.
func New(o Options) http.Handler {
	m := &model{options: o, times: make(map[string]int)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", m.complete)
	mux.HandleFunc("GET /v1/models", m.list)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, "there are POST /v1/chat/completions and GET /v1/models")
	})
	return mux
}

func (m *model) list(w http.ResponseWriter, r *http.Request) {
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
	answerJSON(w, http.StatusOK, map[string]any{"object": "list", "data": models})
}

func (m *model) complete(w http.ResponseWriter, r *http.Request) {
	req, err := read(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	o, err := m.options.with(req.Sim)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if o.Fault != "" && !m.faulty(req.Sim.Key, o.FaultTimes) {
		o.Fault = ""
	}
	start(w, r, req, o).answer()
}

// faulty counts a request with this key, and says whether the fault is for it.
func (m *model) faulty(key string, times int) bool {
	if times == 0 {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.times[key] >= times {
		return false
	}
	if len(m.times) >= maxKeys {
		clear(m.times)
	}
	m.times[key]++
	return true
}

// refuse answers with an error as OpenAI writes it.
func refuse(w http.ResponseWriter, status int, message string) {
	answerJSON(w, status, errorBody(status, message))
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

// askToWait sets the headers that say when to come back.
func askToWait(h http.Header, d time.Duration) {
	h.Set("Retry-After", strconv.Itoa(int(math.Ceil(d.Seconds()))))
	h.Set("Retry-After-Ms", strconv.FormatInt(d.Milliseconds(), 10))
}
