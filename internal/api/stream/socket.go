package stream

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Deadlines are how long a socket waits for its client. A client that misses one is
// disconnected, and may resume at its last cursor.
type Deadlines struct {
	Write time.Duration // for one message to be accepted
	Ping  time.Duration // between two pings
	Pong  time.Duration // for the reply to a ping
	// Message is for the rest of a message after its beginning, which holds memory until then. 0
	// is no bound.
	Message time.Duration
}

// DefaultDeadlines are the deadlines outside of tests.
var DefaultDeadlines = Deadlines{Write: 10 * time.Second, Ping: 20 * time.Second, Pong: 30 * time.Second, Message: 30 * time.Second}

// maxSockets is how many sockets one API may have open.
const maxSockets = 20_000

// Sockets are the open WebSockets of one API.
type Sockets struct {
	// set once

	// Stopping is closed when the server begins to stop. Clients are then asked to reconnect,
	// and new sockets are refused.
	Stopping  <-chan struct{}
	Deadlines Deadlines
	Log       *slog.Logger
	// Bodies bounds the memory of all clients' messages; nil: no bound. Caller returns for
	// whom those of a socket count.
	Bodies *api.Bodies
	Caller func(*http.Request) api.Caller

	mu     sync.Mutex
	open   int  // guarded by mu
	closed bool // guarded by mu: new sockets are refused
	all    sync.WaitGroup
}

// Serve upgrades a request to a WebSocket and calls handle with it. When handle returns,
// the socket is closed and Serve waits for its goroutines. Where r is marked by
// [api.WithDirect], this happens in a goroutine that outlasts the handler; else before Serve
// returns. A client's message may have at most limit bytes. Serve checks no origin: the
// gate has done so.
func (s *Sockets) Serve(w http.ResponseWriter, r *http.Request, limit int64, handle func(*Socket)) error {
	if !isHandshake(r) {
		return notHandshake(w, r)
	}
	if err := s.enter(); err != nil {
		return err
	}
	// The gate has checked the origin.
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		s.leave()
		s.Log.Debug("a socket was refused", "error", err)
		return nil // Accept has written the error
	}
	conn.SetReadLimit(limit)
	// net/http ends the request's context when the handler returns, which the socket outlasts.
	ctx, drop := context.WithCancel(context.WithoutCancel(r.Context()))
	socket := &Socket{conn: conn, limit: limit, deadlines: s.Deadlines, ctx: ctx, drop: drop, cut: make(chan struct{})}
	if s.Bodies != nil {
		socket.allowance = s.Bodies.NewAllowance(s.Caller(r))
	}
	if api.IsDirect(r) {
		go s.run(socket, handle)
	} else {
		s.run(socket, handle)
	}
	return nil
}

func (s *Sockets) run(socket *Socket, handle func(*Socket)) {
	defer s.leave()
	defer logPanic(s.Log, "a socket panicked")
	socket.run(s.Stopping, handle)
}

// isHandshake reports whether a request is the opening handshake of a WebSocket (RFC 6455,
// section 4.2.1).
func isHandshake(r *http.Request) bool {
	h := r.Header
	return r.Method == http.MethodGet && r.ProtoAtLeast(1, 1) && isUpgrade(h) &&
		h.Get("Sec-WebSocket-Version") == "13" && len(h["Sec-Websocket-Key"]) == 1
}

// notHandshake sets the headers of a 426 (RFC 9110, section 15.5.22; RFC 6455, section 4.4)
// and returns its error. A client that meant to open a WebSocket learns what is missing.
func notHandshake(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Upgrade", "websocket")
	h.Set("Connection", "Upgrade")
	h.Set("Sec-WebSocket-Version", "13")
	version, keys := r.Header.Get("Sec-WebSocket-Version"), r.Header["Sec-Websocket-Key"]
	switch {
	case version == "" && len(keys) == 0:
		return job.Errorf(api.UpgradeRequired, "this is a WebSocket: connect to it as ws, not http")
	case !r.ProtoAtLeast(1, 1):
		return job.Errorf(api.UpgradeRequired, "the handshake of this WebSocket came with %s: a proxy in between must pass it on with HTTP/1.1, and the headers Upgrade and Connection as they are", r.Proto)
	case !isUpgrade(r.Header):
		return job.Errorf(api.UpgradeRequired, "the handshake of this WebSocket came without Upgrade: websocket and Connection: Upgrade: a proxy in between must pass both headers on")
	case version != "13":
		return job.Errorf(api.UpgradeRequired, "this server speaks version 13 of the WebSocket protocol, not %s", job.Quote(version))
	default:
		return job.Errorf(api.UpgradeRequired, "the handshake of a WebSocket has one Sec-WebSocket-Key; this one has %d", len(keys))
	}
}

// isUpgrade reports whether headers ask for an upgrade to a WebSocket.
func isUpgrade(h http.Header) bool {
	return hasToken(h["Upgrade"], "websocket") && hasToken(h["Connection"], "upgrade")
}

