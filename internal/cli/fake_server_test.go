package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// fakeServer gives fixed answers and records the requests.
type fakeServer struct {
	*httptest.Server
	mux *http.ServeMux

	mu       sync.Mutex
	requests []string // method, path and body
}

func newFakeServer(t *testing.T) *fakeServer {
	f := &fakeServer{mux: http.NewServeMux()}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		f.mu.Lock()
		f.requests = append(f.requests, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
		f.mu.Unlock()
		f.mux.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Server.Close)
	f.respond("GET /v1/queues/chat", 200, `{"name":"chat","executor":"llm"}`)
	f.respond("GET /v1/queues/sim", 200, `{"name":"sim","executor":"sim"}`)
	return f
}

// respond sets the answer for requests that match a pattern.
func (f *fakeServer) respond(pattern string, status int, body string) *fakeServer {
	f.mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
		if status == 429 || status == 503 {
			w.Header().Set("Retry-After", "3600")
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
	return f
}

// respondProblem refuses requests that match a pattern.
func (f *fakeServer) respondProblem(pattern string, status int, code string) *fakeServer {
	return f.respond(pattern, status, fmt.Sprintf(`{"status":%d,"code":"%s","detail":"this is %s"}`, status, code, code))
}

// respondStream sets the events of a job. Each connection gets the next element and is
// then cut; the last element is for all further connections.
func (f *fakeServer) respondStream(id string, connections ...string) *fakeServer {
	n := 0
	f.mux.HandleFunc("GET /v1/jobs/"+id+"/events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, connections[min(n, len(connections)-1)])
		n++
	})
	return f
}

func (f *fakeServer) lastRequest() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.requests) == 0 {
		return ""
	}
	return f.requests[len(f.requests)-1]
}

func event(name, data string) string { return "event: " + name + "\ndata: " + data + "\n\n" }

// snapshot returns a snapshot event of a job.
func snapshot(status string, cursor int) string {
	return event("snapshot", fmt.Sprintf(`{"id":"job_1","status":%q,"cursor":%d,"progress":{"percent":0}}`, status, cursor))
}

func text(seq, attempt int, words string) string {
	return event("output", fmt.Sprintf(`{"seq":%d,"attempt":%d,"kind":"text","data":%s}`, seq, attempt, quoted(words)))
}

func logLine(seq int, words string) string {
	return event("output", fmt.Sprintf(`{"seq":%d,"attempt":1,"kind":"log","data":%s}`, seq, quoted(words)))
}

func restart(seq, attempt int) string {
	return event("attempt", fmt.Sprintf(`{"seq":%d,"attempt":%d,"kind":"attempt","data":{"attempt":%d}}`, seq, attempt, attempt))
}

func progress(seq int, percent int, status string) string {
	return event("progress", fmt.Sprintf(`{"seq":%d,"attempt":1,"kind":"progress","data":{"percent":%d,"status":%s}}`, seq, percent, quoted(status)))
}

func done(status string, cursor int) string {
	return event("done", fmt.Sprintf(`{"id":"job_1","status":%q,"cursor":%d,"max_attempts":4,"result":{"echo":7},`+
		`"error":{"code":"broken","message":"the work broke","attempt":4}}`, status, cursor))
}

func quoted(words string) string {
	text, err := json.Marshal(words)
	if err != nil {
		panic(err)
	}
	return string(text)
}
