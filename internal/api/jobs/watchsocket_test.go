package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/openapi/openapitest"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// line is a client's end of a socket.
type line struct {
	*testing.T
	conn *websocket.Conn
}

// heard is a message to a client.
type heard struct {
	Type, Of, ID, Code, Field string
	Seq                       *int64
	Data                      json.RawMessage
}

// name is a message in short, as names has it of server-sent events.
func (h heard) name() string {
	switch {
	case h.Seq != nil:
		return fmt.Sprintf("%s@%d", h.Type, *h.Seq)
	case h.Code != "":
		return h.Type + ":" + h.Of + ":" + h.Code
	default:
		return h.Type
	}
}

func (s *site) dial(path string, headers ...string) *line {
	s.Helper()
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Add(headers[i], headers[i+1])
	}
	conn, _, err := websocket.Dial(s.Context(), s.url+path, &websocket.DialOptions{HTTPHeader: h})
	if err != nil {
		s.Fatal(err)
	}
	conn.SetReadLimit(-1)
	s.Cleanup(func() { _ = conn.CloseNow() })
	return &line{s.T, conn}
}

// dialDeaf is dial of a client that takes little in without reading it.
func (s *site) dialDeaf(path string) *line {
	s.Helper()
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		_ = c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
		return err
	}}
	transport := &http.Transport{DialContext: dialer.DialContext}
	s.Cleanup(transport.CloseIdleConnections)
	conn, _, err := websocket.Dial(s.Context(), s.url+path, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		s.Fatal(err)
	}
	conn.SetReadLimit(-1)
	s.Cleanup(func() { _ = conn.CloseNow() })
	return &line{s.T, conn}
}

func (l *line) send(format string, args ...any) {
	l.Helper()
	if err := l.conn.Write(l.Context(), websocket.MessageText, fmt.Appendf(nil, format, args...)); err != nil {
		l.Fatal(err)
	}
}

