package stream

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// dialSocket opens a socket to a server that handles it with handle. returned is closed
// when the HTTP handler has returned.
func dialSocket(t *testing.T, direct bool, log *slog.Logger, handle func(*Socket)) (conn *websocket.Conn, returned chan struct{}, wait func()) {
	t.Helper()
	stopping := make(chan struct{})
	sockets := &Sockets{Stopping: stopping, Deadlines: DefaultDeadlines, Log: log}
	returned = make(chan struct{})
	server := httptest.NewUnstartedServer(api.Wrap(log, api.WriteProblem, func(w http.ResponseWriter, r *http.Request) error {
		defer close(returned)
		return sockets.Serve(w, r, 1<<10, handle)
	}))
	if direct {
		server.Config.BaseContext = func(net.Listener) context.Context { return api.WithDirect(context.Background()) }
	}
	server.Start()
	t.Cleanup(server.Close)
	conn, _, err := websocket.Dial(t.Context(), server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn, returned, func() { close(stopping); sockets.Wait() }
}

// A handshake that a proxy has changed is refused with what is missing.
func TestBrokenHandshakeIsExplained(t *testing.T) {
	t.Parallel()
	sockets := &Sockets{Stopping: make(chan struct{}), Deadlines: DefaultDeadlines, Log: slog.New(slog.DiscardHandler)}
	h := api.Wrap(nil, api.WriteProblem, func(w http.ResponseWriter, r *http.Request) error {
		return sockets.Serve(w, r, 1<<10, func(*Socket) {})
	})
	for _, tt := range []struct {
		rule    string
		minor   int // of HTTP/1
		headers map[string]string
		says    string
	}{
		{"no handshake at all", 1, nil, "as ws, not http"},
		{"a proxy that drops Upgrade", 1, map[string]string{"Upgrade": ""}, "proxy in between must pass both headers on"},
		{"a proxy that replaces Connection", 1, map[string]string{"Connection": "close"}, "proxy in between must pass both headers on"},
		{"a word that only contains upgrade", 1, map[string]string{"Connection": "no-upgrade"}, "proxy in between must pass both headers on"},
		{"a proxy that speaks HTTP/1.0", 0, map[string]string{}, "HTTP/1.1"},
		{"another version", 1, map[string]string{"Sec-WebSocket-Version": "8"}, `version 13 of the WebSocket protocol, not \"8\"`},
		{"no key", 1, map[string]string{"Sec-WebSocket-Key": ""}, "one Sec-WebSocket-Key; this one has 0"},
	} {
		r := httptest.NewRequest("GET", "/ws", nil)
		r.ProtoMinor = tt.minor
		if tt.headers != nil {
			for name, value := range map[string]string{"Upgrade": "websocket", "Connection": "keep-alive, Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
				if changed, ok := tt.headers[name]; ok {
					value = changed
				}
				if value != "" {
					r.Header.Set(name, value)
				}
			}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusUpgradeRequired || w.Header().Get("Upgrade") != "websocket" || !strings.Contains(w.Body.String(), tt.says) {
			t.Errorf("%s: %d %v %s", tt.rule, w.Code, w.Header(), w.Body)
		}
	}
}

func TestSocketOutlivesHandler(t *testing.T) {
	t.Parallel()
	conn, returned, wait := dialSocket(t, true, slog.New(slog.DiscardHandler), func(s *Socket) {
		for text, _, ok := s.Read(); ok; text, _, ok = s.Read() {
			s.Send(text)
		}
	})
	<-returned
	if err := conn.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, text, err := conn.Read(t.Context()); err != nil || string(text) != "hello" {
		t.Errorf("received %q, %v", text, err)
	}
	_ = conn.Close(websocket.StatusNormalClosure, "")
	wait()
}

// A message for which the budget of bodies has no room is refused, and the next is read.
func TestMessagesCountAsBodies(t *testing.T) {
	t.Parallel()
	bodies := api.NewBodies(6<<10, 6<<10)
	sockets := &Sockets{
		Stopping: make(chan struct{}), Deadlines: DefaultDeadlines, Log: slog.New(slog.DiscardHandler),
		Bodies: bodies, Caller: func(*http.Request) api.Caller { return api.Caller{User: "ann"} },
	}
	server := httptest.NewServer(api.Wrap(nil, api.WriteProblem, func(w http.ResponseWriter, r *http.Request) error {
		return sockets.Serve(w, r, 64<<10, func(s *Socket) {
			for text, refusal, ok := s.Read(); ok; text, refusal, ok = s.Read() {
				held, _ := bodies.InFlight()
				s.Send(fmt.Appendf(nil, "%d bytes, %d held, %s", len(text), held, job.CodeOf(refusal)))
			}
		})
	}))
	defer server.Close()
	conn, _, err := websocket.Dial(t.Context(), server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	for size, want := range map[int]string{10: "10 bytes, 0 held, ", 5 << 10: "5120 bytes, 4096 held, ", 40 << 10: "0 bytes, 4096 held, caller_busy"} {
		if err := conn.Write(t.Context(), websocket.MessageText, bytes.Repeat([]byte("x"), size)); err != nil {
			t.Fatal(err)
		}
		if _, text, err := conn.Read(t.Context()); err != nil || string(text) != want {
			t.Errorf("%d bytes: %s, %v", size, text, err)
		}
	}
	_ = conn.Close(websocket.StatusNormalClosure, "")
}

// A panic closes its socket and does not end the server.
func TestPanicClosesSocket(t *testing.T) {
	t.Parallel()
	for _, direct := range []bool{true, false} {
		var logged bytes.Buffer
		conn, _, wait := dialSocket(t, direct, slog.New(slog.NewTextHandler(&logged, nil)), func(*Socket) { panic("oops") })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if _, text, err := conn.Read(ctx); err == nil || ctx.Err() != nil {
			t.Errorf("direct %v: received %q, %v", direct, text, err)
		}
		cancel()
		wait()
		if !strings.Contains(logged.String(), "oops") {
			t.Errorf("direct %v: the log is %q", direct, &logged)
		}
	}
}

// A message that never ends holds its memory for a bounded time, although its client answers
// pings.
func TestUnfinishedMessageIsBounded(t *testing.T) {
	t.Parallel()
	bodies := api.NewBodies(64<<10, 64<<10)
	left := make(chan struct{})
	sockets := &Sockets{
		Stopping: make(chan struct{}), Deadlines: Deadlines{Write: time.Hour, Ping: 5 * time.Millisecond, Pong: time.Hour, Message: 50 * time.Millisecond}, Log: slog.New(slog.DiscardHandler),
		Bodies: bodies, Caller: func(*http.Request) api.Caller { return api.Caller{User: "ann"} },
	}
	server := httptest.NewServer(api.Wrap(nil, api.WriteProblem, func(w http.ResponseWriter, r *http.Request) error {
		return sockets.Serve(w, r, 64<<10, func(s *Socket) {
			defer close(left)
			for _, _, ok := s.Read(); ok; _, _, ok = s.Read() {
			}
		})
	}))
	defer server.Close()
	conn, _, err := websocket.Dial(t.Context(), server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	ctx := conn.CloseRead(t.Context()) // answers pings
	w, err := conn.Writer(ctx, websocket.MessageText)
	if err == nil {
		_, err = w.Write(bytes.Repeat([]byte("x"), 20<<10))
	}
	if err != nil {
		t.Fatal(err)
	}
	<-left
	sockets.all.Wait()
	if held, _ := bodies.InFlight(); held != 0 {
		t.Errorf("%d bytes stay held", held)
	}
}
