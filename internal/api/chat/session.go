package chat

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	maxMessage = maxAsk // bytes of a message from a client
	maxWatches = 32     // tasks that one socket follows
	maxSockets = 20_000
)

// patience is how long a socket waits for its client.
type patience struct {
	write time.Duration // for one message to be taken; then the client is dropped, and has its last seq
	ping  time.Duration // between two pings
	pong  time.Duration // for the answer to one
}

var usualPatience = patience{write: 10 * time.Second, ping: 20 * time.Second, pong: 30 * time.Second}

// session is one socket. The goroutine that reads it obeys its messages, one after
// another; each watch has a goroutine of its own; two more ping it and close it
// when the server stops. Leaving ends them all, and nothing of the tasks.
type session struct {
	// set once
	face  *Face
	owner job.Owner
	conn  *websocket.Conn
	ctx   context.Context // ends with the session
	drop  context.CancelFunc

	others sync.WaitGroup // all but the reader

	mu      sync.Mutex
	watches map[job.ID]*watch // guarded by mu
}

func (f *Face) getSocket(w http.ResponseWriter, r *http.Request) error {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return job.Errorf(job.Invalid, "this is a WebSocket: connect to it as ws, not http")
	}
	if err := f.enter(); err != nil {
		return err
	}
	defer f.leave()
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		f.log.Debug("a socket was refused", "error", err)
		return nil // Accept has answered
	}
	conn.SetReadLimit(maxMessage)
	ctx, drop := context.WithCancel(context.WithoutCancel(r.Context()))
	s := &session{face: f, owner: api.Owner(r), conn: conn, ctx: ctx, drop: drop, watches: map[job.ID]*watch{}}
	s.run()
	return nil
}

// enter makes room for one more socket.
func (f *Face) enter() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.stopping:
		f.closed = true
	default:
	}
	if f.closed {
		return job.Errorf(job.ShuttingDown, "the server is stopping: connect again in a moment")
	}
	if f.open >= maxSockets {
		return job.Errorf(job.Overloaded, "the server has as many sockets open as it may")
	}
	f.open++
	f.sockets.Add(1)
	return nil
}

func (f *Face) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
	f.sockets.Done()
}

// run returns when the socket is closed and all that it started is gone.
func (s *session) run() {
	s.others.Go(s.ping)
	s.others.Go(s.closeWhenStopping)
	s.read()
	s.drop()
	s.others.Wait()
	_ = s.conn.CloseNow()
}

// read obeys one message after another, until the client leaves. A client that
// sends faster than it is obeyed waits.
func (s *session) read() {
	for {
		kind, data, err := s.conn.Read(s.ctx)
		if err != nil {
			return
		}
		in, err := parse(data)
		if kind != websocket.MessageText {
			err = job.Errorf(job.Invalid, "send text messages: a binary one says nothing here")
		}
		if err == nil {
			err = s.obey(in)
		}
		if err != nil && !s.send(s.refusal(in, err)) {
			return
		}
	}
}

// refusal is the answer to a message that was not obeyed. What is our fault is
// logged.
func (s *session) refusal(in incoming, err error) errorFrame {
	if job.CodeOf(err) == job.Internal && s.ctx.Err() == nil {
		s.face.log.Error("a socket's message failed", "type", in.Type, "task", in.TaskID, "error", err)
	}
	return refusal(in, err)
}

// send writes one message, or drops the client that does not take it in time.
func (s *session) send(frame any) bool {
	ctx, cancel := context.WithTimeout(s.ctx, s.face.patience.write)
	defer cancel()
	if err := s.conn.Write(ctx, websocket.MessageText, encodeFrame(frame)); err != nil {
		s.drop()
		return false
	}
	return true
}

// ping finds out clients that are gone without a word.
func (s *session) ping() {
	tick := time.NewTicker(s.face.patience.ping)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(s.ctx, s.face.patience.pong)
		err := s.conn.Ping(ctx)
		cancel()
		if err != nil {
			s.drop()
			return
		}
	}
}

func (s *session) closeWhenStopping() {
	select {
	case <-s.ctx.Done():
	case <-s.face.stopping:
		_ = s.conn.Close(websocket.StatusServiceRestart, "the server restarts: connect again and watch on")
	}
}
