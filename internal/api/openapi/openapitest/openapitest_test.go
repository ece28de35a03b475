package openapitest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// fakeT records the failures of a test.
type fakeT struct{ faults []string }

func (j *fakeT) Helper() {}

func (j *fakeT) Errorf(format string, args ...any) {
	j.faults = append(j.faults, fmt.Sprintf(format, args...))
}

const (
	notFound  = `{"type":"about:blank","title":"Not Found","status":404,"detail":"there is no job","code":"not_found"}`
	stopping  = `{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"the server is stopping","code":"shutting_down"}`
	heartbeat = `{"status":"ok","expires_in_s":60}`
	progress  = "event: progress\nid: 1\ndata: {\"seq\":1,\"attempt\":1,\"kind\":\"progress\",\"data\":{}}\n\n"
	job       = "/v1/jobs/job_06gzv0hv4nx3x2tbamncww1dcw"
)

// exchanges are responses and the fault that the check should find in each; "" for none.
var exchanges = []struct {
	rule          string
	method, path  string
	status        int
	kind, body    string
	header, wrong string
}{
	{"a described response", "POST", "/api/heartbeat", 200, "application/json", heartbeat, "", ""},
	{"a status that is not described", "POST", "/api/heartbeat", 201, "application/json", heartbeat, "", "no such response"},
	{"a content type that is not described", "POST", "/api/heartbeat", 200, "text/html", heartbeat, "", "text/html"},
	{"a field that is not in the schema", "POST", "/api/heartbeat", 200, "application/json", `{"status":"ok","expires_in_s":60,"more":1}`, "", "additional properties 'more'"},
	{"a missing field", "POST", "/api/heartbeat", 200, "application/json", `{"status":"ok"}`, "", "expires_in_s"},
	{"not JSON", "POST", "/api/heartbeat", 200, "application/json", `{`, "", "not JSON"},
	{"a body that is not described", "DELETE", job, 204, "", "x", "", "no body"},
	{"a problem", "GET", job, 404, "application/problem+json", notFound, "", ""},
	{"a code that is not described", "GET", job, 404, "application/problem+json", strings.Replace(notFound, "not_found", "conflict", 1), "", "value must be 'not_found'"},
	{"a problem of another status", "GET", job, 404, "application/problem+json", strings.Replace(notFound, "404", "400", 1), "", "the status in the problem is 400"},
	{"a 503 with Retry-After", "GET", job, 503, "application/problem+json", stopping, "Retry-After: 1", ""},
	{"a 503 without Retry-After", "GET", job, 503, "application/problem+json", stopping, "", "no Retry-After"},
	{"an invalid header", "GET", job, 503, "application/problem+json", stopping, "Retry-After: soon", "soon"},
	{"an unknown path", "GET", "/nowhere", 404, "application/problem+json", notFound, "", ""},
	{"a path with an entry of its own is not a job's path", "GET", "/v1/jobs/batch", 200, "text/plain", "x", "", "nothing is described there"},
	{"a path that is not described", "GET", "/secret", 200, "text/plain", "x", "", "nothing is described there"},
	{"an event", "GET", job + "/events", 200, "text/event-stream", ":\n\n" + progress, "", ""},
	{"an incomplete event is not checked", "GET", job + "/events", 200, "text/event-stream", progress + "event: noth", "", ""},
	{"an unknown event", "GET", job + "/events", 200, "text/event-stream", strings.Replace(progress, "progress", "news", 1), "", "no event"},
	{"an event with other data", "GET", job + "/events", 200, "text/event-stream", strings.Replace(progress, `"seq":1`, `"seq":0`, 1), "", "seq"},
	{"an invalid event id", "GET", job + "/events", 200, "text/event-stream", strings.Replace(progress, "id: 1", "id: 01", 1), "", "id \"01\""},
	{"an event other than done with a done id", "GET", job + "/events", 200, "text/event-stream", strings.Replace(progress, "id: 1", "id: 1.done", 1), "", "1.done"},
	{"another text than described", "GET", "/healthz", 200, "text/plain; charset=utf-8", "dead\n", "", "alive"},
}