func (l *line) hear() heard {
	l.Helper()
	_, text, err := l.conn.Read(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	openapitest.CheckMessage(l, "WatchMessage", text)
	var h heard
	if err := json.Unmarshal(text, &h); err != nil {
		l.Fatalf("%v: %s", err, text)
	}
	return h
}

// expect hears a message and holds it to its name.
func (l *line) expect(name string) heard {
	l.Helper()
	h := l.hear()
	if h.name() != name {
		l.Fatalf("heard %s %s %s, want %s", h.name(), h.ID, h.Data, name)
	}
	return h
}

// to reads on until a message of the type, and gives the names of all.
func (l *line) to(kind string) (all []string) {
	l.Helper()
	for {
		h := l.hear()
		if all = append(all, h.name()); h.Type == kind {
			return all
		}
	}
}

// watchOf submits a job for ann and gives its id and the token of its watch URL.
func (s *site) watchOf(prefer string) (id, token string) {
	s.Helper()
	res, text := s.call("POST", "/v1/jobs", small, "X-User-ID", "ann", "Prefer", prefer)
	var j struct {
		ID   string
		URLs struct{ Watch string }
	}
	if err := json.Unmarshal([]byte(text), &j); err != nil || res.StatusCode != 202 {
		s.Fatalf("%d %s", res.StatusCode, text)
	}
	at, token, ok := strings.Cut(j.URLs.Watch, "?token=")
	if !ok || at != s.url+"/v1/jobs/"+j.ID+"/events" {
		s.Fatalf("the watch URL is %q", j.URLs.Watch)
	}
	return j.ID, token
}

// A socket tells the same as a stream of server-sent events.
func TestASocketTellsAJobFromBeginningToEnd(t *testing.T) {
	s := newSite(t)
	id := s.want(202, nil, "POST", "/v1/jobs", small)
	c := <-s.work
	l := s.dial("/v1/watch")
	l.send(`{"type":"watch","id":"%s"}`, id)
	if h := l.expect("snapshot@0"); h.ID != id || !strings.Contains(string(h.Data), `"status":"running"`) {
		t.Errorf("%s %s", h.ID, h.Data)
	}
	s.say(c, 1, "One ")
	if h := l.expect("output@1"); string(h.Data) != `{"seq":1,"attempt":1,"kind":"text","data":"One "}` {
		t.Errorf("%s", h.Data)
	}
	s.say(c, 2, "two")
	l.expect("output@2")
	s.finish(c, done(`7`))
	if h := l.expect("done@2"); !strings.Contains(string(h.Data), `"result":7`) {
		t.Errorf("%s", h.Data)
	}
	l.send(`{"type":"watch","id":"%s","after":1}`, id)
	if got := l.to("done"); !slices.Equal(got, []string{"snapshot@1", "output@2", "done@2"}) {
		t.Errorf("after 1: %v", got)
	}
}

// Many jobs are followed on one socket, each by itself.
func TestASocketFollowsManyJobs(t *testing.T) {
	s := newSite(t)
	first, second := s.want(202, nil, "POST", "/v1/jobs", small), s.want(202, nil, "POST", "/v1/jobs", small)
	jobs := map[string]job.Claimed{}
	for range 2 {
		c := <-s.work
		jobs[c.Job.ID.String()] = c
	}
	l := s.dial("/v1/watch")
	for _, id := range []string{first, second} {
		l.send(`{"type":"watch","id":"%s"}`, id)
		l.expect("snapshot@0")
	}
	s.say(jobs[second], 1, "x")
	if h := l.expect("output@1"); h.ID != second {
		t.Errorf("heard of %s", h.ID)
	}
	l.send(`{"type":"unwatch","id":"%s"}`, second)
	l.expect("unwatched")
	l.send(`{"type":"unwatch","id":"%s"}`, second) // again
	l.expect("unwatched")
	s.say(jobs[second], 2, "nobody is told of it")
	s.say(jobs[first], 1, "y")
	if h := l.expect("output@1"); h.ID != first {
		t.Errorf("heard of %s", h.ID)
	}
	l.send(`{"type":"cancel","id":"%s"}`, second)
	if h := l.expect("cancel"); h.ID != second || strings.Contains(string(h.Data), `"cancel_requested_at":null`) || !strings.Contains(string(h.Data), `"watch":null`) {
		t.Errorf("%s %s", h.ID, h.Data)
	}
}

// A job that is watched again is followed once, from the new cursor.
func TestAJobIsFollowedOnce(t *testing.T) {
	s := newSite(t)
	id := s.want(202, nil, "POST", "/v1/jobs", small)
	c := <-s.work
	s.say(c, 1, "x")
	l := s.dial("/v1/watch")
	for range 3 {
		l.send(`{"type":"watch","id":"%s","after":1}`, id)
		l.expect("snapshot@1")
	}
	s.finish(c, done(`1`))
	l.expect("done@1")
	l.send(`{"type":"unwatch","id":"%s"}`, id)
	l.expect("unwatched")
}

func TestMessagesThatAreRefused(t *testing.T) {
	s := newSite(t)
	mine := s.want(202, nil, "POST", "/v1/jobs", small)
	hers, token := s.watchOf("watch-ttl=60")
	l := s.dial("/v1/watch")
	for _, tt := range []struct{ rule, message, code, field string }{
		{"no JSON", `{`, "invalid_request", ""},
		{"no object", `[]`, "invalid_request", ""},
		{"no type", `{}`, "invalid_request", "/type"},
		{"a type that is none", `{"type":"subscribe"}`, "invalid_request", "/type"},
		{"a field that is none", `{"type":"watch","id":"x","from":1}`, "invalid_request", "/from"},
		{"no id", `{"type":"watch"}`, "invalid_request", "/id"},
		{"an id that is none", `{"type":"watch","id":"x"}`, "not_found", ""},
		{"a job that is not there", `{"type":"watch","id":"` + job.NewID().String() + `"}`, "not_found", ""},
		{"someone else's", `{"type":"watch","id":"` + hers + `"}`, "not_found", ""},
		{"a cancel of it", `{"type":"cancel","id":"` + hers + `"}`, "not_found", ""},
		{"a cancel by a token that may only read", `{"type":"cancel","id":"` + hers + `","token":"` + token + `"}`, "forbidden", ""},
		{"another job by its token", `{"type":"watch","id":"` + mine + `","token":"` + token + `"}`, "not_found", ""},
		{"a token that is none", `{"type":"watch","id":"` + mine + `","token":"wt_x"}`, "bad_token", ""},
		{"a cursor before the first", `{"type":"watch","id":"` + mine + `","after":-1}`, "invalid_request", "/after"},
		{"a cursor past the end", `{"type":"watch","id":"` + mine + `","after":5}`, "invalid_request", ""},
		{"a cursor where there is none", `{"type":"unwatch","id":"` + mine + `","after":5}`, "invalid_request", "/after"},
	} {
		l.send("%s", tt.message)
		h := l.hear()
		if h.Type != "error" || h.Code != tt.code || h.Field != tt.field || h.Seq != nil {
			t.Errorf("%s: %+v", tt.rule, h)
		}
	}
	if err := l.conn.Write(t.Context(), websocket.MessageBinary, []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	l.expect("error::invalid_request")
	l.send(`{"type":"watch","id":"%s","token":"%s"}`, hers, token)
	l.expect("snapshot@0")
}

// A page that has nothing but tokens follows their jobs, and no others.
func TestASocketWithNothingButTokens(t *testing.T) {
	s := newSite(t)
	hers, token := s.watchOf("watch=cancel")
	other, otherToken := s.watchOf("watch-ttl=60")
	s.want(202, nil, "POST", "/v1/jobs", small) // the caller's own
	page := []string{"Origin", "https://app.example"}
	for _, path := range []string{"/v1/watch", "/v1/watch?token=wt_x"} {
		_, res, err := websocket.Dial(t.Context(), s.url+path, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {page[1]}}})
		if err == nil || res.StatusCode != 403 && res.StatusCode != 401 {
			t.Fatalf("%s: %v", path, err)
		}
	}
	l := s.dial("/v1/watch?token="+token, page...)
	l.send(`{"type":"watch","id":"%s"}`, hers)
	l.expect("snapshot@0")
	l.send(`{"type":"watch","id":"%s"}`, other)
	l.expect("error:watch:not_found")
	l.send(`{"type":"watch","id":"%s","token":"%s"}`, other, otherToken)
	l.expect("snapshot@0")
	l.send(`{"type":"cancel","id":"%s","token":"%s"}`, other, otherToken)
	l.expect("error:cancel:forbidden")
	l.send(`{"type":"unwatch","id":"%s"}`, hers)
	l.expect("unwatched")
	l.send(`{"type":"cancel","id":"%s"}`, hers)
	l.expect("cancel")
}

