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

// harness is the API over a real engine and a real store, with a worker that the test
// controls.
type harness struct {
	*testing.T
	engine *engine.Engine
	url    string
	work   chan job.Claimed // the jobs that the worker has claimed
	stop   func()           // like the server's stop: waiting requests return
	api    *API
	close  func() // closes everything
}

const harnessSlots = 2

func newHarness(t *testing.T) *harness {
	t.Helper()
	file, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "jobs.db"), sqlite.Options{Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	queue := testQueue()
	queue.MaxDepth, queue.MaxAttempts, queue.Keep, queue.KeepFailed = 3, 1, time.Hour, time.Hour
	e, err := engine.New(t.Context(), engine.Config{Store: file, Queues: []engine.Queue{queue}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stopEngine := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()

	h := &harness{T: t, engine: e, work: make(chan job.Claimed, 100)}
	unserve := e.Consume(job.Worker{
		Name: "hand", Queue: "sim", Slots: harnessSlots,
		Deliver: func(c job.Claimed) { h.work <- c }, Order: func(job.Lease, job.Order) {},
	})
	h.startAPI(stream.DefaultDeadlines)
	t.Cleanup(func() {
		h.close()
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
	return h
}

// startAPI starts a new API for the engine, as a restart of the server would.
func (h *harness) startAPI(p stream.Deadlines) {
	if h.close != nil {
		h.close()
	}
	tokens, err := gate.NewTokens(make([]byte, gate.TokenKeySize))
	if err != nil {
		h.Fatal(err)
	}
	neighbours := &gate.Gate{Listen: []string{"127.0.0.1"}, AllowedOrigins: []string{"https://app.example"}, Tokens: tokens, TokenTTL: time.Hour}
	stopping, stop := context.WithCancel(context.Background())
	h.api = New(Config{Engine: FromEngine(h.engine), Gate: neighbours, Stopping: stopping})
	h.api.sockets.Deadlines = p
	mux := gate.NewMux()
	h.api.Register(mux)
	server := httptest.NewUnstartedServer(openapitest.CheckHandler(h, neighbours.Handler(mux)))
	server.Config.BaseContext = func(net.Listener) context.Context { return api.WithDirect(context.Background()) }
	if p != stream.DefaultDeadlines { // this test has clients that do not read
		server.Config.ConnState = func(c net.Conn, _ http.ConnState) { _ = c.(*net.TCPConn).SetWriteBuffer(4096) }
	}
	server.Start()
	h.url, h.stop = server.URL, stop
	h.close = func() {
		stop()
		server.Close()
		h.api.Wait()
	}
}

// call makes a request and returns the response with its body.
func (h *harness) call(method, path, body string, headers ...string) (*http.Response, string) {
	h.Helper()
	req, err := http.NewRequest(method, h.url+path, strings.NewReader(body))
	if err != nil {
		h.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		h.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		h.Fatalf("%s %s: %v after %q", method, path, err, text)
	}
	return res, string(text)
}

// follow opens a stream of a job's events. The stream has begun when follow returns.
func (h *harness) follow(id string) *http.Response {
	h.Helper()
	res, err := http.DefaultClient.Get(h.url + "/v1/jobs/" + id + "/events")
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = res.Body.Close() })
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

// want makes a request and checks the status of its response and, where that is a job or
// a problem, some values. It returns the id in the response.
func (h *harness) want(status int, values map[string]any, method, path, body string, headers ...string) string {
	h.Helper()
	res, text := h.call(method, path, body, headers...)
	if res.StatusCode != status {
		h.Fatalf("%s %s: %d %s, want %d", method, path, res.StatusCode, text, status)
	}
	var got map[string]any
	if text != "" && json.Unmarshal([]byte(text), &got) != nil {
		h.Fatalf("%s %s: no JSON: %s", method, path, text)
	}
	for name, value := range values {
		if got[name] != value {
			h.Fatalf("%s %s: %s is %v, want %v: %s", method, path, name, got[name], value, text)
		}
	}
	id, _ := got["id"].(string)
	return id
}

type values = map[string]any

const smallSubmit = `{"queue":"sim","input":{}}`

// appendText appends text as the job's worker does.
func (h *harness) appendText(c job.Claimed, seq int64, text string) {
	h.Helper()
	err := h.engine.Append(h.Context(), c.Lease(), []job.Entry{{Seq: seq, Attempt: c.Job.Attempt, Kind: job.KindText, Events: 1, Data: []byte(text)}}, nil)
	if err != nil {
		h.Fatal(err)
	}
}

func (h *harness) finish(c job.Claimed, o job.Outcome) {
	h.Helper()
	if _, err := h.engine.Finish(h.Context(), c.Lease(), o); err != nil {
		h.Error(err)
	}
}

func success(body string) job.Outcome {
	return job.Outcome{Result: &job.Result{ContentType: "application/json", Body: []byte(body)}}
}

func TestJobFromSubmitToResult(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.want(202, values{"status": "running", "attempt": 1.0}, "POST", "/v1/jobs", smallSubmit)
	h.want(409, values{"code": "not_finished"}, "GET", "/v1/jobs/"+id+"/result", "")
	c := <-h.work
	h.appendText(c, 1, "Hello")
	h.want(200, values{"output_text": "Hello", "cursor": 1.0}, "GET", "/v1/jobs/"+id, "")
	h.finish(c, success(`{"answer":42}`))
	h.want(200, values{"status": "succeeded"}, "GET", "/v1/jobs/"+id, "", "Prefer", "wait=60")
	if _, text := h.call("GET", "/v1/jobs/"+id+"/result", ""); text != `{"answer":42}` {
		t.Errorf("the result is %s", text)
	}
	h.want(409, values{"code": "not_retryable"}, "POST", "/v1/jobs/"+id+"/retry", "")
	h.want(200, values{"status": "succeeded"}, "POST", "/v1/jobs/"+id+"/cancel", "")
	h.want(204, nil, "DELETE", "/v1/jobs/"+id, "")
	h.want(204, nil, "DELETE", "/v1/jobs/"+id, "")
	h.want(404, values{"code": "not_found"}, "GET", "/v1/jobs/"+id, "")
}

// A submit with a wait is answered at the job's end, with its result.
func TestSubmitWaitsForEnd(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	go func() { h.finish(<-h.work, success(`7`)) }()
	h.want(200, values{"status": "succeeded", "result": 7.0}, "POST", "/v1/jobs", smallSubmit, "Prefer", "wait=60")
}

// When the server stops during the wait of a submit, the response has the job's current
// state.
func TestStopEndsWaitOfSubmit(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	go func() { <-h.work; h.stop() }()
	h.want(202, values{"status": "running"}, "POST", "/v1/jobs", smallSubmit, "Prefer", "wait=60")
}

func TestSameKeyReturnsSameJob(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	first := h.want(202, nil, "POST", "/v1/jobs", smallSubmit, "Idempotency-Key", "k")
	res, text := h.call("POST", "/v1/jobs", smallSubmit, "Idempotency-Key", "k")
	if res.StatusCode != 202 || res.Header.Get("Idempotent-Replay") != "true" || !strings.Contains(text, first) {
		t.Errorf("%d %v %s", res.StatusCode, res.Header, text)
	}
	h.want(422, values{"code": "idempotency_mismatch"}, "POST", "/v1/jobs", smallSubmit+" ", "Idempotency-Key", "k")
	h.finish(<-h.work, success(`1`))
	h.want(200, values{"id": first, "status": "succeeded"}, "POST", "/v1/jobs", smallSubmit, "Idempotency-Key", "k", "Prefer", "wait=60")
}

// A full queue refuses a submit before it writes.
func TestFullQueueRefusesSubmit(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for range harnessSlots + 3 {
		h.want(202, nil, "POST", "/v1/jobs", smallSubmit)
	}
	res, text := h.call("POST", "/v1/jobs", smallSubmit)
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || !strings.Contains(text, `"queue_full"`) {
		t.Errorf("%d %v %s", res.StatusCode, res.Header, text)
	}
	h.want(200, values{"name": "sim"}, "GET", "/v1/queues/sim", "")
}

// Another user's job is not found by any call.
func TestJobIsHiddenFromOtherUsers(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.want(202, nil, "POST", "/v1/jobs", smallSubmit, "X-User-ID", "ann")
	for _, call := range [][2]string{
		{"GET", ""}, {"GET", "/output"}, {"GET", "/events"}, {"GET", "/result"}, {"POST", "/cancel"}, {"POST", "/retry"}, {"DELETE", ""},
	} {
		h.want(404, values{"code": "not_found"}, call[0], "/v1/jobs/"+id+call[1], "", "X-User-ID", "bob")
	}
	if _, text := h.call("GET", "/v1/jobs", "", "X-User-ID", "bob"); text != `{"object":"list","data":[],"next":null}` {
		t.Errorf("bob's list: %s", text)
	}
	h.want(200, values{"id": id}, "GET", "/v1/jobs/"+id, "", "X-User-ID", "ann")
}

func TestCancelAndRetry(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	waiting := h.want(202, values{"status": "scheduled"}, "POST", "/v1/jobs", `{"queue":"sim","input":1,"delay_s":3600}`)
	h.want(200, values{"status": "cancelled"}, "POST", "/v1/jobs/"+waiting+"/cancel", "")
	running := h.want(202, values{"status": "running"}, "POST", "/v1/jobs", smallSubmit)
	c := <-h.work
	h.want(202, values{"status": "running"}, "POST", "/v1/jobs/"+running+"/cancel", "")
	h.finish(c, job.Outcome{Cancelled: true})
	h.want(200, values{"status": "cancelled"}, "GET", "/v1/jobs/"+running, "")
	h.want(409, values{"code": "conflict"}, "GET", "/v1/jobs/"+running+"/result", "")
	h.want(202, nil, "POST", "/v1/jobs/"+running+"/retry", "")
	h.finish(<-h.work, job.Outcome{Fault: &job.Fault{Code: "x", Message: "it broke", Class: job.Final}})
	h.want(409, values{"code": "conflict", "detail": "the job failed, so it has no result"}, "GET", "/v1/jobs/"+running+"/result", "")
}

// The cursor of each page leads to the next page; the last page has none.
func TestListPagesFollowCursors(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var want []string
	for range 5 {
		want = append([]string{h.want(202, nil, "POST", "/v1/jobs", smallSubmit)}, want...)
	}
	var got []string
	for after := ""; ; {
		_, text := h.call("GET", "/v1/jobs?limit=2&after="+after, "")
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

// Clients that follow a job from the start, that reconnect, and that come late all get
// the same events. A client that has the last event gets 204.
func TestAllStreamsSendSameEvents(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.want(202, nil, "POST", "/v1/jobs", smallSubmit)
	c := <-h.work
	early := h.follow(id)
	h.appendText(c, 1, "One ")
	h.want(200, values{"cursor": 1.0}, "GET", "/v1/jobs/"+id+"/output", "", "Prefer", "wait=60")
	h.appendText(c, 2, "two ")
	h.finish(c, job.Outcome{Entries: []job.Entry{{Seq: 3, Attempt: 1, Kind: job.KindText, Events: 1, Data: []byte("three")}}, Result: success("3").Result})

	received := log(readAll(t, early))
	if want := "output@1 output@2 output@3 done@3.done"; eventNames(received) != want {
		t.Fatalf("while running: %s, want %s", eventNames(received), want)
	}
	for i, m := range received {
		res, text := h.call("GET", "/v1/jobs/"+id+"/events", "", "Last-Event-ID", m.id)
		if rest := log(text); eventNames(rest) != eventNames(received[i+1:]) {
			t.Errorf("after %s: %s", m.id, eventNames(rest))
		}
		if wantStatus := map[bool]int{true: 204, false: 200}[i == len(received)-1]; res.StatusCode != wantStatus {
			t.Errorf("after %s: %d", m.id, res.StatusCode)
		}
	}
	if _, late := h.call("GET", "/v1/jobs/"+id+"/events?after=0", ""); eventNames(log(late)) != eventNames(received) {
		t.Errorf("late: %s", eventNames(log(late)))
	}
}

// log returns a stream without its snapshots, which depend on the time of the read.
func log(stream string) []message {
	var all []message
	for _, m := range parseEvents(stream) {
		if m.event != "snapshot" {
			all = append(all, m)
		}
	}
	return all
}

// The streams of a deleted job end, and a new stream is not found.
func TestDeleteEndsStreams(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.want(202, nil, "POST", "/v1/jobs", `{"queue":"sim","input":1,"delay_s":3600}`)
	events := h.follow(id)
	h.want(204, nil, "DELETE", "/v1/jobs/"+id, "")
	if text := readAll(t, events); !strings.Contains(text, "\nretry: ") {
		t.Errorf("%q", text)
	}
	h.want(404, values{"code": "not_found"}, "GET", "/v1/jobs/"+id+"/events", "")
}
