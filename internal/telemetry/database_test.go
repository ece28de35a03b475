package telemetry

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestMetricsOfDatabase(t *testing.T) {
	t.Parallel()
	state := &DatabaseState{
		Up: true, BusUp: true, BusLag: 3 * time.Millisecond, BusDropped: 9,
		Pools: []PoolState{{Name: "reads", InUse: 3, Idle: 1, Max: 4, Waits: 8, Waited: 250 * time.Millisecond}},
		Facts: &DatabaseFacts{
			Bytes: 1, SnapshotAge: 2, OldestTransaction: 3 * time.Second, LockWait: 4 * time.Second, Sessions: 5, MaxSessions: 97,
			Standbys: 1, Synchronous: true, RetainedBytes: 6,
			Tables: []TableState{{Name: "jobs", Rows: 10, Dead: 20}, {Name: "moves", Vacuumed: time.Now().Add(time.Hour)}},
		},
	}
	m := NewMetrics()
	m.AddSources(Sources{Database: func(context.Context) *DatabaseState { return state }})
	expect(t, m,
		`meanwhile_database_up 1`, `meanwhile_bus_up 1`, `meanwhile_bus_lag_seconds 0.003`, `meanwhile_bus_lost_notices_total 9`,
		`meanwhile_database_pool_connections{pool="reads",state="in_use"} 3`, `meanwhile_database_pool_connections{pool="reads",state="idle"} 1`,
		`meanwhile_database_pool_connections_max{pool="reads"} 4`, `meanwhile_database_pool_waits_total{pool="reads"} 8`, `meanwhile_database_pool_wait_seconds_total{pool="reads"} 0.25`,
		`meanwhile_database_bytes 1`, `meanwhile_database_snapshot_age_transactions 2`, `meanwhile_database_transaction_seconds 3`,
		`meanwhile_database_lock_wait_seconds 4`, `meanwhile_database_sessions 5`, `meanwhile_database_sessions_max 97`,
		`meanwhile_database_standbys 1`, `meanwhile_database_synchronous 1`, `meanwhile_database_slot_retained_bytes 6`,
		`meanwhile_database_rows{table="jobs"} 10`, `meanwhile_database_dead_rows{table="jobs"} 20`,
		`meanwhile_database_vacuum_age_seconds{table="moves"} 0`)
	if text := read(t, m); strings.Contains(text, `meanwhile_database_vacuum_age_seconds{table="jobs"}`) {
		t.Error("a table that was never vacuumed has an age")
	}
	state.Facts, state.Up, state.BusUp = nil, false, false
	expect(t, m, `meanwhile_database_up 0`, `meanwhile_bus_up 0`)
	if text := read(t, m); strings.Contains(text, "meanwhile_database_bytes") || strings.Contains(text, "meanwhile_bus_lag_seconds") {
		t.Error("what is not known is shown")
	}
	m = NewMetrics()
	m.AddSources(Sources{})
	if text := read(t, m); strings.Contains(text, "meanwhile_database") || strings.Contains(text, "meanwhile_bus") {
		t.Error("a server without a database shows metrics of one")
	}
}

func TestServersWanted(t *testing.T) {
	t.Parallel()
	counts := job.Counts{Running: 4, Queued: 8, Parked: 100, Scheduled: 100}
	for _, c := range []struct {
		what string
		view engine.QueueView
		want float64
	}{
		{"running and ready jobs", engine.QueueView{Queue: engine.Queue{Concurrency: 4}, Counts: counts}, 3},
		{"a part of a server", engine.QueueView{Queue: engine.Queue{Concurrency: 16}, Counts: counts}, 0.75},
		{"a limit over all servers", engine.QueueView{Queue: engine.Queue{Concurrency: 4, MaxRunning: 6}, Counts: counts}, 1.5},
		{"a paused queue", engine.QueueView{Queue: engine.Queue{Concurrency: 4}, Counts: job.Counts{Paused: true, Running: 4, Queued: 8}}, 1},
		{"a queue of others", engine.QueueView{Unconfigured: true, Counts: counts}, 0},
	} {
		if got := serversWanted(c.view); got != c.want {
			t.Errorf("%s: %v servers, want %v", c.what, got, c.want)
		}
	}
}
