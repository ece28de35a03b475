package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/openapi/openapitest"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// socketClient is the client's end of a socket.
type socketClient struct {
	*testing.T
	conn *websocket.Conn
}

// socketMessage is a message to a client.
type socketMessage struct {
	Type, Of, ID, Code, Field string
	Seq                       *int64
	Data                      json.RawMessage
}

// name returns a short form of the message; eventNames has the same form for server-sent
// events.
func (h socketMessage) name() string {
	switch {
	case h.Seq != nil:
		return fmt.Sprintf("%s@%d", h.Type, *h.Seq)
	case h.Code != "":
		return h.Type + ":" + h.Of + ":" + h.Code
	default:
		return h.Type
	}
}

func (h *harness) dial(path string, headers ...string) *socketClient {
	h.Helper()
	header := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		header.Add(headers[i], headers[i+1])
	}
	conn, _, err := websocket.Dial(h.Context(), h.url+path, &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		h.Fatal(err)
	}
	conn.SetReadLimit(-1)
	h.Cleanup(func() { _ = conn.CloseNow() })
	return &socketClient{h.T, conn}
}

// dialStalled is dial for a client with small buffers that does not read.
func (h *harness) dialStalled(path string) *socketClient {
	h.Helper()
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		_ = c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
		return err
	}}
	transport := &http.Transport{DialContext: dialer.DialContext}
	h.Cleanup(transport.CloseIdleConnections)
	conn, _, err := websocket.Dial(h.Context(), h.url+path, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		h.Fatal(err)
	}
	conn.SetReadLimit(-1)
	h.Cleanup(func() { _ = conn.CloseNow() })
	return &socketClient{h.T, conn}
}

func (client *socketClient) send(format string, args ...any) {
	client.Helper()
	if err := client.conn.Write(client.Context(), websocket.MessageText, fmt.Appendf(nil, format, args...)); err != nil {
		client.Fatal(err)
	}
}

func (client *socketClient) read() socketMessage {
	client.Helper()
	_, text, err := client.conn.Read(client.Context())
	if err != nil {
		client.Fatal(err)
	}
	openapitest.CheckMessage(client, "WatchMessage", text)
	var h socketMessage
	if err := json.Unmarshal(text, &h); err != nil {
		client.Fatalf("%v: %s", err, text)
	}
	return h
}

// expect reads a message and checks its name.
func (client *socketClient) expect(name string) socketMessage {
	client.Helper()
	h := client.read()
	if h.name() != name {
		client.Fatalf("received %s %s %s, want %s", h.name(), h.ID, h.Data, name)
	}
	return h
}

// readUntil reads up to a message of the type, and returns the names of all messages.
func (client *socketClient) readUntil(kind string) (all []string) {
	client.Helper()
	for {
		h := client.read()
		if all = append(all, h.name()); h.Type == kind {
			return all
		}
	}
}

// submitWithToken submits a job for ann and returns its id and the token of its watch
// URL.
func (h *harness) submitWithToken(prefer string) (id, token string) {
	h.Helper()
	res, text := h.call("POST", "/v1/jobs", smallSubmit, "X-User-ID", "ann", "Prefer", prefer)
	var j struct {
		ID   string
		URLs struct{ Watch string }
	}
	if err := json.Unmarshal([]byte(text), &j); err != nil || res.StatusCode != 202 {
		h.Fatalf("%d %s", res.StatusCode, text)
	}
	at, token, ok := strings.Cut(j.URLs.Watch, "?token=")
	if !ok || at != h.url+"/v1/jobs/"+j.ID+"/events" {
		h.Fatalf("the watch URL is %q", j.URLs.Watch)
	}
	return j.ID, token
}

// A socket sends the same events as a stream.
func TestSocketSendsWholeJob(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.want(202, nil, "POST", "/v1/jobs", smallSubmit)
	c := <-h.work
	client := h.dial("/v1/watch")
	client.send(`{"type":"watch","id":"%s"}`, id)
	if h := client.expect("snapshot@0"); h.ID != id || !strings.Contains(string(h.Data), `"status":"running"`) {
		t.Errorf("%s %s", h.ID, h.Data)
	}
	h.appendText(c, 1, "One ")
	if h := client.expect("output@1"); string(h.Data) != `{"seq":1,"attempt":1,"kind":"text","data":"One "}` {
		t.Errorf("%s", h.Data)
	}
	h.appendText(c, 2, "two")
	client.expect("output@2")
	h.finish(c, success(`7`))
	if h := client.expect("done@2"); !strings.Contains(string(h.Data), `"result":7`) {
		t.Errorf("%s", h.Data)
	}
	client.send(`{"type":"watch","id":"%s","after":1}`, id)
	if got := client.readUntil("done"); !slices.Equal(got, []string{"snapshot@1", "output@2", "done@2"}) {
		t.Errorf("after 1: %v", got)
	}
}

