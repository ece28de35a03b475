package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A read sees only what is committed, and a commit is visible only once it is on the disk of the
// database. So reads wait for nothing.
//
// A statement sees one moment. A job that moves between the tables jobs and ended is therefore
// read from both in one statement. Reads with several statements see one moment in a snapshot.

// reader is a connection that reads for one caller.
type reader struct {
	*conn
	begun bool
}

// acquire takes a connection from the pool.
func (s *Store) acquire(ctx context.Context) (*pgxpool.Conn, *reader, error) {
	borrowed, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, nil, err
	}
	// The statements that are prepared stay with the connection.
	pg := borrowed.Conn().PgConn()
	w, _ := pg.CustomData()[readerKey].(*conn)
	if w == nil {
		w = &conn{pg: pg, unprepared: s.options.Unprepared, prepared: map[*statement]bool{}, guard: s.guard, pooled: s.pooled.Load()}
		pg.CustomData()[readerKey] = w
	}
	return borrowed, &reader{conn: w}, nil
}

const readerKey = "meanwhile.reader"

// read executes one statement, and calls each for the rows of its answer until each returns an
// error. Without a row it calls nothing.
func (s *Store) read(ctx context.Context, q *statement, each func(*record) error, params ...[]byte) error {
	return s.withReader(ctx, func(r *reader) error { return r.each(ctx, q, each, params...) })
}

// snapshot calls f with a reader whose statements all see the same moment.
func (s *Store) snapshot(ctx context.Context, f func(*reader) error) error {
	return s.withReader(ctx, func(r *reader) error {
		r.begun = false
		err := f(r)
		if r.pg.TxStatus() != idle {
			end := flush{w: r.conn}
			end.add(endRead, nil)
			if ended := end.run(ctx); err == nil {
				err = ended
			}
		}
		return err
	})
}

// configureReader makes the plans of a connection independent of statistics: a plan for a table that
// was just filled would scan it. Behind a pooler the session is somebody else's.
func configureReader(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, `select set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false),
		set_config('jit', 'off', false) where pg_backend_pid()::bigint = $1::bigint`, pgx.QueryExecModeExec, int64(c.PgConn().PID()))
	return err
}

const idle = 'I' // the status of a connection without a transaction

var (
	beginRead = &statement{"read_begin", "begin isolation level repeatable read, read only"}
	// The statements are made for indexes. Without statistics the database would scan a table.
	useIndexes = &statement{"read_indexes", "select set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)"}
	endRead    = &statement{"read_end", "commit"}
)

// withReader calls f with a connection, and a second time if the first one was lost before it has
// answered anything.
func (s *Store) withReader(ctx context.Context, f func(*reader) error) error {
	for try := 0; ; try++ {
		conn, r, err := s.acquire(ctx)
		if err != nil {
			return unreadable(err)
		}
		err = f(r)
		lost := r.pg.IsClosed()
		conn.Release()
		if err == nil || !lost || try > 0 || errors.Is(err, errPartial) || ctx.Err() != nil {
			return unreadable(err)
		}
	}
}

// errPartial means that a connection was lost after a part of the answer was used.
var errPartial = errors.New("the connection was lost in the middle of an answer")

// question is a statement of a reader, with its parameters and what is to be done with the rows
// of its answer.
type question struct {
	statement *statement
	params    [][]byte
	each      func(*record) error
}

// each asks one question.
func (r *reader) each(ctx context.Context, q *statement, each func(*record) error, params ...[]byte) error {
	return r.ask(ctx, question{q, params, each})
}

// first asks the first questions of a snapshot.
func (r *reader) first(ctx context.Context, questions ...question) error {
	begin := []question{{statement: beginRead}, {statement: useIndexes}}
	return r.ask(ctx, append(begin, questions...)...)
}

// whole asks all the questions of a snapshot.
func (r *reader) whole(ctx context.Context, questions ...question) error {
	return r.first(ctx, append(questions, question{statement: endRead})...)
}

// ask asks questions in one round trip. The first error of a function ends the answers.
func (r *reader) ask(ctx context.Context, questions ...question) error {
	f := flush{w: r.conn}
	var refusal error
	used := false
	for _, q := range questions {
		f.add(q.statement, func(row *record) {
			if used = true; refusal == nil && q.each != nil {
				refusal = q.each(row)
			}
		}, q.params...)
	}
	err := f.run(ctx)
	switch {
	case refusal != nil:
		return refusal
	case err != nil && used:
		return errors.Join(err, errPartial)
	}
	return err
}

// unreadable converts an error of the database to one for callers.
func unreadable(err error) error {
	var known *job.Error
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case codeOf(err) == "22021": // a text that the database cannot store is in no row
		return nil
	}
	return job.Wrapf(job.Unavailable, err, "the store cannot be read")
}

// isStorable reports whether the database can store a text.
func isStorable(text string) bool {
	for i := range len(text) {
		if text[i] == 0 {
			return false
		}
	}
	return utf8.ValidString(text)
}

func int4Param(v int64) []byte { return binary.BigEndian.AppendUint32(nil, uint32(v)) }

// ownerParams are the parameters $1 and $2 of statements for one owner, before the others.
func ownerParams(o job.Owner, others ...[]byte) [][]byte {
	return append([][]byte{[]byte(o.Tenant), []byte(o.User)}, others...)
}
