package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collector takes spans as a collector does, in memory.
type collector struct {
	answers []int // the statuses it answers with, in turn; then 200

	mu    sync.Mutex
	spans map[string]wireSpan // by name; guarded by mu
	about map[string]string   // what the spans are of; guarded by mu
	calls []*http.Request     // guarded by mu
}

func (c *collector) RoundTrip(r *http.Request) (*http.Response, error) {
	var p payload
	err := json.NewDecoder(r.Body).Decode(&p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, r)
	w := httptest.NewRecorder()
	switch {
	case err != nil:
		w.WriteHeader(400)
	case len(c.calls) <= len(c.answers):
		w.Header().Set("Retry-After", "5")
		w.WriteHeader(c.answers[len(c.calls)-1])
	default:
		c.keepLocked(p)
	}
	return w.Result(), nil
}

func (c *collector) keepLocked(p payload) {
	if c.spans == nil {
		c.spans, c.about = map[string]wireSpan{}, map[string]string{}
	}
	for _, of := range p.ResourceSpans {
		for _, a := range of.Resource.Attributes {
			c.about[a.Key] = *a.Value.String
		}
		for _, s := range of.ScopeSpans[0].Spans {
			c.spans[s.Name] = s
		}
	}
}

// traced has the collector get what is traced during a test.
func traced(t *testing.T, c *collector, ratio float64, log *slog.Logger, work func(*Traces)) {
	t.Helper()
	traces, err := NewTraces(Tracing{Endpoint: "http://collector.test:4318/otlp", Headers: map[string]string{"Api-Key": "k"}, Ratio: ratio}, log)
	if err != nil {
		t.Fatal(err)
	}
	traces.out.client.Transport = c
	work(traces)
	if err := traces.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

var silent = slog.New(slog.DiscardHandler)

// attributes are a span's, as text.
func (s wireSpan) attributes() map[string]string {
	all := map[string]string{}
	for _, a := range s.Attributes {
		raw, _ := json.Marshal(a.Value)
		var value map[string]any
		_ = json.Unmarshal(raw, &value)
		for _, v := range value {
			text, _ := json.Marshal(v)
			all[a.Key] = strings.Trim(string(text), `"`)
		}
	}
	return all
}

const theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// The spans of a request, the attempt of its job, which may be much later, and the
// attempt's call are one trace, each the child of the one before.
func TestATraceHoldsRequestAttemptAndCall(t *testing.T) {
	c := &collector{}
	var stored, sent string
	traced(t, c, 0, silent, func(traces *Traces) { // of a caller's trace the caller decides, whatever the ratio
		h := NewMiddleware(NewMetrics(), traces, silent).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			stored = r.Header.Get("Traceparent")
			w.(interface{ RecordRoute(string) }).RecordRoute("POST /v1/jobs")
			w.WriteHeader(202)
		}))
		r := httptest.NewRequest("POST", "/v1/jobs", nil)
		r.Header.Set("Traceparent", theirs)
		h.ServeHTTP(httptest.NewRecorder(), r)
		if r.Header.Get("Traceparent") != theirs {
			t.Error("the caller's own request was changed")
		}

		j := &job.Job{ID: job.NewID(), Queue: "chat", Attempt: 2, Trace: stored, RunAt: time.Now().Add(-time.Minute)}
		ctx, parent, ended := traces.StartAttempt(context.Background(), j)
		sent2, called := traces.StartCall(ctx, "m")
		sent = sent2
		called(429, []byte(`{"prompt_tokens":7,"completion_tokens":9}`), &job.Fault{Code: "upstream_rate_limited"})
		ended(&job.Outcome{Fault: &job.Fault{Code: "upstream_rate_limited"}})
		if parent == stored || parent == sent || parent[:35] != theirs[:35] {
			t.Errorf("the attempt passes on %s, under %s", parent, stored)
		}
	})
	request, attempt, call := c.spans["POST /v1/jobs"], c.spans["job chat"], c.spans["upstream call"]
	for _, s := range []struct {
		span   wireSpan
		parent string
		kind   int
	}{{request, theirs[36:52], 2}, {attempt, request.SpanID, 5}, {call, attempt.SpanID, 3}} {
		if s.span.TraceID != theirs[3:35] || s.span.ParentID != s.parent || s.span.Kind != s.kind || s.span.Start > s.span.End {
			t.Errorf("%+v is not the child of %s", s.span, s.parent)
		}
	}
	if stored != "00-"+request.TraceID+"-"+request.SpanID+"-01" || sent != "00-"+call.TraceID+"-"+call.SpanID+"-01" {
		t.Errorf("stored is %s, sent is %s", stored, sent)
	}
	has := func(s wireSpan, want map[string]string) {
		t.Helper()
		got := s.attributes()
		for key, value := range want {
			if got[key] != value {
				t.Errorf("%s has %s %q, not %q", s.Name, key, got[key], value)
			}
		}
	}
	has(request, map[string]string{"http.route": "/v1/jobs", "http.request.method": "POST", "http.response.status_code": "202"})
	has(attempt, map[string]string{"meanwhile.queue": "chat", "meanwhile.attempt": "2", "meanwhile.outcome": "failed", "error.type": "upstream_rate_limited"})
	has(call, map[string]string{"gen_ai.request.model": "m", "http.response.status_code": "429", "gen_ai.usage.input_tokens": "7", "gen_ai.usage.output_tokens": "9"})
	if wait := attempt.attributes()["meanwhile.queue_wait_s"]; !strings.HasPrefix(wait, "60") {
		t.Errorf("the attempt waited %s s", wait)
	}
	if attempt.Status.Code != 2 || call.Status.Code != 2 || request.Status.Code != 0 {
		t.Errorf("failed are %+v and %+v, not %+v", attempt.Status, call.Status, request.Status)
	}
	post := c.calls[0]
	if post.URL.String() != "http://collector.test:4318/otlp/v1/traces" || post.Header.Get("Api-Key") != "k" || c.about["service.name"] != "meanwhile" {
		t.Errorf("posted to %s with %v, about %v", post.URL, post.Header, c.about)
	}
}