// One socket follows many jobs independently.
func TestSocketFollowsManyJobs(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	first, second := h.want(202, nil, "POST", "/v1/jobs", smallSubmit), h.want(202, nil, "POST", "/v1/jobs", smallSubmit)
	jobs := map[string]job.Claimed{}
	for range 2 {
		c := <-h.work
		jobs[c.Job.ID.String()] = c
	}
	client := h.dial("/v1/watch")
	for _, id := range []string{first, second} {
		client.send(`{"type":"watch","id":"%s"}`, id)
		client.expect("snapshot@0")
	}
	h.appendText(jobs[second], 1, "x")
	if h := client.expect("output@1"); h.ID != second {
		t.Errorf("received a message about %s", h.ID)
	}
	client.send(`{"type":"unwatch","id":"%s"}`, second)
	client.expect("unwatched")
	client.send(`{"type":"unwatch","id":"%s"}`, second) // a second time
	client.expect("unwatched")
	h.appendText(jobs[second], 2, "nobody watches it")
	h.appendText(jobs[first], 1, "y")
	if h := client.expect("output@1"); h.ID != first {
		t.Errorf("received a message about %s", h.ID)
	}
	client.send(`{"type":"cancel","id":"%s"}`, second)
	if h := client.expect("cancel"); h.ID != second || strings.Contains(string(h.Data), `"cancel_requested_at":null`) || !strings.Contains(string(h.Data), `"watch":null`) {
		t.Errorf("%s %s", h.ID, h.Data)
	}
}

// A job that is watched again is followed once, from the new cursor.
func TestSecondWatchReplacesFirst(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.want(202, nil, "POST", "/v1/jobs", smallSubmit)
	c := <-h.work
	h.appendText(c, 1, "x")
	client := h.dial("/v1/watch")
	for range 3 {
		client.send(`{"type":"watch","id":"%s","after":1}`, id)
		client.expect("snapshot@1")
	}
	h.finish(c, success(`1`))
	client.expect("done@1")
	client.send(`{"type":"unwatch","id":"%s"}`, id)
	client.expect("unwatched")
}

func TestInvalidMessagesAreRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	localJob := h.want(202, nil, "POST", "/v1/jobs", smallSubmit)
	annsJob, token := h.submitWithToken("watch-ttl=60")
	client := h.dial("/v1/watch")
	for _, tt := range []struct{ rule, message, code, field string }{
		{"not JSON", `{`, "invalid_request", ""},
		{"not an object", `[]`, "invalid_request", ""},
		{"no type", `{}`, "invalid_request", "/type"},
		{"an unknown type", `{"type":"subscribe"}`, "invalid_request", "/type"},
		{"an unknown field", `{"type":"watch","id":"x","from":1}`, "invalid_request", "/from"},
		{"no id", `{"type":"watch"}`, "invalid_request", "/id"},
		{"an invalid id", `{"type":"watch","id":"x"}`, "not_found", ""},
		{"an unknown job", `{"type":"watch","id":"` + job.NewID().String() + `"}`, "not_found", ""},
		{"a job of another user", `{"type":"watch","id":"` + annsJob + `"}`, "not_found", ""},
		{"a cancel of a job of another user", `{"type":"cancel","id":"` + annsJob + `"}`, "not_found", ""},
		{"a cancel with a token without the right", `{"type":"cancel","id":"` + annsJob + `","token":"` + token + `"}`, "forbidden", ""},
		{"another job than the token's", `{"type":"watch","id":"` + localJob + `","token":"` + token + `"}`, "not_found", ""},
		{"an invalid token", `{"type":"watch","id":"` + localJob + `","token":"wt_x"}`, "bad_token", ""},
		{"a cursor before the first", `{"type":"watch","id":"` + localJob + `","after":-1}`, "invalid_request", "/after"},
		{"a cursor past the end", `{"type":"watch","id":"` + localJob + `","after":5}`, "invalid_request", ""},
		{"a cursor in an unwatch", `{"type":"unwatch","id":"` + localJob + `","after":5}`, "invalid_request", "/after"},
	} {
		client.send("%s", tt.message)
		h := client.read()
		if h.Type != "error" || h.Code != tt.code || h.Field != tt.field || h.Seq != nil {
			t.Errorf("%s: %+v", tt.rule, h)
		}
	}
	if err := client.conn.Write(t.Context(), websocket.MessageBinary, []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	client.expect("error::invalid_request")
	client.send(`{"type":"watch","id":"%s","token":"%s"}`, annsJob, token)
	client.expect("snapshot@0")
}

