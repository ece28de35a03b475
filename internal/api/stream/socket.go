package stream

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Deadlines is how long a socket waits for its client.
type Deadlines struct {
	Write time.Duration // for one message to be taken; then the client is dropped, and has its last cursor
	Ping  time.Duration // between two pings
	Pong  time.Duration // for the answer to one
}

// DefaultDeadlines is that of a server outside of tests.
var DefaultDeadlines = Deadlines{Write: 10 * time.Second, Ping: 20 * time.Second, Pong: 30 * time.Second}

// mostSockets is how many a face has open.
const mostSockets = 20_000

// Sockets are the open WebSockets of a face.
type Sockets struct {
	// set once
	Stopping  <-chan struct{} // closed when the server begins to stop: sockets are told to reconnect, and no new one is taken
	Deadlines Deadlines
	Log       *slog.Logger

	mu     sync.Mutex
	open   int  // guarded by mu
	closed bool // guarded by mu: no socket is taken any more
	all    sync.WaitGroup
}

// Serve makes a request a socket and has talk speak with the client, until the socket
// is closed and all that was started on it is gone: on a goroutine of its own where
// the answer to r may outlast its handler, else before it returns. Messages are of at
// most limit bytes. Where the page behind it may come from, the gate has checked.
func (s *Sockets) Serve(w http.ResponseWriter, r *http.Request, limit int64, talk func(*Socket)) error {
	if !isHandshake(r) {
		return job.Errorf(job.Invalid, "this is a WebSocket: connect to it as ws, not http")
	}
	if err := s.enter(); err != nil {
		return err
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // of the origin, see above
	if err != nil {
		s.leave()
		s.Log.Debug("a socket was refused", "error", err)
		return nil // Accept has answered
	}
	conn.SetReadLimit(limit)
	ctx, drop := context.WithCancel(context.WithoutCancel(r.Context()))
	socket := &Socket{conn: conn, patience: s.Deadlines, ctx: ctx, drop: drop}
	if api.IsDirect(r) {
		go s.run(socket, talk)
	} else {
		s.run(socket, talk)
	}
	return nil
}

func (s *Sockets) run(socket *Socket, talk func(*Socket)) {
	defer s.leave()
	defer logPanic(s.Log, "a socket met a defect")
	socket.run(s.Stopping, talk)
}

// isHandshake says whether a request asks for a WebSocket as RFC 6455, section 4.2.1,
// has it.
func isHandshake(r *http.Request) bool {
	h := r.Header
	return r.Method == http.MethodGet && r.ProtoAtLeast(1, 1) &&
		strings.EqualFold(h.Get("Upgrade"), "websocket") &&
		strings.Contains(strings.ToLower(strings.Join(h["Connection"], ",")), "upgrade") &&
		h.Get("Sec-WebSocket-Version") == "13" && len(h["Sec-Websocket-Key"]) == 1
}

// enter makes room for one more socket.
func (s *Sockets) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.Stopping:
		s.closed = true
	default:
	}
	if s.closed {
		return job.Errorf(job.ShuttingDown, "the server is stopping: connect again in a moment")
	}
	if s.open >= mostSockets {
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

// Wait takes no new socket and returns when every one has been closed. Call it after
// Stopping was closed.
func (s *Sockets) Wait() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.all.Wait()
}

// Socket is one client. One goroutine reads it and obeys its messages, one after
// another, so that a client that sends faster than it is obeyed waits; others may
// send. Two more ping it, and close it when the server stops.
type Socket struct {
	// set once
	conn     *websocket.Conn
	patience Deadlines
	ctx      context.Context // ends with the socket
	drop     context.CancelFunc

	others sync.WaitGroup // all but the reader
}

func (s *Socket) run(stopping <-chan struct{}, talk func(*Socket)) {
	defer s.conn.CloseNow()
	defer s.others.Wait()
	defer s.drop()
	s.others.Go(s.ping)
	s.others.Go(func() { s.closeWhen(stopping) })
	talk(s)
}

// Context ends with the socket.
func (s *Socket) Context() context.Context { return s.ctx }

// Go runs a part of the talk beside its reader. The socket waits for it at its end.
func (s *Socket) Go(part func()) { s.others.Go(part) }

// Read returns the next message; a refusal of one that is no text; or false in the
// end, when the client has left or was dropped.
func (s *Socket) Read() (message []byte, refusal error, ok bool) {
	kind, message, err := s.conn.Read(s.ctx)
	if err != nil {
		return nil, nil, false
	}
	if kind != websocket.MessageText {
		return nil, job.Errorf(job.Invalid, "send text messages: a binary one says nothing here"), true
	}
	return message, nil, true
}

// Send writes one message, or drops the client that does not take it in time.
func (s *Socket) Send(message []byte) bool {
	ctx, cancel := context.WithTimeout(s.ctx, s.patience.Write)
	defer cancel()
	if err := s.conn.Write(ctx, websocket.MessageText, message); err != nil {
		s.drop()
		return false
	}
	return true
}

// ping finds out clients that are gone without a word.
func (s *Socket) ping() {
	tick := time.NewTicker(s.patience.Ping)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(s.ctx, s.patience.Pong)
		err := s.conn.Ping(ctx)
		cancel()
		if err != nil {
			s.drop()
			return
		}
	}
}

func (s *Socket) closeWhen(stopping <-chan struct{}) {
	select {
	case <-s.ctx.Done():
	case <-stopping:
		_ = s.conn.Close(websocket.StatusServiceRestart, "the server restarts: connect again and watch on")
	}
}