// A question that was refused says why; only what is our fault is an error.
func TestARefusedQuestionSaysWhy(t *testing.T) {
	for _, tt := range []struct {
		code   job.Code
		status int
		fails  int
	}{{job.Conflict, 409, 0}, {job.Unavailable, 503, 2}} {
		c := &collector{}
		traced(t, c, 0, silent, func(traces *Traces) {
			trace, ended := traces.StartQuestion(context.Background(), theirs)
			if trace[:35] != theirs[:35] || trace == theirs {
				t.Errorf("the question passes on %s", trace)
			}
			ended(job.ID{}, tt.status, job.Errorf(tt.code, "no"))
		})
		s := c.spans["chat_query"]
		if got := s.attributes(); s.ParentID != theirs[36:52] || got["error.type"] != string(tt.code) || got["meanwhile.job.id"] != "" || s.Status.Code != tt.fails {
			t.Errorf("of %s it says %+v", tt.code, s)
		}
	}
}

// What nobody samples is not exported, and what it calls is told so.
func TestTheRatioHoldsForTracesThatBeginHere(t *testing.T) {
	c := &collector{}
	traced(t, c, 0, silent, func(traces *Traces) {
		ctx, parent, ended := traces.StartAttempt(context.Background(), &job.Job{Queue: "chat"})
		sent, called := traces.StartCall(ctx, "m")
		called(200, nil, nil)
		ended(&job.Outcome{})
		if !strings.HasSuffix(parent, "-00") || !strings.HasSuffix(sent, "-00") || sent[:35] != parent[:35] {
			t.Errorf("passed on are %s and %s", parent, sent)
		}
	})
	if len(c.spans) != 0 {
		t.Errorf("exported were %v", c.spans)
	}
}

func TestHowAnAttemptEnded(t *testing.T) {
	for want, o := range map[string]*job.Outcome{
		"succeeded": {}, "cancelled": {Cancelled: true}, "handed_back": {Released: true}, "failed": {Fault: &job.Fault{Code: "x"}}, "lost": nil,
	} {
		if got, _ := outcomeOf(o); got != want {
			t.Errorf("%+v is called %s, not %s", o, got, want)
		}
	}
}

// What asks again and again how the server is has no spans.
func TestWatchingOverTheServerIsNotTraced(t *testing.T) {
	c := &collector{}
	traced(t, c, 1, silent, func(traces *Traces) {
		h := NewMiddleware(NewMetrics(), traces, silent).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
		}
	})
	if len(c.calls) != 0 {
		t.Errorf("exported were %v", c.spans)
	}
}

// span makes one.
func oneSpan(traces *Traces) {
	_, _, ended := traces.StartAttempt(context.Background(), &job.Job{Queue: "chat"})
	ended(&job.Outcome{})
}

// A collector that is busy is asked again, after as long as it says.
func TestABusyCollectorIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &collector{answers: []int{503, 429}}
		began := time.Now()
		traced(t, c, 1, silent, oneSpan)
		if len(c.spans) != 1 || len(c.calls) != 3 || time.Since(began) != 10*time.Second {
			t.Errorf("%d spans after %d calls and %s", len(c.spans), len(c.calls), time.Since(began))
		}
	})
}

// Spans that cannot be exported are lost, which is said once; nothing waits for them
// for ever.
func TestSpansThatCannotBeExportedAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		c := &collector{answers: []int{400, 400}}
		traced(t, c, 1, slog.New(slog.NewTextHandler(&out, nil)), func(traces *Traces) {
			for range 3 {
				oneSpan(traces)
				if err := traces.provider.ForceFlush(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
		if lost, again := strings.Count(out.String(), "are lost"), strings.Count(out.String(), "exported again"); lost != 1 || again != 1 || len(c.calls) != 3 {
			t.Errorf("after %d calls: %s", len(c.calls), &out)
		}
	})
}

// unreachable is a network on which a call ends with its context alone.
type unreachable struct{}

func (unreachable) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, errors.New("unreachable")
}

func TestTheEndWaitsForACollectorOnlySoLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		traces, err := NewTraces(Tracing{Endpoint: "http://collector.test", Ratio: 1}, silent)
		if err != nil {
			t.Fatal(err)
		}
		traces.out.client.Transport = unreachable{}
		oneSpan(traces)
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_ = traces.Close(ctx)
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestATracingEndpointIsAURL(t *testing.T) {
	for _, endpoint := range []string{"", "collector:4318", "grpc://collector:4317"} {
		if _, err := NewTraces(Tracing{Endpoint: endpoint}, silent); err == nil {
			t.Errorf("%q was taken", endpoint)
		}
	}
}
