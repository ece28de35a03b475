package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// statement is a statement of the writer.
type statement struct{ name, sql string }

// conn is a connection that the library serves: for reads, imports and migrations. One goroutine
// at a time uses it.
type conn struct {
	pg         *pgconn.PgConn
	unprepared bool // statements are sent whole each time, for a pooler that mixes connections
	prepared   map[*statement]bool
	guard      *guard // nil for none
	pooled     bool   // a pooler is in between
}

func connect(ctx context.Context, config *pgconn.Config, unprepared bool) (*conn, error) {
	pg, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	return &conn{pg: pg, unprepared: unprepared, prepared: map[*statement]bool{}}, nil
}

// close closes the connection without waiting for the server.
func (w *conn) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = w.pg.Close(ctx)
}

// flush is some statements that are sent together and answered in one round trip.
type flush struct {
	w interface {
		run(ctx context.Context, calls []call) error
	} // a conn, or the line
	calls []call
}

type call struct {
	s       *statement
	params  [][]byte
	each    func(*record)    // reads one row of the answer; may be nil
	done    func(tag string) // is called after the last row; may be nil
	prepare bool             // the statement is prepared by this call
}

// add adds a statement. each is called for every row of its answer.
func (f *flush) add(s *statement, each func(*record), params ...[]byte) {
	f.calls = append(f.calls, call{s: s, params: params, each: each})
}

var binaryFormat = []int16{1}

// run sends the statements and reads all answers. After an error of one statement the server
// skips those behind it.
func (f *flush) run(ctx context.Context) error {
	if len(f.calls) == 0 {
		return nil
	}
	err := f.w.run(ctx, f.calls)
	f.calls = f.calls[:0]
	return err
}

// run is one round trip; see [flush.run].
func (w *conn) run(ctx context.Context, calls []call) error {
	watched, stop := w.watch(ctx)
	defer stop()
	p := w.pg.StartPipeline(watched)
	for i := range calls {
		c := &calls[i]
		if w.unprepared {
			p.SendQueryParams(c.s.sql, c.params, nil, binaryFormat, binaryFormat)
			continue
		}
		if c.prepare = !w.prepared[c.s]; c.prepare {
			w.prepared[c.s] = true
			p.SendPrepare(c.s.name, c.s.sql, nil)
		}
		p.SendQueryPrepared(c.s.name, c.params, binaryFormat, binaryFormat)
	}
	err := p.Sync()
	if err == nil {
		err = readAll(p, calls)
	}
	if closed := p.Close(); err == nil {
		err = closed
	}
	if err != nil && errors.Is(context.Cause(watched), errHangs) {
		w.guard.giveUp(w.pg.Conn())
		err = fmt.Errorf("%w: %w", errHangs, err)
	}
	if err != nil {
		// The server has not prepared what came behind the error.
		for i := range calls {
			if calls[i].prepare {
				delete(w.prepared, calls[i].s)
			}
		}
	}
	return err
}

func readAll(p *pgconn.Pipeline, calls []call) error {
	for i := range calls {
		c := &calls[i]
		if c.prepare {
			if _, err := p.GetResults(); err != nil {
				return fmt.Errorf("%s: %w", c.s.name, err)
			}
			c.prepare = false
		}
		results, err := p.GetResults()
		if err != nil {
			return fmt.Errorf("%s: %w", c.s.name, err)
		}
		reader, ok := results.(*pgconn.ResultReader)
		if !ok {
			return errors.New("the server answered out of order")
		}
		r := record{}
		for reader.NextRow() {
			if c.each != nil {
				r.values, r.at = reader.Values(), 0
				c.each(&r)
			}
		}
		tag, err := reader.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", c.s.name, err)
		}
		if c.done != nil {
			c.done(tag.String())
		}
	}
	return nil
}
