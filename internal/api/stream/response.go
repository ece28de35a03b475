package stream

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
)

// Responses are the detached responses of an API: those that go on when their handlers
// have returned. One that waits for events needs little, and net/http holds a large stack
// and three buffers for it: so its connection is taken over, and closed at its end.
type DetachedResponses struct {
	// set once
	Stopping context.Context // over when the server begins to stop
	Log      *slog.Logger

	mu     sync.Mutex
	open   map[*DetachedResponse]struct{} // guarded by mu
	closed bool                           // guarded by mu: none is detached any more
	all    sync.WaitGroup                 // of their goroutines, and of handlers that are about to detach one

	buffers sync.Pool // of *[]byte
}

const (
	// maxReceived is how many bytes a client may send. There is nothing to send: it may
	// have sent a next request ahead, which is not answered.
	maxReceived = 64 << 10
	// closeWait is how long a client has to take the last bytes when the server stops.
	closeWait = 5 * time.Second
	// maxUnsent is how many bytes are gathered before they are sent.
	maxUnsent = 64 << 10
)

// MayDetach says whether the response to a request may be detached, and sets the header
// Connection: close where it may. It is to be called before the response begins.
func (s *DetachedResponses) PrepareDetach(w http.ResponseWriter, r *http.Request) bool {
	if !api.IsDirect(r) || r.ProtoMajor != 1 || r.Method != http.MethodGet || r.Body != http.NoBody {
		return false
	}
	w.Header()["Connection"] = []string{"close"}
	return true
}

// Detach takes the connection of a response over, once its beginning has been flushed.
// Then [Response.Go] is to be called, and the handler to return. It is false where the
// connection cannot be had: nothing has changed then.
func (s *DetachedResponses) Detach(w http.ResponseWriter, r *http.Request) (*DetachedResponse, bool) {
	if !s.enter() {
		return nil, false
	}
	conn, _, err := http.NewResponseController(w).Hijack() // what its buffers hold is not for us
	if err != nil {
		s.all.Done()
		return nil, false
	}
	res := &DetachedResponse{all: s, conn: conn, chunked: r.ProtoAtLeast(1, 1)}
	res.ctx, res.left = context.WithCancel(s.Stopping)
	s.add(res)
	return res, true
}

func (s *DetachedResponses) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.all.Add(1)
	}
	return !s.closed
}

func (s *DetachedResponses) add(res *DetachedResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*DetachedResponse]struct{}{}
	}
	s.open[res] = struct{}{}
}

func (s *DetachedResponses) leave(res *DetachedResponse) {
	s.mu.Lock()
	delete(s.open, res)
	s.mu.Unlock()
	s.all.Done()
}

// Wait lets none be detached any more and returns when every one is over. A client that
// does not take the last bytes in time is cut off. Call it after Stopping is over.
func (s *DetachedResponses) Wait() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	defer time.AfterFunc(closeWait, s.cut).Stop()
	s.all.Wait()
}

// cut closes all connections.
func (s *DetachedResponses) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for res := range s.open {
		_ = res.conn.Close()
	}
}

// Response is a detached response. One goroutine writes it; another waits for the client
// to leave.
type DetachedResponse struct {
	// set once
	all     *DetachedResponses
	conn    net.Conn
	chunked bool // its transfer coding; else the end of the connection is its end
	ctx     context.Context
	left    context.CancelFunc

	unsent *[]byte // owned by the writer; nil while there is none
}

// Context ends when the client has left, or the server begins to stop.
func (res *DetachedResponse) Context() context.Context { return res.ctx }

// Go has write write the rest, in a goroutine of its own. The response is whole when
// write returns nil; else its client sees that it was broken off.
func (res *DetachedResponse) Go(write func() error) {
	res.all.all.Go(res.awaitClose)
	go res.run(write)
}

func (res *DetachedResponse) run(write func() error) {
	defer res.all.leave(res)
	defer res.conn.Close()
	defer logPanic(res.all.Log, "a stream met a defect")
	if write() == nil {
		res.finish()
	}
}

// awaitClose returns when the client has left, or sends too much, or the response is over.
func (res *DetachedResponse) awaitClose() {
	defer res.left()
	scratch := make([]byte, 64)
	for received := 0; received < maxReceived; {
		n, err := res.conn.Read(scratch)
		if err != nil {
			return
		}
		received += n
	}
}

// Write gathers p, as chunks where the response has chunks (RFC 9112, section 7.1). It
// is sent by Flush, at the end, or when it is much.
func (res *DetachedResponse) Write(p []byte) (n int, err error) {
	for piece := range slices.Chunk(p, maxUnsent) { // none is empty: that chunk would be the last
		m, err := res.gather(piece)
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

func (res *DetachedResponse) gather(p []byte) (int, error) {
	b := res.gathered()
	if res.chunked {
		b = append(strconv.AppendInt(b, int64(len(p)), 16), "\r\n"...)
		b = append(append(b, p...), "\r\n"...)
	} else {
		b = append(b, p...)
	}
	if *res.unsent = b; len(b) < maxUnsent {
		return len(p), nil
	}
	return len(p), res.Flush()
}

// gathered is what is not sent yet, in a pooled buffer: a response that is idle holds none.
func (res *DetachedResponse) gathered() []byte {
	if res.unsent == nil {
		var ok bool
		if res.unsent, ok = res.all.buffers.Get().(*[]byte); !ok {
			res.unsent = new([]byte)
		}
		*res.unsent = (*res.unsent)[:0]
	}
	return *res.unsent
}

// Flush sends what was written.
func (res *DetachedResponse) Flush() error {
	if res.unsent == nil {
		return nil
	}
	_, err := res.conn.Write(*res.unsent)
	res.all.buffers.Put(res.unsent)
	res.unsent = nil
	return err
}

// finish sends the end of a response that is whole.
func (res *DetachedResponse) finish() {
	if res.chunked {
		*res.unsent = append(res.gathered(), "0\r\n\r\n"...)
	}
	_ = res.Flush() // a client that does not take it sees that
}