// A grant that has expired since the socket was opened is worth nothing.
func TestASocketsTokenExpires(t *testing.T) {
	g := gate.Grant{Job: anID, Expires: time.Now().Add(-time.Second)}
	s := &session{grant: &g}
	if _, _, err := s.authorize(watchMessage{Type: "watch", ID: anID.String()}); job.CodeOf(err) != job.BadToken {
		t.Error(err)
	}
}

// A watch that breaks says so, and the socket goes on.
func TestAWatchThatBreaks(t *testing.T) {
	s := newSite(t)
	id := s.want(202, nil, "POST", "/v1/jobs", `{"queue":"sim","input":1,"delay_s":3600}`)
	l := s.dial("/v1/watch")
	l.send(`{"type":"watch","id":"%s"}`, id)
	l.expect("snapshot@0")
	s.want(204, nil, "DELETE", "/v1/jobs/"+id, "")
	if got := l.to("error"); got[len(got)-1] != "error:watch:not_found" {
		t.Errorf("%v", got)
	}
	l.send(`{"type":"unwatch","id":"%s"}`, id)
	l.expect("unwatched")
}

// A server that stops sends its clients away with the wish to come back.
func TestAStoppingServerClosesItsSockets(t *testing.T) {
	s := newSite(t)
	id := s.want(202, nil, "POST", "/v1/jobs", small)
	l := s.dial("/v1/watch")
	l.send(`{"type":"watch","id":"%s"}`, id)
	l.expect("snapshot@0")
	s.stop()
	var closed websocket.CloseError
	if _, _, err := l.conn.Read(t.Context()); !errors.As(err, &closed) || closed.Code != websocket.StatusServiceRestart {
		t.Errorf("closed with %v", err)
	}
	s.face.Wait()
	if res, _ := s.call("GET", "/v1/watch", "", "Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="); res.StatusCode != 503 {
		t.Errorf("a new socket: %d", res.StatusCode)
	}
}

