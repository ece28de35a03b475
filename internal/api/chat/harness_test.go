package chat

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/openapi/openapitest"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// A short run draws few cases.
	if f := flag.Lookup("rapid.checks"); testing.Short() && f.Value.String() == f.DefValue {
		_ = f.Value.Set("10")
	}
	goleak.VerifyTestMain(m)
}

var background = context.Background()

// harness is the API over a real engine and a real store, with a worker that the test
// controls.
type harness struct {
	testing.TB
	engine        *engine.Engine
	beats         *heartbeats
	conversations *conversation.Conversations
	work          chan job.Claimed // the jobs that the worker has claimed
	cancels       chan job.ID      // the cancels that the worker has received
	api           *API
	url           string
	stopping      chan struct{} // closed by the test that stops the server
}

// heartbeats is the engine, and counts the heartbeats of each owner.
type heartbeats struct {
	*engine.Engine
	mu     sync.Mutex
	counts map[job.Owner]int // guarded by mu
}

func (h *heartbeats) MarkPresent(owner job.Owner) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[owner]++
	h.Engine.MarkPresent(owner)
}

func (h *heartbeats) count(owner job.Owner) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts[owner]
}

// newHarness starts a harness whose worker has some slots.
func newHarness(t testing.TB, slots int) *harness {
	t.Helper()
	return newHarnessWithFaults(t, slots, faulty.Plan{})
}