func TestUndescribedResponseFailsTest(t *testing.T) {
	t.Parallel()
	for _, c := range exchanges {
		answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			if name, value, ok := strings.Cut(c.header, ": "); ok {
				w.Header().Set(name, value)
			}
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.body))
		})
		j := &fakeT{}
		CheckHandler(j, answer).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(c.method, c.path, nil))
		checkFaults(t, "handler: "+c.rule, j, c.wrong)

		j = &fakeT{}
		server := httptest.NewServer(answer)
		req, _ := http.NewRequest(c.method, server.URL+c.path, nil)
		if res, err := (&http.Client{Transport: CheckTransport(j)}).Do(req); err == nil {
			for buf := make([]byte, 100); err == nil; {
				_, err = res.Body.Read(buf)
			}
			res.Body.Close()
		}
		server.Close()
		if c.status != http.StatusNoContent { // net/http sends no body with it
			checkFaults(t, "transport: "+c.rule, j, c.wrong)
		}
	}
}

func checkFaults(t *testing.T, rule string, j *fakeT, wrong string) {
	t.Helper()
	switch {
	case wrong == "" && len(j.faults) > 0:
		t.Errorf("%s: %v", rule, j.faults)
	case wrong != "" && (len(j.faults) != 1 || !strings.Contains(j.faults[0], wrong)):
		t.Errorf("%s: %q, want a fault about %q", rule, j.faults, wrong)
	}
}

// A request that the server accepts must be allowed by the description.
func TestUndescribedRequestFailsTest(t *testing.T) {
	t.Parallel()
	for body, wrong := range map[string]string{
		`{"title":"x"}`: "", `{"title":null}`: "", ``: "",
		`{"title":1}`: "does not allow", `{"name":"x"}`: "does not allow",
	} {
		j := &fakeT{}
		CheckHandler(j, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = json.NewDecoder(r.Body).Decode(&struct{}{})
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write([]byte(`{"id":"c","conversation_id":"c","title":"x","created_at":"2030-01-31T09:00:00Z","last_message_at":"2030-01-31T09:00:00Z"}`))
		})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/api/conversations", strings.NewReader(body)))
		checkFaults(t, body, j, wrong)
	}
}

func TestMessageIsCheckedAgainstSchema(t *testing.T) {
	t.Parallel()
	for text, wrong := range map[string]string{
		`{"type":"unwatched","id":"job_06gzv0hv4nx3x2tbamncww1dcw"}`: "",
		`{"type":"watched","id":"job_06gzv0hv4nx3x2tbamncww1dcw"}`:   "none matched",
	} {
		j := &fakeT{}
		CheckMessage(j, "WatchMessage", []byte(text))
		checkFaults(t, text, j, wrong)
	}
}

// Every schema can be compiled, and every example matches its schema.
func TestExamplesMatchSchemas(t *testing.T) {
	t.Parallel()
	s, count := loadSpec(), 0
	for name := range s.at("/components/schemas").(map[string]any) {
		if _, err := s.schema("/components/schemas/" + name); err != nil {
			t.Error(err)
		}
	}
	var look func(pointer string, v any)
	look = func(pointer string, v any) {
		in, ok := v.(map[string]any)
		if !ok {
			return
		}
		examples, _ := in["examples"].([]any)
		for _, example := range examples {
			count++
			if err := s.validateValue(pointer, example); err != nil {
				t.Error(err)
			}
		}
		if example, ok := in["example"]; ok && in["x-events"] == nil {
			count++
			if err := s.validateValue(pointer+"/schema", example); err != nil {
				t.Error(err)
			}
		}
		for key, member := range in {
			look(pointer+"/"+escape(key), member)
		}
	}
	look("", s.doc)
	if count < 10 {
		t.Errorf("only %d examples were found", count)
	}
}
