package jobs

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/openapi/openapitest"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// site is the face over a real engine and a real store, with one worker whose
// every move the test makes.
type site struct {
	*testing.T
	engine *engine.Engine
	url    string
	work   chan job.Claimed // what the worker was given
	stop   func()           // as the server's stop does: what is held is let go
	face   *API
	close  func() // of what is open
}

const siteSlots = 2

func newSite(t *testing.T) *site {
	t.Helper()
	file, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "jobs.db"), sqlite.Options{Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	queue := aQueue()
	queue.MaxDepth, queue.MaxAttempts, queue.Keep, queue.KeepFailed = 3, 1, time.Hour, time.Hour
	e, err := engine.New(t.Context(), engine.Config{Store: file, Queues: []engine.Queue{queue}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stopEngine := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()

	s := &site{T: t, engine: e, work: make(chan job.Claimed, 100)}
	unserve := e.Consume(job.Worker{
		Name: "hand", Queue: "sim", Slots: siteSlots,
		Deliver: func(c job.Claimed) { s.work <- c }, Order: func(job.Lease, job.Order) {},
	})
	s.open(stream.DefaultDeadlines)
	t.Cleanup(func() {
		s.close()
		unserve()
		stopEngine()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		if err := file.Close(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

// open puts a new face before the engine, as a restart would.
func (s *site) open(p stream.Deadlines) {
	if s.close != nil {
		s.close()
	}
	tokens, err := gate.NewTokens(make([]byte, gate.TokenKeySize))
	if err != nil {
		s.Fatal(err)
	}
	neighbours := &gate.Gate{Listen: []string{"127.0.0.1"}, AllowedOrigins: []string{"https://app.example"}, Tokens: tokens, TokenTTL: time.Hour}
	stopping, stop := context.WithCancel(context.Background())
	s.face = New(Config{Engine: FromEngine(s.engine), Gate: neighbours, Stopping: stopping})
	s.face.sockets.Deadlines = p
	mux := http.NewServeMux()
	s.face.Register(mux)
	server := httptest.NewUnstartedServer(openapitest.CheckHandler(s, neighbours.Handler(mux)))
	server.Config.BaseContext = func(net.Listener) context.Context { return api.WithDirect(context.Background()) }
	if p != stream.DefaultDeadlines { // a test of clients that do not read
		server.Config.ConnState = func(c net.Conn, _ http.ConnState) { _ = c.(*net.TCPConn).SetWriteBuffer(4096) }
	}
	server.Start()
	s.url, s.stop = server.URL, stop
	s.close = func() {
		stop()
		server.Close()
		s.face.Wait()
	}
}

// call makes a request and returns the answer with its body read.
func (s *site) call(method, path, body string, headers ...string) (*http.Response, string) {
	s.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.Fatalf("%s %s: %v after %q", method, path, err, text)
	}
	return res, string(text)
}

// follow begins a stream of a job's events; it has begun when follow returns.
func (s *site) follow(id string) *http.Response {
	s.Helper()
	res, err := http.DefaultClient.Get(s.url + "/v1/jobs/" + id + "/events")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func readAll(t *testing.T, res *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Errorf("%v after %q", err, text)
	}
	return string(text)
}

// want makes a request whose answer has the status and, where it is a job or a
// problem, those values; it returns the answer's id.
func (s *site) want(status int, values map[string]any, method, path, body string, headers ...string) string {
	s.Helper()
	res, text := s.call(method, path, body, headers...)
	if res.StatusCode != status {
		s.Fatalf("%s %s: %d %s, want %d", method, path, res.StatusCode, text, status)
	}
	var got map[string]any
	if text != "" && json.Unmarshal([]byte(text), &got) != nil {
		s.Fatalf("%s %s: no JSON: %s", method, path, text)
	}
	for name, value := range values {
		if got[name] != value {
			s.Fatalf("%s %s: %s is %v, want %v: %s", method, path, name, got[name], value, text)
		}
	}
	id, _ := got["id"].(string)
	return id
}

type values = map[string]any

const small = `{"queue":"sim","input":{}}`

// say appends text as the job's worker does.
func (s *site) say(c job.Claimed, seq int64, text string) {
	s.Helper()
	err := s.engine.Append(s.Context(), c.Lease(), []job.Entry{{Seq: seq, Attempt: c.Job.Attempt, Kind: job.KindText, Events: 1, Data: []byte(text)}}, nil)
	if err != nil {
		s.Fatal(err)
	}
}

func (s *site) finish(c job.Claimed, o job.Outcome) {
	s.Helper()
	if _, err := s.engine.Finish(s.Context(), c.Lease(), o); err != nil {
		s.Error(err)
	}
}

func done(body string) job.Outcome {
	return job.Outcome{Result: &job.Result{ContentType: "application/json", Body: []byte(body)}}
}

func TestAJobFromPostToResult(t *testing.T) {
	s := newSite(t)
	id := s.want(202, values{"status": "running", "attempt": 1.0}, "POST", "/v1/jobs", small)
	s.want(409, values{"code": "not_finished"}, "GET", "/v1/jobs/"+id+"/result", "")
	c := <-s.work
	s.say(c, 1, "Hello")
	s.want(200, values{"output_text": "Hello", "cursor": 1.0}, "GET", "/v1/jobs/"+id, "")
	s.finish(c, done(`{"answer":42}`))
	s.want(200, values{"status": "succeeded"}, "GET", "/v1/jobs/"+id, "", "Prefer", "wait=60")
	if _, text := s.call("GET", "/v1/jobs/"+id+"/result", ""); text != `{"answer":42}` {
		t.Errorf("the result is %s", text)
	}
	s.want(409, values{"code": "not_retryable"}, "POST", "/v1/jobs/"+id+"/retry", "")
	s.want(200, values{"status": "succeeded"}, "POST", "/v1/jobs/"+id+"/cancel", "")
	s.want(204, nil, "DELETE", "/v1/jobs/"+id, "")
	s.want(204, nil, "DELETE", "/v1/jobs/"+id, "")
	s.want(404, values{"code": "not_found"}, "GET", "/v1/jobs/"+id, "")
}

// A held submit is answered at the job's end, with its result.
func TestAHeldSubmit(t *testing.T) {
	s := newSite(t)
	go func() { s.finish(<-s.work, done(`7`)) }()
	s.want(200, values{"status": "succeeded", "result": 7.0}, "POST", "/v1/jobs", small, "Prefer", "wait=60")
}

// A held submit that meets the server's stop is answered with the job as it is.
func TestAHeldSubmitMeetsAStop(t *testing.T) {
	s := newSite(t)
	go func() { <-s.work; s.stop() }()
	s.want(202, values{"status": "running"}, "POST", "/v1/jobs", small, "Prefer", "wait=60")
}

func TestTheSameKeyIsTheSameJob(t *testing.T) {
	s := newSite(t)
	first := s.want(202, nil, "POST", "/v1/jobs", small, "Idempotency-Key", "k")
	res, text := s.call("POST", "/v1/jobs", small, "Idempotency-Key", "k")
	if res.StatusCode != 202 || res.Header.Get("Idempotent-Replay") != "true" || !strings.Contains(text, first) {
		t.Errorf("%d %v %s", res.StatusCode, res.Header, text)
	}
	s.want(422, values{"code": "idempotency_mismatch"}, "POST", "/v1/jobs", small+" ", "Idempotency-Key", "k")
	s.finish(<-s.work, done(`1`))
	s.want(200, values{"id": first, "status": "succeeded"}, "POST", "/v1/jobs", small, "Idempotency-Key", "k", "Prefer", "wait=60")
}

// A full queue says so before it writes.
func TestAFullQueue(t *testing.T) {
	s := newSite(t)
	for range siteSlots + 3 {
		s.want(202, nil, "POST", "/v1/jobs", small)
	}
	res, text := s.call("POST", "/v1/jobs", small)
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || !strings.Contains(text, `"queue_full"`) {
		t.Errorf("%d %v %s", res.StatusCode, res.Header, text)
	}
	s.want(200, values{"name": "sim"}, "GET", "/v1/queues/sim", "")
}

// To anyone else a job is not there, on every verb.
func TestAJobIsItsOwners(t *testing.T) {
	s := newSite(t)
	id := s.want(202, nil, "POST", "/v1/jobs", small, "X-User-ID", "ann")
	for _, call := range [][2]string{
		{"GET", ""}, {"GET", "/output"}, {"GET", "/events"}, {"GET", "/result"}, {"POST", "/cancel"}, {"POST", "/retry"}, {"DELETE", ""},
	} {
		s.want(404, values{"code": "not_found"}, call[0], "/v1/jobs/"+id+call[1], "", "X-User-ID", "bob")
	}
	if _, text := s.call("GET", "/v1/jobs", "", "X-User-ID", "bob"); text != `{"object":"list","data":[],"next":null}` {
		t.Errorf("bob's list: %s", text)
	}
	s.want(200, values{"id": id}, "GET", "/v1/jobs/"+id, "", "X-User-ID", "ann")
}

func TestCancelAndRetry(t *testing.T) {
	s := newSite(t)
	waiting := s.want(202, values{"status": "scheduled"}, "POST", "/v1/jobs", `{"queue":"sim","input":1,"delay_s":3600}`)
	s.want(200, values{"status": "cancelled"}, "POST", "/v1/jobs/"+waiting+"/cancel", "")
	running := s.want(202, values{"status": "running"}, "POST", "/v1/jobs", small)
	c := <-s.work
	s.want(202, values{"status": "running"}, "POST", "/v1/jobs/"+running+"/cancel", "")
	s.finish(c, job.Outcome{Cancelled: true})
	s.want(200, values{"status": "cancelled"}, "GET", "/v1/jobs/"+running, "")
	s.want(409, values{"code": "conflict"}, "GET", "/v1/jobs/"+running+"/result", "")
	s.want(202, nil, "POST", "/v1/jobs/"+running+"/retry", "")
	s.finish(<-s.work, job.Outcome{Fault: &job.Fault{Code: "x", Message: "it broke", Class: job.Final}})
	s.want(409, values{"code": "conflict", "detail": "the job failed, so it has no result"}, "GET", "/v1/jobs/"+running+"/result", "")
}

// Pages follow each other by their cursors until there is none.
func TestPagesOfJobs(t *testing.T) {
	s := newSite(t)
	var want []string
	for range 5 {
		want = append([]string{s.want(202, nil, "POST", "/v1/jobs", small)}, want...)
	}
	var got []string
	for after := ""; ; {
		_, text := s.call("GET", "/v1/jobs?limit=2&after="+after, "")
		var page struct {
			Data []struct{ ID string }
			Next *string
		}
		if err := json.Unmarshal([]byte(text), &page); err != nil {
			t.Fatal(err)
		}
		for _, j := range page.Data {
			got = append(got, j.ID)
		}
		if page.Next == nil {
			break
		}
		after = *page.Next
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// Who follows live, who comes back in the midst and who comes late hear the same,
// and who heard the end is sent away.
func TestEveryWatcherHearsTheLog(t *testing.T) {
	s := newSite(t)
	id := s.want(202, nil, "POST", "/v1/jobs", small)
	c := <-s.work
	live := s.follow(id)
	s.say(c, 1, "One ")
	s.want(200, values{"cursor": 1.0}, "GET", "/v1/jobs/"+id+"/output", "", "Prefer", "wait=60")
	s.say(c, 2, "two ")
	s.finish(c, job.Outcome{Entries: []job.Entry{{Seq: 3, Attempt: 1, Kind: job.KindText, Events: 1, Data: []byte("three")}}, Result: done("3").Result})

	heard := log(readAll(t, live))
	if want := "output@1 output@2 output@3 done@3.done"; names(heard) != want {
		t.Fatalf("live: %s, want %s", names(heard), want)
	}
	for i, m := range heard {
		res, text := s.call("GET", "/v1/jobs/"+id+"/events", "", "Last-Event-ID", m.id)
		if rest := log(text); names(rest) != names(heard[i+1:]) {
			t.Errorf("after %s: %s", m.id, names(rest))
		}
		if wantStatus := map[bool]int{true: 204, false: 200}[i == len(heard)-1]; res.StatusCode != wantStatus {
			t.Errorf("after %s: %d", m.id, res.StatusCode)
		}
	}
	if _, late := s.call("GET", "/v1/jobs/"+id+"/events?after=0", ""); names(log(late)) != names(heard) {
		t.Errorf("late: %s", names(log(late)))
	}
}

// log is a stream without its snapshots, which depend on when one looks.
func log(stream string) []message {
	var all []message
	for _, m := range parse(stream) {
		if m.event != "snapshot" {
			all = append(all, m)
		}
	}
	return all
}

// A deleted job's streams end, and are not found again.
func TestAStreamOfADeletedJob(t *testing.T) {
	s := newSite(t)
	id := s.want(202, nil, "POST", "/v1/jobs", `{"queue":"sim","input":1,"delay_s":3600}`)
	events := s.follow(id)
	s.want(204, nil, "DELETE", "/v1/jobs/"+id, "")
	if text := readAll(t, events); !strings.Contains(text, "\nretry: ") {
		t.Errorf("%q", text)
	}
	s.want(404, values{"code": "not_found"}, "GET", "/v1/jobs/"+id+"/events", "")
}
