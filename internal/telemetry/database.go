package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// DatabaseState is the state of a PostgreSQL database that the server uses.
type DatabaseState struct {
	Up    bool
	Facts *DatabaseFacts // nil while the database does not answer
	Pools []PoolState

	BusUp      bool          // notices between the servers arrive
	BusLag     time.Duration // how long a notice takes
	BusDropped int64         // notices that were never sent
}

// DatabaseFacts are what the database says of itself.
type DatabaseFacts struct {
	Bytes                       int64
	SnapshotAge                 int64 // in transactions
	OldestTransaction, LockWait time.Duration
	Sessions, MaxSessions       int64
	Standbys                    int64
	Synchronous                 bool
	RetainedBytes               int64
	Tables                      []TableState
}

// TableState is the state of one table.
type TableState struct {
	Name       string
	Rows, Dead int64
	Vacuumed   time.Time // zero for never
}

// PoolState is the state of a pool of connections to the database.
type PoolState struct {
	Name             string
	InUse, Idle, Max int
	Waits            int64
	Waited           time.Duration
}

var (
	databaseUp           = newDesc("meanwhile_database_up", "1 while the database answers, else 0.")
	databaseBytes        = newDesc("meanwhile_database_bytes", "Size of the database on its disk.")
	databaseSnapshot     = newDesc("meanwhile_database_snapshot_age_transactions", "Transactions that have begun since the oldest snapshot that is held.")
	databaseTransaction  = newDesc("meanwhile_database_transaction_seconds", "For how long the oldest transaction is open.")
	databaseLockWait     = newDesc("meanwhile_database_lock_wait_seconds", "For how long the session waits that has waited longest for a lock.")
	databaseRows         = newDesc("meanwhile_database_rows", "Rows of a table, as the database counts them.", "table")
	databaseDead         = newDesc("meanwhile_database_dead_rows", "Dead rows of a table that are not removed yet.", "table")
	databaseVacuum       = newDesc("meanwhile_database_vacuum_age_seconds", "Time since the last vacuum of a table.", "table")
	databaseSessions     = newDesc("meanwhile_database_sessions", "Sessions of the database server.")
	databaseMaxSessions  = newDesc("meanwhile_database_sessions_max", "Sessions that ordinary roles may have.")
	databaseStandbys     = newDesc("meanwhile_database_standbys", "Connections that receive the log of the database.")
	databaseSynchronous  = newDesc("meanwhile_database_synchronous", "1 when commits wait for standbys, else 0.")
	databaseRetained     = newDesc("meanwhile_database_slot_retained_bytes", "Bytes of the log that the slowest replication slot retains.")
	poolConnections      = newDesc("meanwhile_database_pool_connections", "Connections of a pool.", "pool", "state")
	poolMax              = newDesc("meanwhile_database_pool_connections_max", "Connections that a pool may have.", "pool")
	poolWaits            = newDesc("meanwhile_database_pool_waits_total", "Times that something waited for a connection of a pool.", "pool")
	poolWaited           = newDesc("meanwhile_database_pool_wait_seconds_total", "Time that was spent waiting for connections of a pool.", "pool")
	busUp                = newDesc("meanwhile_bus_up", "1 while notices between servers arrive, else 0.")
	busLag               = newDesc("meanwhile_bus_lag_seconds", "Time that the last notice to itself took through the database.")
	busDropped           = newDesc("meanwhile_bus_lost_notices_total", "Notices to other servers that could not be sent.")
	databaseDescriptions = []*prometheus.Desc{
		databaseUp, databaseBytes, databaseSnapshot, databaseTransaction, databaseLockWait, databaseRows, databaseDead, databaseVacuum,
		databaseSessions, databaseMaxSessions, databaseStandbys, databaseSynchronous, databaseRetained,
		poolConnections, poolMax, poolWaits, poolWaited, busUp, busLag, busDropped,
	}
)

type gaugeFunc func(*prometheus.Desc, float64, ...string)

// collectDatabase adds the metrics of a database; nil adds none.
func collectDatabase(d *DatabaseState, to chan<- prometheus.Metric, gauge gaugeFunc) {
	if d == nil {
		return
	}
	count := func(desc *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, v, labels...)
	}
	gauge(databaseUp, boolValue(d.Up))
	for _, p := range d.Pools {
		gauge(poolConnections, float64(p.InUse), p.Name, "in_use")
		gauge(poolConnections, float64(p.Idle), p.Name, "idle")
		gauge(poolMax, float64(p.Max), p.Name)
		count(poolWaits, float64(p.Waits), p.Name)
		count(poolWaited, p.Waited.Seconds(), p.Name)
	}
	gauge(busUp, boolValue(d.BusUp))
	if d.BusUp {
		gauge(busLag, d.BusLag.Seconds())
	}
	count(busDropped, float64(d.BusDropped))
	if d.Facts != nil {
		d.Facts.collect(gauge)
	}
}

func (f *DatabaseFacts) collect(gauge gaugeFunc) {
	gauge(databaseBytes, float64(f.Bytes))
	gauge(databaseSnapshot, float64(f.SnapshotAge))
	gauge(databaseTransaction, f.OldestTransaction.Seconds())
	gauge(databaseLockWait, f.LockWait.Seconds())
	gauge(databaseSessions, float64(f.Sessions))
	gauge(databaseMaxSessions, float64(f.MaxSessions))
	gauge(databaseStandbys, float64(f.Standbys))
	gauge(databaseSynchronous, boolValue(f.Synchronous))
	gauge(databaseRetained, float64(f.RetainedBytes))
	for _, t := range f.Tables {
		gauge(databaseRows, float64(t.Rows), t.Name)
		gauge(databaseDead, float64(t.Dead), t.Name)
		if !t.Vacuumed.IsZero() {
			gauge(databaseVacuum, max(time.Since(t.Vacuumed), 0).Seconds(), t.Name)
		}
	}
}
