package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// line is the connection that applies batches. It speaks the protocol itself, because a batch is
// sent while the commit of the one before it is still being answered: one goroutine sends, and
// another may wait for answers. The server executes exchanges in the order in which they were sent.
type line struct {
	// Set once.
	conn       net.Conn
	pid        uint32
	guard      *guard // nil for none
	unprepared bool   // statements are sent whole each time, for a pooler that mixes connections
	pooled     bool   // a pooler is in between

	// Of the goroutine that sends.
	out       []byte
	sameMoves bool // the database has the last known move, as of a batch on this connection

	reading  sync.Mutex         // held by the goroutine that reads
	frontend *pgproto3.Frontend // guarded by reading

	mu sync.Mutex
	// Guarded by mu.
	prepared map[*statement]bool
	sent     []*exchange // sent and not answered, the oldest first
	err      error       // why the line is closed
}

// exchange is statements that are sent together, and their answers.
type exchange struct {
	calls []call
	done  chan struct{} // closed when err is final
	err   error
	after func(error) error // changes the outcome, in tests; may be nil

	unsent bool // its last statement was certainly not sent; set before send returns
}

// connectLine opens a connection. ctx ends only the attempt.
func connectLine(ctx context.Context, config *pgconn.Config, unprepared bool) (*line, error) {
	pg, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	hijacked, err := pg.Hijack() // nothing was sent after the connect
	if err != nil {
		return nil, err
	}
	return &line{
		conn: hijacked.Conn, frontend: hijacked.Frontend, pid: hijacked.PID, unprepared: unprepared, prepared: map[*statement]bool{},
	}, nil
}

var errLineClosed = errors.New("postgres: the connection is closed")

// close closes the connection without waiting for the server. Exchanges without an answer fail.
func (l *line) close() {
	if l.fail(errLineClosed) {
		_ = l.conn.SetWriteDeadline(time.Now().Add(closeTimeout))
		goodbye, _ := (&pgproto3.Terminate{}).Encode(nil)
		_, _ = l.conn.Write(goodbye)
	}
	_ = l.conn.Close()
}

// fail makes all exchanges without an answer, and all later ones, fail with an error. It reports
// whether the line worked until then.
func (l *line) fail(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	worked := l.err == nil
	if worked {
		l.err = err
	}
	for _, x := range l.sent {
		x.finish(err)
	}
	l.sent = nil
	return worked
}

func (x *exchange) finish(err error) {
	if x.after != nil {
		err = x.after(err)
	}
	x.err = err
	close(x.done)
}

func (l *line) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err != nil
}

// run sends statements and reads their answers. After an error of one statement the server skips
// those behind it.
func (l *line) run(ctx context.Context, calls []call) error {
	return l.await(ctx, l.send(ctx, calls, nil))
}

// send sends statements. The caller must then await the exchange. after may be nil.
func (l *line) send(ctx context.Context, calls []call, after func(error) error) *exchange {
	x := &exchange{calls: calls, done: make(chan struct{}), after: after}
	l.mu.Lock()
	out, err := l.encodeLocked(calls)
	if err == nil {
		err = l.err
	}
	if err != nil {
		l.mu.Unlock()
		x.unsent = true
		x.finish(err)
		return x
	}
	l.sent = append(l.sent, x)
	l.mu.Unlock()
	stop := l.watch(ctx)
	n, err := l.conn.Write(out)
	stop()
	if err != nil {
		x.unsent = n < len(out)-syncBytes
		l.broke(err)
	}
	if cap(out) > maxKeptBuffer {
		out = nil
	}
	l.out = out[:0]
	return x
}

const syncBytes = 5 // the message behind the last statement

// maxKeptBuffer is how much memory for messages a line keeps, in bytes.
const maxKeptBuffer = 1 << 20

