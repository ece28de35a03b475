package api

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Lines are the answers of a face that go on when their handlers have returned. One
// that waits for news needs little, and net/http holds a large stack and three
// buffers for it: so its connection is taken over, and closed at its end.
type Lines struct {
	// set once
	Stopping context.Context // over when the server begins to stop
	Log      *slog.Logger

	mu     sync.Mutex
	open   map[*Line]struct{} // guarded by mu
	closed bool               // guarded by mu: no line is taken any more
	all    sync.WaitGroup     // of the lines' goroutines, and who is about to take one

	buffers sync.Pool // of *[]byte
}

const (
	// mostHeard is how many bytes a client may say on a line. There is nothing to say:
	// it may have sent a next request ahead, which is not answered.
	mostHeard = 64 << 10
	// lineGoodbye is how long a client has to take the last words of a server that stops.
	lineGoodbye = 5 * time.Second
	// mostUnsent is from how many bytes on a line sends what it is told.
	mostUnsent = 64 << 10
)

type directKey struct{}

// Direct marks the requests of a server of our own: its connections are those of a
// [Timeouts.Listener], and it hands requests to [Site.Front] with nothing around that
// would mind an answer which outlasts its handler: no compression, no count of what is
// under way. It is for [http.Server.BaseContext].
func Direct(ctx context.Context) context.Context { return context.WithValue(ctx, directKey{}, true) }

func isDirect(r *http.Request) bool { return r.Context().Value(directKey{}) != nil }

// Announce says whether the answer to a request may become a line, and has it say
// then that the connection will be closed. It is to be called before the answer
// begins.
func (s *Lines) Announce(w http.ResponseWriter, r *http.Request) bool {
	if !isDirect(r) || r.ProtoMajor != 1 || r.Method != http.MethodGet || r.Body != http.NoBody {
		return false
	}
	w.Header()["Connection"] = []string{"close"}
	return true
}

// Take makes an announced answer a line, when its beginning has been flushed. Then
// [Line.Go] is to be called, and the handler to return. It is false where the
// connection cannot be had: nothing has changed then.
func (s *Lines) Take(w http.ResponseWriter, r *http.Request) (*Line, bool) {
	if !s.enter() {
		return nil, false
	}
	conn, _, err := http.NewResponseController(w).Hijack() // what its buffers hold is not for us
	if err != nil {
		s.all.Done()
		return nil, false
	}
	l := &Line{lines: s, conn: conn, chunked: r.ProtoAtLeast(1, 1)}
	l.ctx, l.left = context.WithCancel(s.Stopping)
	s.add(l)
	return l, true
}

func (s *Lines) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.all.Add(1)
	}
	return !s.closed
}

func (s *Lines) add(l *Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*Line]struct{}{}
	}
	s.open[l] = struct{}{}
}

func (s *Lines) leave(l *Line) {
	s.mu.Lock()
	delete(s.open, l)
	s.mu.Unlock()
	s.all.Done()
}

// Wait takes no new line and returns when every one is over. A client that does not
// take its last words in time is cut off. Call it after Stopping is over.
func (s *Lines) Wait() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	defer time.AfterFunc(lineGoodbye, s.cut).Stop()
	s.all.Wait()
}

// cut closes the connections of all lines.
func (s *Lines) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.open {
		_ = l.conn.Close()
	}
}

// Line is an answer that goes on by itself. One goroutine speaks; another listens for
// the client to leave.
type Line struct {
	// set once
	lines   *Lines
	conn    net.Conn
	chunked bool // the answer's transfer coding; else the end of the connection is its end
	ctx     context.Context
	left    context.CancelFunc

	unsent *[]byte // owned by who speaks; nil while there is none
}

// Context ends when the client has left, or the server begins to stop.
func (l *Line) Context() context.Context { return l.ctx }

// Go has talk speak on the line, in a goroutine of its own. The answer is whole when
// talk returns nil; else its client sees that it was broken off.
func (l *Line) Go(talk func() error) {
	l.lines.all.Go(l.listen)
	go l.run(talk)
}

func (l *Line) run(talk func() error) {
	defer l.lines.leave(l)
	defer l.conn.Close()
	defer caught(l.lines.Log, "a stream met a defect")
	if talk() == nil {
		l.finish()
	}
}

// listen returns when the client has left, or says too much, or the line is over.
func (l *Line) listen() {
	defer l.left()
	scrap := make([]byte, 64)
	for heard := 0; heard < mostHeard; {
		n, err := l.conn.Read(scrap)
		if err != nil {
			return
		}
		heard += n
	}
}

// Write gathers p, as chunks where the answer has chunks (RFC 9112, section 7.1). It
// is sent by Flush, at the end, or when it is much.
func (l *Line) Write(p []byte) (n int, err error) {
	for piece := range slices.Chunk(p, mostUnsent) { // none is empty: that chunk would be the last
		m, err := l.gather(piece)
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

func (l *Line) gather(p []byte) (int, error) {
	b := l.gathered()
	if l.chunked {
		b = append(strconv.AppendInt(b, int64(len(p)), 16), "\r\n"...)
		b = append(append(b, p...), "\r\n"...)
	} else {
		b = append(b, p...)
	}
	if *l.unsent = b; len(b) < mostUnsent {
		return len(p), nil
	}
	return len(p), l.Flush()
}

// gathered is what is not sent yet, in a buffer that is borrowed for it: who is silent
// holds none.
func (l *Line) gathered() []byte {
	if l.unsent == nil {
		var ok bool
		if l.unsent, ok = l.lines.buffers.Get().(*[]byte); !ok {
			l.unsent = new([]byte)
		}
		*l.unsent = (*l.unsent)[:0]
	}
	return *l.unsent
}

// Flush sends what was written.
func (l *Line) Flush() error {
	if l.unsent == nil {
		return nil
	}
	_, err := l.conn.Write(*l.unsent)
	l.lines.buffers.Put(l.unsent)
	l.unsent = nil
	return err
}

// finish sends the last of an answer that is whole.
func (l *Line) finish() {
	if l.chunked {
		*l.unsent = append(l.gathered(), "0\r\n\r\n"...)
	}
	_ = l.Flush() // who does not take it will see that
}
