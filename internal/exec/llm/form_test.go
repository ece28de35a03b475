package llm

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/loopback"
)

// pickyServer refuses some forms of a request with an error, and records the forms.
type pickyServer struct {
	refuse func(stream, options bool) (status int, body string) // status 0 accepts
	asked  []string
}

func (s *pickyServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var req map[string]json.RawMessage
	data, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(data, &req)
	stream, options := string(req["stream"]) == "true", req["stream_options"] != nil
	s.asked = append(s.asked, fmt.Sprint(stream, options))
	if status, body := s.refuse(stream, options); status != 0 {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
		return
	}
	if stream {
		streamHandler(delta(`"content":"x"`), finishChunk("stop"), "[DONE]")(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, `{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}`)
}

// A server that refuses stream_options or streams is asked without them, and from then on.
func TestRefusedFormIsLearned(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		stream bool // streams are refused, and not only stream_options
	}{
		"unknown stream_options":        {400, `{"error":{"message":"Unrecognized request argument supplied: stream_options","type":"invalid_request_error"}}`, false},
		"stream_options of a validator": {422, `{"detail":[{"loc":["body","stream_options"],"msg":"Extra inputs are not permitted","type":"extra_forbidden"}]}`, false},
		"stream_options in plain text":  {500, `Unknown field include_usage`, false},
		"inside an answer":              {200, `{"error":{"message":"stream_options is not supported","code":400}}`, false},
		"an unverified account":         {400, `{"error":{"message":"Your organization must be verified to stream this model.","type":"invalid_request_error","param":"stream","code":"unsupported_value"}}`, true},
		"a model without streams":       {400, `{"message":"Streaming is not supported for this model"}`, true},
		"another sentence":              {501, `{"error":"this model does not support stream=true"}`, true},
	} {
		s := &pickyServer{refuse: func(stream, options bool) (int, string) {
			if options || stream && c.stream {
				return c.status, c.body
			}
			return 0, ""
		}}
		e := newInMemory(t, s)
		for range 2 {
			if r := run(t, e, `{"messages":[{"role":"user","content":"x"}],"stream_options":{"a":1}}`); r.Text() != "x" {
				t.Errorf("%s: the text is %q", name, r.Text())
			}
		}
		want := "[true true true false true false]"
		if c.stream {
			want = "[true true false false false false]"
		}
		if got := fmt.Sprint(s.asked); got != want {
			t.Errorf("%s: it was asked %s, want %s", name, got, want)
		}
	}
}

// Other errors are not about the form.
func TestOtherRefusalIsNotLearned(t *testing.T) {
	t.Parallel()
	for status, body := range map[int]string{
		400: `{"error":{"message":"max_tokens is too large"}}`,
		401: `{"error":{"message":"no streaming with this key: not allowed"}}`,
		429: `{"error":{"message":"too many streams: not available"}}`,
		500: `{"error":{"message":"upstream connection closed"}}`,
	} {
		s := &pickyServer{refuse: func(bool, bool) (int, string) { return status, body }}
		_, _ = runFailing(t, newInMemory(t, s), hello)
		if len(s.asked) != 1 {
			t.Errorf("%s: it was asked %v", body, s.asked)
		}
	}
}

// A refusal in every form is not remembered.
func TestRefusalOfEveryFormIsNotLearned(t *testing.T) {
	t.Parallel()
	s := &pickyServer{refuse: func(bool, bool) (int, string) { return 400, "stream and stream_options are unsupported" }}
	e := newInMemory(t, s)
	for range 2 {
		f, _ := runFailing(t, e, hello)
		wantFault{"upstream_rejected", job.Final, "unsupported"}.check(t, "every form", f)
	}
	if got := fmt.Sprint(s.asked); got != "[true true true false false false true true true false false false]" {
		t.Errorf("it was asked %s", got)
	}
}

// The configuration overrides what would be learned.
func TestConfiguredForm(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	for _, c := range []struct {
		stream, options *bool
		want            string
	}{
		{&no, nil, "[false false]"}, {&no, &yes, "[false false]"}, {nil, &no, "[true false]"}, {&yes, &yes, "[true true]"},
	} {
		s := &pickyServer{refuse: func(bool, bool) (int, string) { return 0, "" }}
		e := mustNew(t, Config{Transport: loopback.Transport(s), Models: []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1", Stream: c.stream, StreamOptions: c.options}}})
		run(t, e, hello)
		if got := fmt.Sprint(s.asked); got != c.want {
			t.Errorf("it was asked %s, want %s", got, c.want)
		}
	}
	s := &pickyServer{refuse: func(bool, bool) (int, string) { return 400, "stream_options not supported" }}
	e := mustNew(t, Config{Transport: loopback.Transport(s), Models: []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1", Stream: &yes, StreamOptions: &yes}}})
	_, _ = runFailing(t, e, hello)
	if len(s.asked) != 1 {
		t.Errorf("a demanded form was changed: %v", s.asked)
	}
}

// After an hour the server is asked again: it may have been updated.
func TestLearnedFormIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &pickyServer{refuse: func(_, options bool) (int, string) {
			if options {
				return 400, "stream_options not supported"
			}
			return 0, ""
		}}
		e := newInMemory(t, s)
		run(t, e, hello)
		time.Sleep(learnedFor + time.Second)
		run(t, e, hello)
		if len(s.asked) != 4 {
			t.Errorf("it was asked %v", s.asked)
		}
	})
}

// A refusal that is about one request is not learned while others are streamed.
func TestRefusalOfOneRequestIsNotLearned(t *testing.T) {
	t.Parallel()
	tools := false
	s := &pickyServer{refuse: func(stream, _ bool) (int, string) {
		if stream && tools {
			return 400, `{"error":{"message":"Streaming is not supported with tools"}}`
		}
		return 0, ""
	}}
	e := newInMemory(t, s)
	run(t, e, hello)
	tools = true
	run(t, e, hello)
	tools = false
	run(t, e, hello)
	if got := fmt.Sprint(s.asked); got != "[true true true true false false true true]" {
		t.Errorf("it was asked %s", got)
	}
}

// Jobs whose form is refused at the same time all succeed, and the refusal is learned for their
// model only.
func TestRefusalsAtOnceAreLearned(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	s := &pickyServer{refuse: func(stream, _ bool) (int, string) {
		if stream {
			return 400, `{"error":{"message":"Streaming is not supported for this model"}}`
		}
		return 0, ""
	}}
	e := mustNew(t, Config{
		Models: []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1"}, {Name: "other", BaseURL: "http://upstream.invalid/v1"}},
		Transport: loopback.Transport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			s.ServeHTTP(w, r)
		})),
	})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := exectest.Start(t, e, exectest.Task([]byte(hello))).Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	s.asked = nil
	run(t, e, hello)
	if got := fmt.Sprint(s.asked); got != "[false false]" {
		t.Errorf("it was asked %s", got)
	}
	if f := e.models["other"].form(); !f.stream || !f.options {
		t.Errorf("the other model is asked in the form %+v", f)
	}
}
