package sqlite

import (
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// query is a statement whose parameters are bound in order: q.id(…).int(…).run(). It belongs to
// one connection, and to the goroutine that has that connection.
//
// It is prepared at its first use. Most of the time of opening a store would be spent on
// statements that it may never need.
type query struct {
	conn *sqlite.Conn
	sql  string
	stmt *sqlite.Stmt // nil until the first use
	err  error        // why it could not be prepared, until row or run returns it
	next int          // the next parameter to bind
}

func newQuery(conn *sqlite.Conn, sql string) *query {
	return &query{conn: conn, sql: sql, next: 1}
}

// prepared reports whether the statement can be used. If not, err says why. It does not try again
// before row or run: a parameter that was not bound would leave its place to the next one.
func (q *query) prepared() bool {
	if q.stmt == nil && q.err == nil {
		q.stmt, q.err = q.conn.Prepare(q.sql)
	}
	return q.err == nil
}

// takeErr returns why the statement could not be prepared, and lets the next use try again.
func (q *query) takeErr() error {
	err := q.err
	q.err = nil
	return err
}

func (q *query) int(v int64) *query {
	if q.prepared() {
		q.stmt.BindInt64(q.next, v)
		q.next++
	}
	return q
}

func (q *query) text(v string) *query {
	if q.prepared() {
		q.stmt.BindText(q.next, v)
		q.next++
	}
	return q
}

// bytes binds a blob; nil is NULL.
func (q *query) bytes(v []byte) *query {
	if v != nil {
		return q.blob(v)
	}
	if q.prepared() {
		q.stmt.BindNull(q.next)
		q.next++
	}
	return q
}

func (q *query) null() *query { return q.bytes(nil) }

// blob binds a blob that may be empty but not NULL.
func (q *query) blob(v []byte) *query {
	if q.prepared() {
		q.stmt.BindBytes(q.next, v)
		q.next++
	}
	return q
}

func (q *query) id(v *job.ID) *query { return q.blob(v[:]) }

// token binds a lease's token; the zero one is NULL.
func (q *query) token(v *job.Token) *query {
	if v.IsZero() {
		return q.bytes(nil)
	}
	return q.blob(v[:])
}

// process binds a process; the zero one is NULL.
func (q *query) process(v *job.Process) *query { return q.token((*job.Token)(v)) }

// time binds a time; the zero one is NULL.
func (q *query) time(t time.Time) *query {
	if t.IsZero() {
		return q.bytes(nil)
	}
	return q.int(t.UnixMicro())
}

// flag binds a boolean as 0 or 1.
func (q *query) flag(on bool) *query {
	if on {
		return q.int(1)
	}
	return q.int(0)
}

// orNull binds a text; "" is NULL.
func (q *query) orNull(v string) *query {
	if v == "" {
		return q.bytes(nil)
	}
	return q.text(v)
}

// row steps to the next row. After false or an error the query can be bound again.
func (q *query) row() (bool, error) {
	if !q.prepared() {
		return false, q.takeErr()
	}
	more, err := q.stmt.Step()
	if !more || err != nil {
		q.reset()
	}
	return more, err
}

// run executes a statement that returns no rows.
func (q *query) run() error {
	if !q.prepared() {
		return q.takeErr()
	}
	_, err := q.stmt.Step()
	q.reset()
	return err
}

// reset resets the query so that it can be bound again, also before its last row was read.
func (q *query) reset() {
	if q.stmt == nil {
		return
	}
	_ = q.stmt.Reset() // returns the error of the last step again
	q.next = 1
}

// each calls f for every row, until f returns an error.
func (q *query) each(f func(c column) error) error {
	for {
		more, err := q.row()
		if err != nil || !more {
			return err
		}
		if err := f(column{stmt: q.stmt}); err != nil {
			q.reset()
			return err
		}
	}
}

// first calls f for the first row, and reports whether there was one.
func (q *query) first(f func(c column) error) (bool, error) {
	more, err := q.row()
	if err != nil || !more {
		return false, err
	}
	defer q.reset()
	return true, f(column{stmt: q.stmt})
}

// column reads the columns of a row.
type column struct{ stmt *sqlite.Stmt }

func (c column) int(i int) int64   { return c.stmt.ColumnInt64(i) }
func (c column) text(i int) string { return c.stmt.ColumnText(i) }

func (c column) bytes(i int) []byte {
	if c.stmt.ColumnIsNull(i) {
		return nil
	}
	b := make([]byte, c.stmt.ColumnLen(i))
	c.stmt.ColumnBytes(i, b)
	return b
}

// raw reads a text or blob into buf, or into a new buffer if buf is too short.
func (c column) raw(i int, buf []byte) []byte {
	n := c.stmt.ColumnLen(i)
	if n > cap(buf) {
		buf = make([]byte, n, 2*n)
	}
	return buf[:c.stmt.ColumnBytes(i, buf[:n])]
}

func (c column) id(i int) (v job.ID) {
	c.stmt.ColumnBytes(i, v[:])
	return v
}

func (c column) token(i int) (v job.Token) {
	c.stmt.ColumnBytes(i, v[:])
	return v
}

func (c column) time(i int) time.Time {
	if c.stmt.ColumnIsNull(i) {
		return time.Time{}
	}
	return time.UnixMicro(c.stmt.ColumnInt64(i))
}
