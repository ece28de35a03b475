package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A network can lose a connection without closing it. Nothing arrives any more, and a read of an
// answer would wait for ever. How long an answer may take is unknown: a disk can be slow, and
// another batch can hold a lock. So an answer that is late is looked after over a new connection,
// which asks the database whether the old connection still has work.

const (
	// patience is how long an answer may take before the connection is looked after, and between
	// two looks. The database must have waited for this client almost as long.
	patience = 5 * time.Second
	// maxAnswer is how long an answer may take behind a pooler, where the database cannot say
	// which connection is ours.
	maxAnswer = 20 * time.Second
)

// errHangs means that a connection was given up, because nothing arrives over it.
var errHangs = errors.New("postgres: the connection hangs, and a new one works")

// guard is what the connections of a store need to be looked after.
type guard struct {
	config   *pgconn.Config // set once
	patience time.Duration  // set once

	pool *pgxpool.Pool // set once, before the first connection

	lastHang atomic.Int64 // when a connection was given up, in nanoseconds since 1970; 0 for never
}

// watchPool makes a pool drop its connections without waiting for a network that lost them.
func (g *guard) watchPool(c *pgxpool.Config) {
	c.PingTimeout = g.patience
	c.BeforeClose = func(conn *pgx.Conn) {
		if pg := conn.PgConn(); pg.IsClosed() || time.Since(time.Unix(0, g.lastHang.Load())) < closeTimeout {
			_ = pg.Conn().Close()
		}
	}
}

// giveUp closes a connection that hangs. Most of the others hang too: idle ones of the pool are
// replaced, and those in use are looked after themselves.
func (g *guard) giveUp(conn net.Conn) {
	g.lastHang.Store(time.Now().UnixNano())
	_ = conn.Close()
	g.pool.Reset()
}

// watch returns a context for an exchange with the server, which ends when the connection hangs.
// The caller calls stop after the exchange.
func (w *conn) watch(ctx context.Context) (watched context.Context, stop func()) {
	if w.guard == nil {
		return ctx, func() {}
	}
	watched, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	timer := time.AfterFunc(w.guard.patience, func() {
		defer close(done)
		if w.guard.lookAfter(watched, w.pg.PID(), w.pooled) {
			cancel(errHangs)
		}
	})
	return watched, func() {
		cancel(nil)
		if !timer.Stop() {
			<-done
		}
	}
}

// lookAfter returns true when the connection of a backend hangs, or false when the exchange has
// ended.
func (g *guard) lookAfter(ctx context.Context, pid uint32, pooled bool) bool {
	for since := g.patience; ; since += g.patience {
		hangs, err := g.hangs(ctx, pid, pooled)
		// While no new connection works either, closing this one would win nothing.
		if err == nil && (hangs || pooled && since >= maxAnswer) {
			return ctx.Err() == nil
		}
		next := time.NewTimer(g.patience)
		select {
		case <-ctx.Done():
			next.Stop()
			return false
		case <-next.C:
		}
	}
}

// hangs asks over a new connection whether the server has ended this connection, or waits for this
// client. It ends a backend that does, because its transaction may hold locks.
func (g *guard) hangs(ctx context.Context, pid uint32, pooled bool) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, g.patience)
	defer cancel()
	pg, err := pgconn.ConnectConfig(ctx, g.config)
	if err != nil {
		return false, err
	}
	defer func() { _ = pg.Close(ctx) }()
	if pooled {
		return false, nil
	}
	sql := fmt.Sprintf(`select case when state like 'idle%%' or wait_event_type = 'Client' then pg_terminate_backend(pid) else false end
		from pg_stat_activity where pid = %d and usename = current_user
		and not (state_change > clock_timestamp() - interval '%d milliseconds')`, pid, (g.patience * 4 / 5).Milliseconds())
	results, err := pg.Exec(ctx, "select count(*) from pg_stat_activity where pid = "+fmt.Sprint(pid)+"; "+sql).ReadAll()
	if err != nil {
		return false, err
	}
	if string(results[0].Rows[0][0]) == "0" {
		return true, nil // the server has ended it
	}
	return len(results[1].Rows) > 0 && string(results[1].Rows[0][0]) == "t", nil
}
