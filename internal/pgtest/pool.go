package pgtest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Pool lends schemas with the same tables to the tests of a process, one after another, because
// making tables takes longer than emptying them: most tests are shorter than either. It is for
// tests that change the rows only. One that changes tables, settings of the server or other
// schemas takes a schema of its own.
type Pool struct {
	// Prepare makes the tables of a new schema, and the rows with which each test begins.
	Prepare func(ctx context.Context, conn *pgx.Conn) error

	mu   sync.Mutex
	free []Database // guarded by mu; without connections, with the rows of Prepare
}

// Schema returns a prepared schema of the shared server, which is the test's until it ends.
func (p *Pool) Schema(t testing.TB) Database {
	t.Helper()
	s := Shared(t)
	p.mu.Lock()
	var d Database
	if last := len(p.free) - 1; last >= 0 {
		d, p.free = p.free[last], p.free[:last]
	}
	p.mu.Unlock()
	if d.server == nil {
		d = p.prepared(t, s)
	}
	t.Cleanup(func() {
		d.logErrors(t)
		if t.Failed() {
			return // nothing is known about its connections and its tables
		}
		d = d.renewed(t)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.free = append(p.free, d)
	})
	return d
}

// prepared makes a schema, and beside it one with copies of the tables that have rows.
func (p *Pool) prepared(t testing.TB, s *Server) Database {
	t.Helper()
	d := Database{server: s, role: s.name(), name: "postgres"}
	s.Exec(t, fmt.Sprintf("create role %[1]s login; create schema %[1]s authorization %[1]s; create schema %[1]s_first", d.role))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.URL())
	if err == nil {
		err = p.Prepare(ctx, conn)
		_ = conn.Close(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Exec(t, fmt.Sprintf(`do $$ declare name text; begin
		for name in select relname from pg_class where relnamespace = '%[1]s'::regnamespace and relkind = 'r' and pg_relation_size(oid) > 0 loop
			execute format('create table %[1]s_first.%%I as table %[1]s.%%1$I', name);
		end loop;
	end $$`, d.role))
	return d
}

// renewed gives the schema the rows of its beginning. It also renames it, so that a connection of
// the test that is opened too late fails.
func (d Database) renewed(t testing.TB) Database {
	t.Helper()
	was := d.role
	d.role = d.server.name()
	d.server.Exec(t, fmt.Sprintf(`alter role %[1]s rename to %[2]s; alter role %[2]s reset all;
		alter schema %[1]s rename to %[2]s; alter schema %[1]s_first rename to %[2]s_first`, was, d.role))
	d.KillBackends(t)
	d.server.Exec(t, fmt.Sprintf(`do $$ declare name text; begin
		for name in select relname from pg_class where relnamespace = '%[1]s'::regnamespace and relkind = 'r' and pg_relation_size(oid) > 0 loop
			execute format('truncate %[1]s.%%I restart identity', name);
			if to_regclass(format('%[1]s_first.%%I', name)) is not null then
				execute format('insert into %[1]s.%%I table %[1]s_first.%%1$I', name);
			end if;
		end loop;
	end $$`, d.role))
	return d
}