// A client that takes nothing is dropped, with all it follows; what it took it can go
// on from.
func TestASlowSocketIsDropped(t *testing.T) {
	s := newSite(t)
	s.open(stream.Deadlines{Write: 100 * time.Millisecond, Ping: time.Hour, Pong: time.Hour})
	id := s.want(202, nil, "POST", "/v1/jobs", small)
	c := <-s.work
	l := s.dialDeaf("/v1/watch")
	l.send(`{"type":"watch","id":"%s"}`, id)
	piece := strings.Repeat("x", 60<<10)
	const pieces = 200 // more than any socket's buffers hold
	for seq := range int64(pieces) {
		s.say(c, seq+1, piece)
	}
	s.face.Wait() // the socket is gone although its client has taken nothing
	s.finish(c, done(`1`))
	var last int64
	for {
		_, text, err := l.conn.Read(t.Context())
		if err != nil {
			break
		}
		var h heard
		if err := json.Unmarshal(text, &h); err != nil || h.Type == "done" {
			t.Fatalf("the client was not slow: %v", err)
		}
		last = *h.Seq
	}
	s.open(stream.DefaultDeadlines)
	l = s.dial("/v1/watch")
	l.send(`{"type":"watch","id":"%s","after":%d}`, id, last)
	l.expect(fmt.Sprintf("snapshot@%d", last))
	for last < pieces {
		last++
		l.expect(fmt.Sprintf("output@%d", last))
	}
	l.expect(fmt.Sprintf("done@%d", pieces))
}

// A client that sends without listening is made to wait, and dropped in the end.
// Meanwhile the others are served.
func TestAFloodOfMessages(t *testing.T) {
	s := newSite(t)
	s.open(stream.Deadlines{Write: time.Hour, Ping: time.Hour, Pong: time.Hour})
	id := s.want(202, nil, "POST", "/v1/jobs", small)
	other := s.dial("/v1/watch") // it listens, and is not dropped where the machine is slow
	other.send(`{"type":"nonsense"}`)
	other.expect("error:nonsense:invalid_request")
	s.face.sockets.Deadlines.Write = 100 * time.Millisecond // with those who come now
	for _, message := range []string{`{"type":"watch","id":"` + id + `"}`, `{"type":"nonsense"}`, `{"type":"watch","id":"` + strings.Repeat("x", 30<<10) + `"}`} {
		l := s.dialDeaf("/v1/watch")
		for n := 0; l.conn.Write(t.Context(), websocket.MessageText, []byte(message)) == nil; n++ {
			if n%1000 == 0 {
				s.want(200, values{"id": id}, "GET", "/v1/jobs/"+id, "")
			}
		}
	}
	other.send(`{"type":"watch","id":"%s"}`, id)
	other.expect("snapshot@0")
}

// A message larger than any that is meant is not read.
func TestAMessageThatIsTooLarge(t *testing.T) {
	s := newSite(t)
	l := s.dial("/v1/watch")
	l.send(`{"type":"watch","id":"%s"}`, strings.Repeat("x", maxMessage))
	var closed websocket.CloseError
	if _, _, err := l.conn.Read(t.Context()); !errors.As(err, &closed) || closed.Code != websocket.StatusMessageTooBig {
		t.Errorf("closed with %v", err)
	}
}

// Whatever a client sends, it is obeyed or refused, and what was understood can be
// said again.
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
		if said, err := parseMessage(again); err != nil || said != m {
			t.Fatalf("%q: %+v, then %+v, %v", text, m, said, err)
		}
		head := appendMessageStart(nil, m.Type, anID)
		if !json.Valid(append(head, '}')) {
			t.Fatalf("%q", head)
		}
	})
}
