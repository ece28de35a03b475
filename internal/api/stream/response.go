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

// DetachedResponses are the responses of an API that outlast their handlers. A response
// that waits for events needs little memory, but net/http keeps a large stack and three
// buffers for each handler. A detached response hijacks the connection instead, and closes
// it at its end.
type DetachedResponses struct {
	// set once
	Stopping context.Context // ends when the server begins to stop
	Log      *slog.Logger

	mu     sync.Mutex
	open   map[*DetachedResponse]struct{} // guarded by mu
	closed bool                           // guarded by mu: no more responses may be detached
	all    sync.WaitGroup                 // their goroutines, and handlers that are about to detach

	buffers sync.Pool // of *[]byte
}

const (
	// maxReceived is how many bytes a client may send before it is disconnected. It has
	// nothing to send but a pipelined request, which gets no response.
	maxReceived = 64 << 10
	// closeTimeout is how long clients have to read the last bytes when the server stops.
	closeTimeout = 5 * time.Second
	// maxUnsent is how many bytes are buffered before they are sent.
	maxUnsent = 64 << 10
)

// PrepareDetach reports whether the response to a request may be detached. It then sets
// the header Connection: close, so call it before the response begins.
func (s *DetachedResponses) PrepareDetach(w http.ResponseWriter, r *http.Request) bool {
	if !api.IsDirect(r) || r.ProtoMajor != 1 || r.Method != http.MethodGet || r.Body != http.NoBody {
		return false
	}
	w.Header()["Connection"] = []string{"close"}
	return true
}

// Detach hijacks the connection of a response, whose beginning must have been flushed. The
// caller then calls [DetachedResponse.Go] and returns from its handler. Where the
// connection cannot be hijacked, Detach returns false and has changed nothing.
func (s *DetachedResponses) Detach(w http.ResponseWriter, r *http.Request) (*DetachedResponse, bool) {
	if !s.enter() {
		return nil, false
	}
	conn, _, err := http.NewResponseController(w).Hijack() // its buffers can only hold a pipelined request
	if err != nil {
		s.all.Done()
		return nil, false
	}
	res := &DetachedResponse{all: s, conn: conn, chunked: r.ProtoAtLeast(1, 1)}
	res.ctx, res.disconnect = context.WithCancel(s.Stopping)
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

// Wait refuses to detach more responses, and returns when all have ended. It disconnects a
// client that does not read the last bytes within 5 seconds. Call it after Stopping has ended.
func (s *DetachedResponses) Wait() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	defer time.AfterFunc(closeTimeout, s.closeAll).Stop()
	s.all.Wait()
}

// closeAll closes all connections.
func (s *DetachedResponses) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for res := range s.open {
		_ = res.conn.Close()
	}
}

// DetachedResponse is the rest of a response whose handler has returned. One goroutine
// writes it. Another waits for the client to leave.
type DetachedResponse struct {
	// set once
	all        *DetachedResponses
	conn       net.Conn
	chunked    bool // the transfer coding; without it the end of the connection ends the body
	ctx        context.Context
	disconnect context.CancelFunc // ends ctx

	unsent *[]byte // owned by the writer; nil while it is empty
}

// Context returns a context that ends when the client has left or the server begins to stop.
func (res *DetachedResponse) Context() context.Context { return res.ctx }

// Go calls write in a new goroutine, which writes the rest of the response and then closes
// the connection. If write returns an error, the client sees an incomplete response.
func (res *DetachedResponse) Go(write func() error) {
	res.all.all.Go(res.awaitClose)
	go res.run(write)
}

func (res *DetachedResponse) run(write func() error) {
	defer res.all.leave(res)
	defer res.conn.Close()
	defer logPanic(res.all.Log, "a stream panicked")
	if write() == nil {
		res.sendEnd()
	}
}

// awaitClose ends the context when the client has left, has sent too much, or the
// connection was closed.
func (res *DetachedResponse) awaitClose() {
	defer res.disconnect()
	scratch := make([]byte, 64)
	for received := 0; received < maxReceived; {
		n, err := res.conn.Read(scratch)
		if err != nil {
			return
		}
		received += n
	}
}

// Write buffers p, as a chunk where the response is chunked (RFC 9112, section 7.1). It
// sends the buffer when that holds 64 KiB. Flush sends it before.
func (res *DetachedResponse) Write(p []byte) (n int, err error) {
	// No piece is empty: an empty chunk would end the body.
	for piece := range slices.Chunk(p, maxUnsent) {
		m, err := res.buffer(piece)
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

func (res *DetachedResponse) buffer(p []byte) (int, error) {
	b := res.unsentBytes()
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

// unsentBytes returns the bytes that are not sent yet, in a pooled buffer. An idle response
// has no buffer.
func (res *DetachedResponse) unsentBytes() []byte {
	if res.unsent == nil {
		var ok bool
		if res.unsent, ok = res.all.buffers.Get().(*[]byte); !ok {
			res.unsent = new([]byte)
		}
		*res.unsent = (*res.unsent)[:0]
	}
	return *res.unsent
}

// Flush sends the buffered bytes.
func (res *DetachedResponse) Flush() error {
	if res.unsent == nil {
		return nil
	}
	_, err := res.conn.Write(*res.unsent)
	res.all.buffers.Put(res.unsent)
	res.unsent = nil
	return err
}

// sendEnd sends the end of a complete response.
func (res *DetachedResponse) sendEnd() {
	if res.chunked {
		*res.unsent = append(res.unsentBytes(), "0\r\n\r\n"...)
	}
	_ = res.Flush() // the client sees an incomplete response
}
