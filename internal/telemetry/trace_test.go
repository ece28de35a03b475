package telemetry

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collector records the spans of export requests.
type collector struct {
	statuses []int // the statuses of the first answers; then 200

	mu       sync.Mutex
	spans    map[string]*tracepb.Span // by name; guarded by mu
	resource map[string]string        // the attributes of the resource; guarded by mu
	calls    []*http.Request          // guarded by mu
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		body, _ = gzip.NewReader(r.Body)
	}
	text, err := io.ReadAll(body)
	var request coltracepb.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(text, &request)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, r)
	switch {
	case err != nil:
		w.WriteHeader(400)
	case len(c.calls) <= len(c.statuses):
		w.Header().Set("Retry-After", "5")
		w.WriteHeader(c.statuses[len(c.calls)-1])
	default:
		c.keepLocked(&request)
	}
}

func (c *collector) keepLocked(request *coltracepb.ExportTraceServiceRequest) {
	if c.spans == nil {
		c.spans = map[string]*tracepb.Span{}
	}
	for _, group := range request.ResourceSpans {
		c.resource = attributes(group.Resource.Attributes)
		for _, s := range group.ScopeSpans[0].Spans {
			c.spans[s.Name] = s
		}
	}
}

// RoundTrip answers without a network.
func (c *collector) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	return w.Result(), nil
}

// traced runs work with traces that the collector gets, through memory.
func traced(t *testing.T, c *collector, ratio float64, log *slog.Logger, work func(*Traces)) {
	t.Helper()
	traces, err := newTraces(Tracing{URL: "http://collector.test:4318/otlp/v1/traces", Ratio: ratio}, log, through(c))
	if err != nil {
		t.Fatal(err)
	}
	work(traces)
	if err := traces.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func through(network http.RoundTripper) otlptracehttp.Option {
	return otlptracehttp.WithHTTPClient(&http.Client{Transport: network})
}

var silent = slog.New(slog.DiscardHandler)

// attributes returns attributes as text.
func attributes(list []*commonpb.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range list {
		switch v := a.Value.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			all[a.Key] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			all[a.Key] = strconv.FormatInt(v.IntValue, 10)
		case *commonpb.AnyValue_DoubleValue:
			all[a.Key] = strconv.FormatFloat(v.DoubleValue, 'f', -1, 64)
		}
	}
	return all
}

const theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// A request, the later attempt of its job and the attempt's call have one trace. The
// attempt's span is a child of the request's span, and the call's of the attempt's.
func TestTraceHoldsRequestAttemptAndCall(t *testing.T) {
	t.Parallel()
	c := &collector{}
	var stored, sent string
	traced(t, c, 0, silent, func(traces *Traces) { // the caller decides about its own trace, with any ratio
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
		span   *tracepb.Span
		parent string
		kind   tracepb.Span_SpanKind
	}{
		{request, theirs[36:52], tracepb.Span_SPAN_KIND_SERVER},
		{attempt, spanID(request), tracepb.Span_SPAN_KIND_CONSUMER},
		{call, spanID(attempt), tracepb.Span_SPAN_KIND_CLIENT},
	} {
		if traceID(s.span) != theirs[3:35] || parentID(s.span) != s.parent || s.span.Kind != s.kind || s.span.StartTimeUnixNano > s.span.EndTimeUnixNano {
			t.Errorf("%+v is not the child of %s", s.span, s.parent)
		}
	}
	if stored != "00-"+traceID(request)+"-"+spanID(request)+"-01" || sent != "00-"+traceID(call)+"-"+spanID(call)+"-01" {
		t.Errorf("stored is %s, sent is %s", stored, sent)
	}
	has := func(s *tracepb.Span, want map[string]string) {
		t.Helper()
		got := attributes(s.Attributes)
		for key, value := range want {
			if got[key] != value {
				t.Errorf("%s has %s %q, not %q", s.Name, key, got[key], value)
			}
		}
	}
	has(request, map[string]string{"http.route": "/v1/jobs", "http.request.method": "POST", "http.response.status_code": "202"})
	has(attempt, map[string]string{"meanwhile.queue": "chat", "meanwhile.attempt": "2", "meanwhile.outcome": "failed", "error.type": "upstream_rate_limited"})
	has(call, map[string]string{"gen_ai.request.model": "m", "http.response.status_code": "429", "gen_ai.usage.input_tokens": "7", "gen_ai.usage.output_tokens": "9"})
	if wait := attributes(attempt.Attributes)["meanwhile.queue_wait_s"]; !strings.HasPrefix(wait, "60") {
		t.Errorf("the attempt waited %s s", wait)
	}
	if !isError(attempt) || !isError(call) || isError(request) {
		t.Errorf("the states are %v, %v and %v", attempt.Status, call.Status, request.Status)
	}
	post := c.calls[0]
	if post.URL.String() != "http://collector.test:4318/otlp/v1/traces" || c.resource["service.name"] != "meanwhile" {
		t.Errorf("posted to %s, about %v", post.URL, c.resource)
	}
}

func traceID(s *tracepb.Span) string  { return hex.EncodeToString(s.TraceId) }
func spanID(s *tracepb.Span) string   { return hex.EncodeToString(s.SpanId) }
func parentID(s *tracepb.Span) string { return hex.EncodeToString(s.ParentSpanId) }
func isError(s *tracepb.Span) bool    { return s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR }

// Only a fault of the server makes the span an error.
func TestRefusedQuestionHasErrorType(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code   job.Code
		status int
		fails  bool
	}{{job.Conflict, 409, false}, {job.Unavailable, 503, true}} {
		c := &collector{}
		traced(t, c, 0, silent, func(traces *Traces) {
			trace, ended := traces.StartQuestion(context.Background(), theirs)
			if trace[:35] != theirs[:35] || trace == theirs {
				t.Errorf("the question passes on %s", trace)
			}
			ended(job.ID{}, tt.status, job.Errorf(tt.code, "no"))
		})
		s := c.spans["chat_query"]
		if got := attributes(s.Attributes); parentID(s) != theirs[36:52] || got["error.type"] != string(tt.code) || got["meanwhile.job.id"] != "" || isError(s) != tt.fails {
			t.Errorf("of %s it says %+v", tt.code, s)
		}
	}
}