// encodeLocked writes the messages of statements into the buffer of the line. The caller has locked mu.
func (l *line) encodeLocked(calls []call) ([]byte, error) {
	out := l.out[:0]
	var err error
	for i := range calls {
		c := &calls[i]
		name := c.s.name
		if l.unprepared {
			name = ""
		}
		if c.prepare = l.unprepared || !l.prepared[c.s]; c.prepare {
			if out, err = (&pgproto3.Parse{Name: name, Query: c.s.sql}).Encode(out); err != nil {
				return nil, err
			}
			if !l.unprepared {
				l.prepared[c.s] = true
			}
		}
		bind := pgproto3.Bind{PreparedStatement: name, Parameters: c.params, ParameterFormatCodes: binaryFormat, ResultFormatCodes: binaryFormat}
		if out, err = bind.Encode(out); err != nil {
			return nil, err
		}
		if out, err = (&pgproto3.Execute{}).Encode(out); err != nil {
			return nil, err
		}
	}
	return (&pgproto3.Sync{}).Encode(out)
}

// await returns when an exchange has its answers, or has failed. The goroutine that waits reads
// the answers of all exchanges up to it.
func (l *line) await(ctx context.Context, x *exchange) error {
	l.reading.Lock()
	defer l.reading.Unlock()
	if x.isDone() {
		return x.err
	}
	stop := l.watch(ctx)
	defer stop()
	for !x.isDone() {
		l.readNext()
	}
	return x.err
}

func (x *exchange) isDone() bool {
	select {
	case <-x.done:
		return true
	default:
		return false
	}
}

// readNext reads the answers of the oldest exchange.
func (l *line) readNext() {
	l.mu.Lock()
	if len(l.sent) == 0 { // it has failed
		l.mu.Unlock()
		return
	}
	x := l.sent[0]
	l.mu.Unlock()
	failed, err := l.read(x)
	if err != nil {
		if failed != nil { // the server said why it closes the connection
			err = failed
		}
		l.broke(err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sent) > 0 { // otherwise it has failed meanwhile
		l.sent = l.sent[1:]
		x.finish(failed)
	}
	// The server has not prepared what came behind an error.
	for i := range x.calls {
		if x.calls[i].prepare {
			delete(l.prepared, x.calls[i].s)
		}
	}
}

// broke closes the line after an error of its connection.
func (l *line) broke(err error) {
	l.fail(err)
	_ = l.conn.Close()
}

// read reads the answers of one exchange. failed is the error of a statement; err is an error of
// the connection.
func (l *line) read(x *exchange) (failed, err error) {
	at := 0
	r := record{}
	for {
		message, err := l.frontend.Receive()
		if err != nil {
			return failed, err
		}
		switch m := message.(type) {
		case *pgproto3.ParseComplete:
			x.calls[at].prepare = false
		case *pgproto3.DataRow:
			if c := &x.calls[at]; c.each != nil {
				r.values, r.at = m.Values, 0
				c.each(&r)
			}
		case *pgproto3.CommandComplete:
			if c := &x.calls[at]; c.done != nil {
				c.done(string(m.CommandTag))
			}
			at++
		case *pgproto3.ErrorResponse:
			failed = pgconn.ErrorResponseToPgError(m)
			if at < len(x.calls) {
				failed = fmt.Errorf("%s: %w", x.calls[at].s.name, failed)
			}
		case *pgproto3.ReadyForQuery:
			if failed == nil && at < len(x.calls) {
				return nil, errors.New("the server answered out of order")
			}
			return failed, nil
		}
	}
}

// watch looks after the connection until stop is called: it is closed when ctx ends or when it
// hangs.
func (l *line) watch(ctx context.Context) (stop func()) {
	stopWaiting := context.AfterFunc(ctx, func() { l.broke(context.Cause(ctx)) })
	if l.guard == nil {
		return func() { stopWaiting() }
	}
	watched, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	timer := time.AfterFunc(l.guard.patience, func() {
		defer close(done)
		if l.guard.lookAfter(watched, l.pid, l.pooled) {
			l.fail(errHangs)
			l.guard.giveUp(l.conn)
		}
	})
	return func() {
		stopWaiting()
		cancel()
		if !timer.Stop() {
			<-done
		}
	}
}
