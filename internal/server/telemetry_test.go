package server

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/simmodel"
)

// span is a span that the collector decoded.
type span struct {
	TraceID, SpanID, ParentSpanID, Name string
	attributes                          map[string]string
}

func newSpan(s *tracepb.Span) span {
	decoded := span{
		TraceID: hex.EncodeToString(s.TraceId), SpanID: hex.EncodeToString(s.SpanId), ParentSpanID: hex.EncodeToString(s.ParentSpanId),
		Name: s.Name, attributes: map[string]string{},
	}
	for _, a := range s.Attributes {
		switch v := a.Value.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			decoded.attributes[a.Key] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			decoded.attributes[a.Key] = strconv.FormatInt(v.IntValue, 10)
		}
	}
	return decoded
}

// attribute returns a text or an integer; "" for none.
func (s span) attribute(key string) string { return s.attributes[key] }

// collector receives the traces of a test.
type collector struct {
	url string

	mu    sync.Mutex
	spans map[string][]span // by name; guarded by mu
}

func collect(t *testing.T) *collector {
	c := &collector{spans: map[string][]span{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body coltracepb.ExportTraceServiceRequest
		text, err := io.ReadAll(r.Body)
		if err == nil {
			err = proto.Unmarshal(text, &body)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("a collector was sent %v at %s", err, r.URL.Path)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, of := range body.ResourceSpans {
			for _, s := range of.ScopeSpans[0].Spans {
				c.spans[s.Name] = append(c.spans[s.Name], newSpan(s))
			}
		}
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

// one returns the only span of a name.
func (c *collector) one(t *testing.T, name string) span {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spans[name]) != 1 {
		t.Fatalf("there are %d spans %q: %v", len(c.spans[name]), name, c.spans)
	}
	return c.spans[name][0]
}

// recordingUpstream returns an upstream, and the traceparents that it receives.
func recordingUpstream(t *testing.T) (url string, sent <-chan string) {
	c := make(chan string, 10)
	model := simmodel.New(simmodel.Options{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c <- r.Header.Get("Traceparent")
		model.ServeHTTP(w, r)
	}))
	t.Cleanup(upstream.Close)
	t.Cleanup(upstream.CloseClientConnections)
	return upstream.URL + "/v1", c
}

const (
	theirTrace = "0af7651916cd43dd8448eb211c80319c"
	theirs     = "00-" + theirTrace + "-b7ad6b7169203331-01"
	question   = `{"queue":"chat","input":{"messages":[{"role":"user","content":"hello"}]}}`
)

// One trace has the submit, the attempt and the upstream call, each the child of the one
// before, although one server accepted the job and another ran it.
func TestTraceFollowsAJobOverARestart(t *testing.T) {
	t.Parallel()
	c := collect(t)
	upstream, sent := recordingUpstream(t)
	settings := func(c2 *config.Config) {
		c2.Models = []config.Model{{Name: "m", BaseURL: upstream}}
		c2.Tracing = config.Tracing{Endpoint: c.url, Ratio: 1}
	}
	first := serve(t, settings)
	if status, _ := first.text("POST", "/v1/queues/chat/pause", ""); status != 200 {
		t.Fatalf("pause: %d", status)
	}
	_, j := first.call("POST", "/v1/jobs", question, "Traceparent", theirs)
	first.quit()

	second := serve(t, func(c *config.Config) { settings(c); c.Data = first.cfg.Data })
	second.text("POST", "/v1/queues/chat/resume", "")
	id, _ := j["id"].(string)
	if _, end := second.call("GET", "/v1/jobs/"+id, "", "Prefer", "wait=60"); end["status"] != "succeeded" {
		t.Fatalf("the job ended as %v", end)
	}
	second.quit()

	submit, attempt, call := c.one(t, "POST /v1/jobs"), c.one(t, "job chat"), c.one(t, "upstream call")
	for _, s := range []span{submit, attempt, call} {
		if s.TraceID != theirTrace {
			t.Errorf("%s is of the trace %s", s.Name, s.TraceID)
		}
	}
	if submit.ParentSpanID != theirs[36:52] || attempt.ParentSpanID != submit.SpanID || call.ParentSpanID != attempt.SpanID {
		t.Errorf("%s is under %s, %s under %s, %s under %s", submit.SpanID, submit.ParentSpanID, attempt.SpanID, attempt.ParentSpanID, call.SpanID, call.ParentSpanID)
	}
	if got, want := <-sent, "00-"+theirTrace+"-"+call.SpanID+"-01"; got != want {
		t.Errorf("the upstream was sent %s, not %s", got, want)
	}
	if attempt.attribute("meanwhile.job.id") != id || attempt.attribute("meanwhile.outcome") != "succeeded" ||
		call.attribute("gen_ai.request.model") != "m" || call.attribute("http.response.status_code") != "200" || call.attribute("gen_ai.usage.output_tokens") == "" {
		t.Errorf("they say %+v and %+v", attempt.attributes, call.attributes)
	}
}

// A question without a traceparent starts a trace.
func TestQuestionBeginsATrace(t *testing.T) {
	t.Parallel()
	c := collect(t)
	s := serve(t, func(c2 *config.Config) { c2.Tracing = config.Tracing{Endpoint: c.url, Ratio: 1} })
	_, task := s.call("POST", "/api/chat", `{"query":"How do tides work?"}`)
	id, _ := task["task_id"].(string)
	s.text("POST", "/api/chat/cancel/"+id, "")
	s.call("GET", "/v1/jobs/"+id, "", "Prefer", "wait=60")
	s.quit()
	ask, attempt := c.one(t, "POST /api/chat"), c.one(t, "job chat")
	if ask.ParentSpanID != "" || attempt.TraceID != ask.TraceID || attempt.ParentSpanID != ask.SpanID || attempt.attribute("meanwhile.outcome") != "cancelled" {
		t.Errorf("%+v is not under %+v", attempt, ask)
	}
}

// askOverSocket asks a question over a socket that was opened with a traceparent. It
// returns the question's job once that has ended.
func (s *testServer) askOverSocket(traceparent string) (task string) {
	s.t.Helper()
	conn, _, err := websocket.Dial(s.t.Context(), s.URL()+"/ws", &websocket.DialOptions{HTTPHeader: http.Header{"Traceparent": {traceparent}}})
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.CloseNow()
	if err := conn.Write(s.t.Context(), websocket.MessageText, []byte(`{"type":"chat_query","query":"hello"}`)); err != nil {
		s.t.Fatal(err)
	}
	for {
		_, data, err := conn.Read(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		var message struct {
			Type   string
			TaskID string `json:"task_id"`
		}
		if err := json.Unmarshal(data, &message); err != nil || message.Type == "error" {
			s.t.Fatalf("heard %s", data)
		}
		if message.Type == "chat_response" {
			return message.TaskID
		}
	}
}

// The span is a child of the request that opened the socket, which is still open.
func TestQuestionOverASocketHasASpan(t *testing.T) {
	t.Parallel()
	c := collect(t)
	upstream, sent := recordingUpstream(t)
	s := serve(t, func(c2 *config.Config) {
		c2.Models = []config.Model{{Name: "m", BaseURL: upstream}}
		c2.Tracing = config.Tracing{Endpoint: c.url, Ratio: 1}
	})
	task := s.askOverSocket(theirs)
	s.quit()
	ask, attempt, call := c.one(t, "chat_query"), c.one(t, "job chat"), c.one(t, "upstream call")
	if ask.TraceID != theirTrace || ask.ParentSpanID == "" || attempt.ParentSpanID != ask.SpanID || call.ParentSpanID != attempt.SpanID {
		t.Errorf("%+v, %+v and %+v are not each under the one before", ask, attempt, call)
	}
	if got, want := <-sent, "00-"+theirTrace+"-"+call.SpanID+"-01"; got != want || ask.attribute("meanwhile.job.id") != task {
		t.Errorf("of %+v the upstream was sent %s, not %s", ask, got, want)
	}
}

func TestTraceparentIsPassedOnWithoutTracing(t *testing.T) {
	t.Parallel()
	upstream, sent := recordingUpstream(t)
	s := serve(t, func(c *config.Config) { c.Models = []config.Model{{Name: "m", BaseURL: upstream}} })
	s.call("POST", "/v1/jobs", question, "Traceparent", theirs, "Prefer", "wait=60")
	if got := <-sent; got != theirs {
		t.Errorf("the upstream was sent %q", got)
	}
	s.call("POST", "/v1/jobs", question, "Traceparent", "nonsense", "Prefer", "wait=60")
	if got := <-sent; got != "" {
		t.Errorf("of nonsense the upstream was sent %q", got)
	}
	s.call("POST", "/v1/jobs/batch", `{"jobs":[`+question+`]}`, "Traceparent", theirs)
	if got := <-sent; got != theirs {
		t.Errorf("of a batch the upstream was sent %q", got)
	}
	s.askOverSocket(theirs)
	if got := <-sent; got != theirs {
		t.Errorf("of a question over a socket the upstream was sent %q", got)
	}
}

func TestMetricsAtASeparateAddress(t *testing.T) {
	t.Parallel()
	s := serve(t, func(c *config.Config) { c.Metrics.Listen = "127.0.0.1:0" })
	if status, _ := s.text("GET", "/metrics", ""); status != 404 {
		t.Errorf("the server's own address answers /metrics with %d", status)
	}
	other := "http://" + s.components.instruments.listener.Addr().String()
	for path, want := range map[string]int{"/metrics": 200, "/v1/jobs": 404, "/debug/pprof/": 404} {
		res, err := http.Get(other + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("the metrics' address answers %s with %d", path, res.StatusCode)
		}
	}
	s.quit()
	if _, err := http.Get(other + "/metrics"); err == nil {
		t.Error("the metrics outlive the server")
	}
}

func TestProfilesAreServedIfEnabled(t *testing.T) {
	t.Parallel()
	if status, _ := serve(t, nil).text("GET", "/debug/pprof/", ""); status != 404 {
		t.Errorf("unasked for, /debug/pprof/ answers %d", status)
	}
	s := serve(t, func(c *config.Config) { c.Pprof = true })
	for path, want := range map[string]string{"/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=1": "goroutine profile", "/debug/pprof/cmdline": "server.test"} {
		if status, text := s.text("GET", path, ""); status != 200 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %.80s", path, status, text)
		}
	}
}