// newHarnessWithFaults starts a harness over a store that fails as planned.
func newHarnessWithFaults(t testing.TB, slots int, plan faulty.Plan) *harness {
	t.Helper()
	file, err := sqlite.Open(background, filepath.Join(t.TempDir(), "jobs.db"),
		sqlite.Options{AtEnd: conversation.AtEnd, Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	db := faulty.New(file, plan)
	queue := engine.Queue{
		Name: "chat", MaxDepth: 1000, MaxAttempts: 2, Keep: time.Hour, KeepFailed: time.Hour,
		Policy: job.Policy{Timeouts: job.Timeouts{Lease: time.Minute, CancelGrace: time.Minute}},
	}
	other := queue
	other.Name = "other"
	e, err := engine.New(background, engine.Config{Store: db, Queues: []engine.Queue{queue, other}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(background)
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()

	h := &harness{TB: t, engine: e, beats: &heartbeats{Engine: e, counts: map[job.Owner]int{}}, conversations: conversation.New(db, e), work: make(chan job.Claimed, 1000), cancels: make(chan job.ID, 1000)}
	stopWorker := e.Consume(job.Worker{
		Name: "hand", Queue: "chat", Slots: slots,
		Deliver: func(c job.Claimed) { h.work <- c },
		Order:   func(l job.Lease, _ job.Order) { h.cancels <- l.Job },
	})
	t.Cleanup(func() {
		stopWorker()
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	h.startAPI(stream.DefaultDeadlines)
	return h
}

// startAPI starts a new API for the engine, as a restart of the server would.
func (h *harness) startAPI(p stream.Deadlines) {
	h.stopping = make(chan struct{})
	stopping := h.stopping
	h.api = New(Config{Engine: h.beats, Conversations: h.conversations, Queue: "chat", Stopping: stopping})
	h.api.sockets.Deadlines = p
	mux := gate.NewMux()
	h.api.Register(mux)
	server := httptest.NewServer(openapitest.CheckHandler(h.TB, (&gate.Gate{Listen: []string{"127.0.0.1"}}).Handler(mux)))
	h.url = server.URL
	current := h.api
	h.Cleanup(func() {
		select {
		case <-stopping:
		default:
			close(stopping)
		}
		current.Wait()
		server.Close()
	})
}

// answer is the response to a request, or a message.
type answer struct {
	status int
	header http.Header
	body   map[string]any
}

func (a answer) text(path string) string { return fmt.Sprint(a.at(path)) }

// at returns the value at a path, such as "error.code" or "data.1.content".
func (a answer) at(path string) any {
	var v any = a.body
	for name := range strings.SplitSeq(path, ".") {
		switch in := v.(type) {
		case map[string]any:
			v = in[name]
		case []any:
			var i int
			if _, err := fmt.Sscan(name, &i); err != nil || i >= len(in) {
				return nil
			}
			v = in[i]
		default:
			return nil
		}
	}
	return v
}

func (a answer) want(t testing.TB, status int, values ...any) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d, want %d: %v", a.status, status, a.body)
	}
	for i := 0; i+1 < len(values); i += 2 {
		path := values[i].(string)
		if got := a.at(path); fmt.Sprint(got) != fmt.Sprint(values[i+1]) {
			t.Fatalf("%s is %v, want %v: %v", path, got, values[i+1], a.body)
		}
	}
	return a
}

// call sends a request as a user. headers are names and values in turn.
func (h *harness) call(user, method, path, body string, headers ...string) answer {
	h.Helper()
	req, err := http.NewRequestWithContext(background, method, h.url+path, strings.NewReader(body))
	if err != nil {
		h.Fatal(err)
	}
	req.Header.Set("X-User-ID", user)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		h.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		h.Fatal(err)
	}
	a := answer{status: res.StatusCode, header: res.Header}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &a.body); err != nil {
			h.Fatalf("%s %s answers %q", method, path, raw)
		}
	}
	return a
}

func (h *harness) get(user, path string) answer { h.Helper(); return h.call(user, "GET", path, "") }

// ask asks a question over HTTP.
func (h *harness) ask(user, query string, more ...string) answer {
	h.Helper()
	body := map[string]string{"query": query}
	if len(more) > 0 {
		body["conversation_id"] = more[0]
	}
	raw, _ := json.Marshal(body)
	return h.call(user, "POST", "/api/chat", string(raw)).want(h, http.StatusAccepted)
}

// worker is the worker of one job.
type worker struct {
	h       *harness
	claimed job.Claimed
	seq     int64
}

// next returns the next job of the worker.
func (h *harness) next() *worker {
	h.Helper()
	select {
	case c := <-h.work:
		return &worker{h, c, c.Job.Cursor}
	case <-time.After(time.Minute):
		h.Fatal("the worker got no job")
		return nil
	}
}

func (w *worker) id() string { return w.claimed.Job.ID.String() }

func (w *worker) append(kind job.Kind, data string, p *job.Progress) {
	w.h.Helper()
	w.seq++
	e := job.Entry{Seq: w.seq, Attempt: w.claimed.Job.Attempt, Kind: kind, Events: 1, Data: []byte(data)}
	if err := w.h.engine.Append(background, w.claimed.Lease(), []job.Entry{e}, p); err != nil {
		w.h.Fatal(err)
	}
}

func (w *worker) text(text string) { w.h.Helper(); w.append(job.KindText, text, nil) }

func (w *worker) report(percent float64, status string) {
	w.h.Helper()
	p := job.Progress{Percent: percent, Status: status}
	data, _ := json.Marshal(p)
	w.append(job.KindProgress, string(data), &p)
}

func (w *worker) finish(o job.Outcome) {
	w.h.Helper()
	if _, err := w.h.engine.Finish(background, w.claimed.Lease(), o); err != nil {
		w.h.Fatal(err)
	}
}

// done ends the job with a completion of that text.
func (w *worker) done(text string) {
	w.h.Helper()
	body, _ := json.Marshal(map[string]any{"choices": []any{map[string]any{"message": map[string]any{"content": text}}}})
	w.finish(job.Outcome{Result: &job.Result{ContentType: "application/json", Body: body}})
}

func (w *worker) fail(code string) {
	w.h.Helper()
	w.finish(job.Outcome{Fault: &job.Fault{Code: code, Message: "it failed", Class: job.Final}})
}

// socketClient is the client's end of a socket.
type socketClient struct {
	s    *harness
	conn *websocket.Conn
}

func (h *harness) dial(user string) *socketClient {
	h.Helper()
	conn, _, err := websocket.Dial(background, h.url+"/ws", &websocket.DialOptions{HTTPHeader: http.Header{"X-User-ID": {user}}})
	if err != nil {
		h.Fatal(err)
	}
	conn.SetReadLimit(-1)
	h.Cleanup(func() { _ = conn.CloseNow() })
	return &socketClient{h, conn}
}

func (client *socketClient) send(format string, args ...any) {
	client.s.Helper()
	if err := client.conn.Write(background, websocket.MessageText, fmt.Appendf(nil, format, args...)); err != nil {
		client.s.Fatal(err)
	}
}

// read returns the next message.
func (client *socketClient) read() answer {
	client.s.Helper()
	a, err := client.tryRead()
	if err != nil {
		client.s.Fatal(err)
	}
	return a
}

func (client *socketClient) tryRead() (answer, error) {
	_, data, err := client.conn.Read(background)
	if err != nil {
		return answer{}, err
	}
	openapitest.CheckMessage(client.s, "ChatMessage", data)
	a := answer{}
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&a.body); err != nil {
		client.s.Fatalf("received %q", data)
	}
	return a, nil
}

// readUntil returns the next message of a type. It skips those before it.
func (client *socketClient) readUntil(kind string) answer {
	client.s.Helper()
	for {
		if a := client.read(); a.text("type") == kind {
			return a
		}
	}
}

func (client *socketClient) drop() { _ = client.conn.CloseNow() }