// A page that only has tokens can follow their jobs, and no others.
func TestSocketAcceptsTokens(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	annsJob, token := h.submitWithToken("watch=cancel")
	other, otherToken := h.submitWithToken("watch-ttl=60")
	h.want(202, nil, "POST", "/v1/jobs", smallSubmit) // a job of the caller itself
	page := []string{"Origin", "https://app.example"}
	for _, path := range []string{"/v1/watch", "/v1/watch?token=wt_x"} {
		_, res, err := websocket.Dial(t.Context(), h.url+path, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {page[1]}}})
		if err == nil || res.StatusCode != 403 && res.StatusCode != 401 {
			t.Fatalf("%s: %v", path, err)
		}
	}
	client := h.dial("/v1/watch?token="+token, page...)
	client.send(`{"type":"watch","id":"%s"}`, annsJob)
	client.expect("snapshot@0")
	client.send(`{"type":"watch","id":"%s"}`, other)
	client.expect("error:watch:not_found")
	client.send(`{"type":"watch","id":"%s","token":"%s"}`, other, otherToken)
	client.expect("snapshot@0")
	client.send(`{"type":"cancel","id":"%s","token":"%s"}`, other, otherToken)
	client.expect("error:cancel:forbidden")
	client.send(`{"type":"unwatch","id":"%s"}`, annsJob)
	client.expect("unwatched")
	client.send(`{"type":"cancel","id":"%s"}`, annsJob)
	client.expect("cancel")
}

// A token that has expired since the socket was opened is refused.
func TestExpiredTokenIsRefusedOnSocket(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tokens := testTokens(t)
		token := tokens.Seal(nil, gate.Grant{Job: anID, Expires: time.Now().Add(time.Minute)})
		var s session
		mux := gate.NewMux()
		mux.Handle("GET /v1/watch", gate.AnyCaller().WatchToken(0, ""), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			s.caller = gate.CallerFrom(r)
		}))
		(&gate.Gate{Tokens: tokens}).Handler(mux).ServeHTTP(httptest.NewRecorder(), request("GET", "/v1/watch?token="+string(token), ""))
		message := watchMessage{Type: "watch", ID: anID.String()}
		if _, _, err := s.authorize(message); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, _, err := s.authorize(message); job.CodeOf(err) != job.BadToken {
			t.Error(err)
		}
	})
}

// A watch that fails is reported, and the socket stays open.
func TestFailedWatchKeepsSocket(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.want(202, nil, "POST", "/v1/jobs", `{"queue":"sim","input":1,"delay_s":3600}`)
	client := h.dial("/v1/watch")
	client.send(`{"type":"watch","id":"%s"}`, id)
	client.expect("snapshot@0")
	h.want(204, nil, "DELETE", "/v1/jobs/"+id, "")
	if got := client.readUntil("error"); got[len(got)-1] != "error:watch:not_found" {
		t.Errorf("%v", got)
	}
	client.send(`{"type":"unwatch","id":"%s"}`, id)
	client.expect("unwatched")
}

// A server that stops closes its sockets and asks the clients to reconnect.
func TestStopClosesSockets(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.want(202, nil, "POST", "/v1/jobs", smallSubmit)
	client := h.dial("/v1/watch")
	client.send(`{"type":"watch","id":"%s"}`, id)
	client.expect("snapshot@0")
	h.stop()
	var closed websocket.CloseError
	if _, _, err := client.conn.Read(t.Context()); !errors.As(err, &closed) || closed.Code != websocket.StatusServiceRestart {
		t.Errorf("closed with %v", err)
	}
	h.api.Wait()
	if res, _ := h.call("GET", "/v1/watch", "", "Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="); res.StatusCode != 503 {
		t.Errorf("a new socket: %d", res.StatusCode)
	}
}

