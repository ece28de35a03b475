package postgres

import (
	"context"
	"time"
)

// Health is what the database says of itself to a role without special rights. An operator watches
// it; nothing in the store depends on it.
type Health struct {
	Bytes int64 // of the database on its disk

	// SnapshotAge is how many transactions have begun since the oldest snapshot that is held: by a
	// session, a standby, a replication slot or a prepared transaction. Dead rows that are newer
	// than it cannot be removed.
	SnapshotAge int64
	// OldestTransaction is how long the oldest transaction is open. Without the rights of
	// pg_read_all_stats only those of the own role count.
	OldestTransaction time.Duration
	// LockWait is how long the session waits that has waited longest for a lock.
	LockWait time.Duration

	Sessions, MaxSessions int64 // of all databases of the server; the maximum of ordinary roles

	Standbys      int64 // connections that receive the log of the database
	Synchronous   bool  // a commit waits for standbys
	RetainedBytes int64 // of the log, for the replication slot that is furthest behind

	Tables []TableHealth
}

// TableHealth is what the statistics of the database say of a table that changes all the time.
type TableHealth struct {
	Name       string
	Rows, Dead int64
	Vacuumed   time.Time // zero for never
}

var (
	// An autovacuum has a snapshot that holds back nothing. It is a session without a role.
	readHealth = &statement{"read_health", `with sessions as (
		select * from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database() and usesysid is not null
	), held as (
		select age(backend_xmin) as age from sessions where backend_xmin is not null
		union all select age(backend_xmin) from pg_stat_replication where backend_xmin is not null
		union all select age(xmin) from pg_replication_slots where xmin is not null
		union all select age(transaction) from pg_prepared_xacts where database = current_database()
	)
	select pg_database_size(current_database()),
		(select coalesce(max(age), 0) from held)::bigint,
		(select coalesce(extract(epoch from max(clock_timestamp() - xact_start)) * 1000000, 0) from sessions)::bigint,
		(select coalesce(extract(epoch from max(clock_timestamp() - waitstart)) * 1000000, 0) from pg_locks join sessions using (pid) where not granted)::bigint,
		(select coalesce(sum(numbackends), 0) from pg_stat_database)::bigint,
		current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint,
		(select count(*) from pg_stat_replication),
		current_setting('synchronous_standby_names') <> '',
		case when pg_is_in_recovery() then 0
			else (select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0) from pg_replication_slots) end::bigint`}
	readTables = &statement{"read_tables", `select relname::text, n_live_tup, n_dead_tup,
		(extract(epoch from greatest(last_vacuum, last_autovacuum)) * 1000000)::bigint
		from pg_stat_user_tables where schemaname = current_schema() and relname in ('applied', 'jobs', 'moves', 'output') order by relname`}
)

// Health reads what the database says of itself. It may take a second where the database has many
// files.
func (s *Store) Health(ctx context.Context) (h Health, err error) {
	err = s.withReader(ctx, func(r *reader) error {
		h = Health{}
		return r.ask(ctx, question{statement: readHealth, each: h.read}, question{statement: readTables, each: h.readTable})
	})
	return h, err
}

func (h *Health) read(r *record) error {
	h.Bytes, h.SnapshotAge = r.int(), r.int()
	h.OldestTransaction, h.LockWait = readMicroseconds(r), readMicroseconds(r)
	h.Sessions, h.MaxSessions = r.int(), r.int()
	h.Standbys, h.Synchronous, h.RetainedBytes = r.int(), r.flag(), r.int()
	return nil
}

func (h *Health) readTable(r *record) error {
	h.Tables = append(h.Tables, TableHealth{Name: r.text(), Rows: r.int(), Dead: r.int(), Vacuumed: r.time()})
	return nil
}

// readMicroseconds reads a duration. The clock of a session may be behind by a moment.
func readMicroseconds(r *record) time.Duration {
	return max(time.Duration(r.int())*time.Microsecond, 0)
}

// PoolStats are the numbers of a pool of connections.
type PoolStats struct {
	InUse, Idle, Max int
	Waits            int64         // times that a caller had to wait for a connection
	Waited           time.Duration // how long all of them waited together
}

// StatsOf returns the numbers of a pool.
func StatsOf(p *Pool) PoolStats {
	s := p.Stat()
	return PoolStats{InUse: int(s.AcquiredConns()), Idle: int(s.IdleConns()), Max: int(s.MaxConns()), Waits: s.EmptyAcquireCount(), Waited: s.EmptyAcquireWaitTime()}
}

// ReaderStats returns the numbers of the connections that read.
func (s *Store) ReaderStats() PoolStats { return StatsOf(s.pool) }