// hasToken reports whether a comma-separated list of tokens has one, without regard to case.
func hasToken(values []string, token string) bool {
	for item := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if strings.EqualFold(strings.TrimSpace(item), token) {
			return true
		}
	}
	return false
}

// enter counts a new socket, or refuses it.
func (s *Sockets) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Wait may be waiting already: no socket may be added then.
	select {
	case <-s.Stopping:
		s.closed = true
	default:
	}
	if s.closed {
		return job.Errorf(job.ShuttingDown, "the server is stopping: connect again in a moment")
	}
	if s.open >= maxSockets {
		return job.Errorf(job.Overloaded, "the server has as many sockets open as it may")
	}
	s.open++
	s.all.Add(1)
	return nil
}

func (s *Sockets) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	s.all.Done()
}

// Wait refuses new sockets and returns when all are closed. Call it after Stopping was
// closed.
func (s *Sockets) Wait() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.all.Wait()
}

// Socket is the WebSocket of one client. One goroutine reads and handles the client's
// messages one by one, so that a client that sends too fast has to wait. Any goroutine may
// send. Two more goroutines send pings, and close the socket when the server stops.
type Socket struct {
	// set once
	conn      *websocket.Conn
	limit     int64 // bytes of a message
	deadlines Deadlines
	ctx       context.Context // ends with the socket
	drop      context.CancelFunc
	cut       chan struct{} // closed by Cut
	cutOnce   sync.Once

	allowance api.Allowance // for the message that is read or handled; owned by the reader

	wg sync.WaitGroup // of all goroutines but the reader
}

func (s *Socket) run(stopping <-chan struct{}, handle func(*Socket)) {
	defer s.allowance.Release()
	defer s.conn.CloseNow()
	defer s.wg.Wait()
	defer s.drop()
	s.wg.Go(s.ping)
	s.wg.Go(func() { s.closeWhen(stopping) })
	handle(s)
}

// Context returns a context that ends with the socket.
func (s *Socket) Context() context.Context { return s.ctx }

// Go calls f in a new goroutine. The socket waits for it at its end, so f must return when
// [Socket.Context] ends.
func (s *Socket) Go(f func()) { s.wg.Go(f) }

// Read returns the next message, and releases the memory of the one before. For a binary
// message, and for one that the budget of bodies has no room for, it returns a refusal to
// send back. It returns false when the client has left or was disconnected.
func (s *Socket) Read() (message []byte, refusal error, ok bool) {
	s.allowance.Release()
	kind, from, err := s.conn.Reader(s.ctx)
	if err != nil {
		return nil, nil, false
	}
	if s.deadlines.Message > 0 {
		// Pings do not notice a client that sends its message piece by piece and without an end.
		late := time.AfterFunc(s.deadlines.Message, s.drop)
		defer late.Stop()
	}
	message, err = s.allowance.ReadAll(from, -1, s.limit)
	if refusal, refused := errors.AsType[*job.Error](err); refused {
		// The next message can be read only after the rest of this one.
		_, err = io.Copy(io.Discard, from)
		return nil, refusal, err == nil
	}
	if err != nil {
		return nil, nil, false
	}
	if kind != websocket.MessageText {
		return nil, job.Errorf(job.Invalid, "send text messages: a binary one says nothing here"), true
	}
	return message, nil, true
}

// Send sends one text message. It disconnects a client that does not accept the message
// within [Deadlines.Write], and returns false.
func (s *Socket) Send(message []byte) bool {
	ctx, cancel := context.WithTimeout(s.ctx, s.deadlines.Write)
	defer cancel()
	if err := s.conn.Write(ctx, websocket.MessageText, message); err != nil {
		s.drop()
		return false
	}
	return true
}

// ping disconnects a client that has vanished without closing its connection.
func (s *Socket) ping() {
	tick := time.NewTicker(s.deadlines.Ping)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(s.ctx, s.deadlines.Pong)
		err := s.conn.Ping(ctx)
		cancel()
		if err != nil {
			s.drop()
			return
		}
	}
}

// Cut disconnects a client that may no longer use the socket. It does not block, and may be called
// from any goroutine and again.
func (s *Socket) Cut() { s.cutOnce.Do(func() { close(s.cut) }) }

// cutTimeout is how long a client that is cut may take to close the socket.
const cutTimeout = time.Second

func (s *Socket) closeWhen(stopping <-chan struct{}) {
	select {
	case <-s.ctx.Done():
	case <-s.cut:
		defer time.AfterFunc(cutTimeout, s.drop).Stop()
		_ = s.conn.Close(websocket.StatusPolicyViolation, "the key or token of this socket has ended")
		s.drop()
	case <-stopping:
		_ = s.conn.Close(websocket.StatusServiceRestart, "the server restarts: connect again and watch on")
	}
}