// A client that reads nothing is dropped with all that it follows. It can resume after
// the last message that it has.
func TestSlowSocketIsDropped(t *testing.T) {
	if testing.Short() {
		t.Skip("fills the buffers of a socket")
	}
	h := newHarness(t)
	h.startAPI(stream.Deadlines{Write: 100 * time.Millisecond, Ping: time.Hour, Pong: time.Hour})
	id := h.want(202, nil, "POST", "/v1/jobs", smallSubmit)
	c := <-h.work
	client := h.dialStalled("/v1/watch")
	client.send(`{"type":"watch","id":"%s"}`, id)
	piece := strings.Repeat("x", 60<<10)
	const pieces = 200 // more than any socket's buffers hold
	for seq := range int64(pieces) {
		h.appendText(c, seq+1, piece)
	}
	h.api.Wait() // the socket is gone although its client has read nothing
	h.finish(c, success(`1`))
	var last int64
	for {
		_, text, err := client.conn.Read(t.Context())
		if err != nil {
			break
		}
		var h socketMessage
		if err := json.Unmarshal(text, &h); err != nil || h.Type == "done" {
			t.Fatalf("the client was not slow: %v", err)
		}
		last = *h.Seq
	}
	h.startAPI(stream.DefaultDeadlines)
	client = h.dial("/v1/watch")
	client.send(`{"type":"watch","id":"%s","after":%d}`, id, last)
	client.expect(fmt.Sprintf("snapshot@%d", last))
	for last < pieces {
		last++
		client.expect(fmt.Sprintf("output@%d", last))
	}
	client.expect(fmt.Sprintf("done@%d", pieces))
}

// A client that sends without reading has to wait, and is dropped in the end. Other
// clients are served meanwhile.
func TestFloodingClientIsDropped(t *testing.T) {
	if testing.Short() {
		t.Skip("fills the buffers of a socket")
	}
	h := newHarness(t)
	h.startAPI(stream.Deadlines{Write: time.Hour, Ping: time.Hour, Pong: time.Hour})
	id := h.want(202, nil, "POST", "/v1/jobs", smallSubmit)
	other := h.dial("/v1/watch") // this client reads, so it is not dropped on a slow machine
	other.send(`{"type":"nonsense"}`)
	other.expect("error:nonsense:invalid_request")
	h.api.sockets.Deadlines.Write = 100 * time.Millisecond // for the sockets that are opened from now on
	for _, message := range []string{`{"type":"watch","id":"` + id + `"}`, `{"type":"nonsense"}`, `{"type":"watch","id":"` + strings.Repeat("x", 30<<10) + `"}`} {
		client := h.dialStalled("/v1/watch")
		for n := 0; client.conn.Write(t.Context(), websocket.MessageText, []byte(message)) == nil; n++ {
			if n%1000 == 0 {
				h.want(200, values{"id": id}, "GET", "/v1/jobs/"+id, "")
			}
		}
	}
	other.send(`{"type":"watch","id":"%s"}`, id)
	other.expect("snapshot@0")
}

// A message that is too large is not read.
func TestTooLargeMessageClosesSocket(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	client := h.dial("/v1/watch")
	client.send(`{"type":"watch","id":"%s"}`, strings.Repeat("x", maxMessage))
	var closed websocket.CloseError
	if _, _, err := client.conn.Read(t.Context()); !errors.As(err, &closed) || closed.Code != websocket.StatusMessageTooBig {
		t.Errorf("closed with %v", err)
	}
}

// Any message is handled or refused, and the JSON of an accepted message gives the same
// message again.
func FuzzWatchMessage(f *testing.F) {
	for _, seed := range []string{
		`{"type":"watch","id":"job_000000000xr03001081g81860w","after":7}`, `{"type":"unwatch","id":"x"}`, `{"type":"cancel","id":"x","token":"wt_x"}`,
		`{"type":"watch","id":"x","after":-1}`, `{"type":"watch","id":"x","after":1e3}`, `[]`, `{"type":null}`, `{"Type":"watch"}`, "\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseMessage(text)
		if err != nil {
			if job.CodeOf(err) != job.Invalid {
				t.Fatalf("%q: %v", text, err)
			}
			if answer := errorReply(m.Type, m.ID, err); !json.Valid(answer) {
				t.Fatalf("%q is answered with %q", text, answer)
			}
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if m.Token == "" {
			again = []byte(strings.Replace(string(again), `,"token":""`, "", 1))
		}
		if got, err := parseMessage(again); err != nil || got != m {
			t.Fatalf("%q: %+v, then %+v, %v", text, m, got, err)
		}
		head := appendMessageStart(nil, m.Type, anID)
		if !json.Valid(append(head, '}')) {
			t.Fatalf("%q", head)
		}
	})
}
