package simmodel

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// rateLimit allows a number of requests in any minute.
type rateLimit struct {
	perMinute int // set once; 0 for no limit

	mu sync.Mutex
	// guarded by mu
	accepted []time.Time // the last perMinute requests, oldest first
}

// take counts a request. It returns how long to wait if there were too many.
func (l *rateLimit) take(now time.Time) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.accepted) > 0 && now.Sub(l.accepted[0]) >= time.Minute {
		l.accepted = l.accepted[1:]
	}
	if len(l.accepted) >= l.perMinute {
		return l.accepted[0].Add(time.Minute).Sub(now)
	}
	l.accepted = append(l.accepted, now)
	return 0
}

// refuse answers 429 if there were too many requests.
func (l *rateLimit) refuse(w http.ResponseWriter) bool {
	if l.perMinute == 0 {
		return false
	}
	wait := l.take(time.Now())
	if wait == 0 {
		return false
	}
	w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	writeError(w, http.StatusTooManyRequests, fmt.Sprintf("Rate limit reached: %d requests per minute.", l.perMinute))
	return true
}

// loader simulates a server that loads a model at its first request. It gives up when nobody
// waits for it any more.
type loader struct {
	takes time.Duration // set once; 0 for no loading

	mu sync.Mutex
	// guarded by mu
	startedAt time.Time // zero while nothing is loading
	loaded    bool
	waiting   int
}

// wait returns when the model is loaded; false if the client has gone.
func (l *loader) wait(ctx context.Context) bool {
	if l.takes == 0 {
		return true
	}
	rest := l.join()
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return l.leave(ctx.Err() == nil)
}

func (l *loader) join() (rest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting++
	if l.startedAt.IsZero() {
		l.startedAt = time.Now()
	}
	return max(l.takes-time.Since(l.startedAt), 0)
}

func (l *loader) leave(stayed bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting--
	l.loaded = l.loaded || stayed
	if l.waiting == 0 && !l.loaded {
		l.startedAt = time.Time{}
	}
	return stayed
}

// connKey is the key of a connection in the context of its requests.
type connKey struct{}

// Conn is a connection that can die without closing, as behind a NAT that has forgotten it.
type Conn struct {
	net.Conn
	requests atomic.Int64
	dead     atomic.Bool
}

// Listener returns a listener whose connections can die; see [Options.DeadAfter]. A server that
// uses it sets ConnContext to [ConnContext].
func Listener(l net.Listener) net.Listener { return mortalListener{l} }

type mortalListener struct{ net.Listener }

func (l mortalListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: c}, nil
}

// ConnContext puts the connection of a [Listener] into the context of its requests.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if conn, ok := c.(*Conn); ok {
		return context.WithValue(ctx, connKey{}, conn)
	}
	return ctx
}

// Read drops everything after the death of the connection.
func (c *Conn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.dead.Load() {
			return n, err
		}
	}
}

// Write drops everything after the death of the connection.
func (c *Conn) Write(p []byte) (int, error) {
	if c.dead.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// countRequest counts a request of the connection, which dies with the one after limit. It
// reports whether it is dead.
func (c *Conn) countRequest(limit int) bool {
	if c.requests.Add(1) > int64(limit) {
		c.dead.Store(true)
	}
	return c.dead.Load()
}