// A trace that is not sampled is not exported, and its traceparent is marked as not sampled.
func TestRatioAppliesToTracesThatBeginHere(t *testing.T) {
	t.Parallel()
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

func TestOutcomeOf(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]*job.Outcome{
		"succeeded": {}, "cancelled": {Cancelled: true}, "handed_back": {Released: true}, "failed": {Fault: &job.Fault{Code: "x"}}, "lost": nil,
	} {
		if got, _ := outcomeOf(o); got != want {
			t.Errorf("%+v is called %s, not %s", o, got, want)
		}
	}
}

func TestProbesAreNotTraced(t *testing.T) {
	t.Parallel()
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

// oneSpan starts and ends a span.
func oneSpan(traces *Traces) {
	_, _, ended := traces.StartAttempt(context.Background(), &job.Job{Queue: "chat"})
	ended(&job.Outcome{})
}

// The library waits for the longer of Retry-After, here 5 s, and its own backoff.
func TestExporterRetriesBusyCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &collector{statuses: []int{503, 429}}
		began := time.Now()
		traced(t, c, 1, silent, oneSpan)
		if took := time.Since(began); len(c.spans) != 1 || len(c.calls) != 3 || took < 10*time.Second || took > 30*time.Second {
			t.Errorf("%d spans after %d calls and %s", len(c.spans), len(c.calls), took)
		}
	})
}

func TestExporterLogsAnOutageOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		c := &collector{statuses: []int{400, 400}}
		traced(t, c, 1, slog.New(slog.NewTextHandler(&out, nil)), func(traces *Traces) { exportEach(t, traces, 3) })
		if lost, again := strings.Count(out.String(), "are lost"), strings.Count(out.String(), "exported again\" lost=2"); lost != 1 || again != 1 || len(c.calls) != 3 {
			t.Errorf("after %d calls: %s", len(c.calls), &out)
		}
	})
}

// If every second export fails, one every 5 s, one warning is logged a minute.
func TestExporterWarnsOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		c := &collector{}
		for range 36 {
			c.statuses = append(c.statuses, 400, 200)
		}
		traced(t, c, 1, slog.New(slog.NewTextHandler(&out, nil)), func(traces *Traces) {
			for range 2 * 36 {
				exportEach(t, traces, 1)
				time.Sleep(2500 * time.Millisecond) // of the bubble
			}
		})
		if lost, again := strings.Count(out.String(), "are lost"), strings.Count(out.String(), "exported again"); lost != 3 || again != 3 {
			t.Errorf("in three minutes there were %d warnings: %s", lost, &out)
		}
	})
}

// exportEach creates spans and exports each by itself.
func exportEach(t *testing.T, traces *Traces, n int) {
	t.Helper()
	for range n {
		oneSpan(traces)
		if err := traces.provider.ForceFlush(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// unreachable is a network on which a call ends only with its context.
type unreachable struct{}

func (unreachable) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, errors.New("unreachable")
}

func TestCloseWaitsForTheCollectorUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		traces, err := newTraces(Tracing{URL: "http://collector.test/v1/traces", Ratio: 1}, silent, through(unreachable{}))
		if err != nil {
			t.Fatal(err)
		}
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

// While a collector does not answer, spans are dropped, and ending a span does not block.
func TestSlowCollectorDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		traces, err := newTraces(Tracing{URL: "http://collector.test/v1/traces", Ratio: 1}, silent, through(unreachable{}))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for range 10_000 { // more than the queue of the SDK holds
			oneSpan(traces)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("10,000 spans took %s", took)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = traces.Close(ctx)
	})
}

// The standard variables work: TLS with the certificate of a private authority, compression
// and a header.
func TestExporterTakesTheStandardVariables(t *testing.T) {
	c := &collector{}
	server := httptest.NewTLSServer(c)
	defer server.Close()
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", authority)
	t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b")
	t.Setenv("OTEL_SERVICE_NAME", "mine")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1") // the URL of Tracing overrides it
	traces, err := NewTraces(Tracing{URL: server.URL + "/otlp/v1/traces", Ratio: 1}, silent)
	if err != nil {
		t.Fatal(err)
	}
	oneSpan(traces)
	if err := traces.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if len(c.calls) != 1 || len(c.spans) != 1 {
		t.Fatalf("%d calls, %d spans", len(c.calls), len(c.spans))
	}
	post := c.calls[0]
	if post.URL.Path != "/otlp/v1/traces" || post.Header.Get("Api-Key") != "a b" || post.Header.Get("Content-Encoding") != "gzip" || c.resource["service.name"] != "mine" {
		t.Errorf("%s with %v, of %v", post.URL, post.Header, c.resource)
	}
}

func TestNewTracesRefusesWhatIsNoURL(t *testing.T) {
	t.Parallel()
	for _, endpoint := range []string{"", "collector:4318", "grpc://collector:4317"} {
		if _, err := NewTraces(Tracing{URL: endpoint}, silent); err == nil {
			t.Errorf("%q was accepted", endpoint)
		}
	}
}
