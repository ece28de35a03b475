package chat

import (
	"bytes"
	"context"
	"encoding/json"
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

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var background = context.Background()

// site is a whole server: the face over a real engine and a real store, and one
// worker whose every move the test makes.
type site struct {
	testing.TB
	engine   *engine.Engine
	beats    *heartbeats
	talks    *conversation.Conversations
	work     chan job.Claimed // what the worker was given
	orders   chan job.ID      // what it was told to cancel
	face     *API
	url      string
	stopping chan struct{} // closed by the test that stops the server
}

// heartbeats is the engine, and counts whose heartbeats reach it.
type heartbeats struct {
	*engine.Engine
	mu  sync.Mutex
	who map[job.Owner]int // guarded by mu
}

func (h *heartbeats) MarkPresent(owner job.Owner) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.who[owner]++
	h.Engine.MarkPresent(owner)
}

func (h *heartbeats) of(owner job.Owner) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.who[owner]
}

// newSite starts a site; its worker has that many slots.
func newSite(t testing.TB, slots int) *site {
	t.Helper()
	return newSiteOver(t, slots, faulty.Plan{})
}

// newSiteOver starts a site over a store that breaks as planned.
func newSiteOver(t testing.TB, slots int, plan faulty.Plan) *site {
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

	s := &site{TB: t, engine: e, beats: &heartbeats{Engine: e, who: map[job.Owner]int{}}, talks: conversation.New(db, e), work: make(chan job.Claimed, 1000), orders: make(chan job.ID, 1000)}
	unserve := e.Consume(job.Worker{
		Name: "hand", Queue: "chat", Slots: slots,
		Deliver: func(c job.Claimed) { s.work <- c },
		Order:   func(l job.Lease, _ job.Order) { s.orders <- l.Job },
	})
	t.Cleanup(func() {
		unserve()
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	s.open(stream.DefaultDeadlines)
	return s
}

// open puts a new face before the engine, as a restart would.
func (s *site) open(p stream.Deadlines) {
	s.stopping = make(chan struct{})
	stopping := s.stopping
	s.face = New(Config{Engine: s.beats, Conversations: s.talks, Queue: "chat", Stopping: stopping})
	s.face.sockets.Deadlines = p
	mux := http.NewServeMux()
	s.face.Register(mux)
	server := httptest.NewServer(openapitest.CheckHandler(s.TB, (&gate.Gate{Listen: []string{"127.0.0.1"}}).Handler(mux)))
	s.url = server.URL
	face := s.face
	s.Cleanup(func() {
		select {
		case <-stopping:
		default:
			close(stopping)
		}
		face.Wait()
		server.Close()
	})
}

// answer is what the server said to a request.
type answer struct {
	status int
	header http.Header
	body   map[string]any
}

func (a answer) text(path string) string { return fmt.Sprint(a.at(path)) }

// at finds a value by its path: "error.code", "data.1.content".
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

// call sends a request as a user; headers are names and values in turn.
func (s *site) call(user, method, path, body string, headers ...string) answer {
	s.Helper()
	req, err := http.NewRequestWithContext(background, method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("X-User-ID", user)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		s.Fatal(err)
	}
	a := answer{status: res.StatusCode, header: res.Header}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &a.body); err != nil {
			s.Fatalf("%s %s answers %q", method, path, raw)
		}
	}
	return a
}

func (s *site) get(user, path string) answer { s.Helper(); return s.call(user, "GET", path, "") }

// ask asks a question over HTTP.
func (s *site) ask(user, query string, more ...string) answer {
	s.Helper()
	body := map[string]string{"query": query}
	if len(more) > 0 {
		body["conversation_id"] = more[0]
	}
	raw, _ := json.Marshal(body)
	return s.call(user, "POST", "/api/chat", string(raw)).want(s, http.StatusAccepted)
}

// hand is the worker at one job.
type hand struct {
	s       *site
	claimed job.Claimed
	seq     int64
}

// next takes the worker's next job.
func (s *site) next() *hand {
	s.Helper()
	select {
	case c := <-s.work:
		return &hand{s, c, c.Job.Cursor}
	case <-time.After(time.Minute):
		s.Fatal("the worker was given nothing")
		return nil
	}
}

func (h *hand) id() string { return h.claimed.Job.ID.String() }

func (h *hand) append(kind job.Kind, data string, p *job.Progress) {
	h.s.Helper()
	h.seq++
	e := job.Entry{Seq: h.seq, Attempt: h.claimed.Job.Attempt, Kind: kind, Events: 1, Data: []byte(data)}
	if err := h.s.engine.Append(background, h.claimed.Lease(), []job.Entry{e}, p); err != nil {
		h.s.Fatal(err)
	}
}

func (h *hand) say(text string) { h.s.Helper(); h.append(job.KindText, text, nil) }

func (h *hand) report(percent float64, status string) {
	h.s.Helper()
	p := job.Progress{Percent: percent, Status: status}
	data, _ := json.Marshal(p)
	h.append(job.KindProgress, string(data), &p)
}

func (h *hand) finish(o job.Outcome) {
	h.s.Helper()
	if _, err := h.s.engine.Finish(background, h.claimed.Lease(), o); err != nil {
		h.s.Fatal(err)
	}
}

// done ends the job with a completion of that text.
func (h *hand) done(text string) {
	h.s.Helper()
	body, _ := json.Marshal(map[string]any{"choices": []any{map[string]any{"message": map[string]any{"content": text}}}})
	h.finish(job.Outcome{Result: &job.Result{ContentType: "application/json", Body: body}})
}

func (h *hand) fail(code string) {
	h.s.Helper()
	h.finish(job.Outcome{Fault: &job.Fault{Code: code, Message: "it failed", Class: job.Final}})
}

// line is a client's socket.
type line struct {
	s    *site
	conn *websocket.Conn
}

func (s *site) dial(user string) *line {
	s.Helper()
	conn, _, err := websocket.Dial(background, s.url+"/ws", &websocket.DialOptions{HTTPHeader: http.Header{"X-User-ID": {user}}})
	if err != nil {
		s.Fatal(err)
	}
	conn.SetReadLimit(-1)
	s.Cleanup(func() { _ = conn.CloseNow() })
	return &line{s, conn}
}

func (l *line) send(format string, args ...any) {
	l.s.Helper()
	if err := l.conn.Write(background, websocket.MessageText, fmt.Appendf(nil, format, args...)); err != nil {
		l.s.Fatal(err)
	}
}

// hear is the next message.
func (l *line) hear() answer {
	l.s.Helper()
	a, err := l.listen()
	if err != nil {
		l.s.Fatal(err)
	}
	return a
}

func (l *line) listen() (answer, error) {
	_, data, err := l.conn.Read(background)
	if err != nil {
		return answer{}, err
	}
	openapitest.CheckMessage(l.s, "ChatMessage", data)
	a := answer{}
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&a.body); err != nil {
		l.s.Fatalf("heard %q", data)
	}
	return a, nil
}

// hearUntil is the next message of a type; those before it are passed over.
func (l *line) hearUntil(kind string) answer {
	l.s.Helper()
	for {
		if a := l.hear(); a.text("type") == kind {
			return a
		}
	}
}

func (l *line) drop() { _ = l.conn.CloseNow() }
