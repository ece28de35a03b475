package server

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/store/postgres"
	"github.com/meanwhile-run/meanwhile/internal/telemetry"
)

// factsInterval is the least time between two reads of what the database says of itself. Some of
// it costs the database a look at all of its files.
const factsInterval = 15 * time.Second

// readDatabase adds the metrics of the database, and bounds how long a scrape waits for it.
func (c *components) readDatabase(s *telemetry.Sources) {
	c.reads = telemetry.NewReads(c.engine.StoreAway)
	s.Queues = telemetry.Latest(c.reads, 0, c.engine.Queues)
	s.Size = telemetry.Latest(c.reads, factsInterval, c.store.Size)
	facts := telemetry.Latest(c.reads, factsInterval, c.databaseFacts)
	s.Database = func(ctx context.Context) *telemetry.DatabaseState {
		d := &telemetry.DatabaseState{
			Up:    !c.engine.StoreAway(),
			Pools: []telemetry.PoolState{poolState("reads", c.store.postgres.ReaderStats()), poolState("files", postgres.StatsOf(c.store.pool))},
		}
		if bus := c.store.notices; bus != nil {
			d.BusLag, d.BusDropped = bus.Lag(), bus.Lost()
			d.BusUp = d.BusLag >= 0
		}
		if f, err := facts(ctx); err == nil {
			d.Facts = f
		}
		return d
	}
}

func (c *components) databaseFacts(ctx context.Context) (*telemetry.DatabaseFacts, error) {
	h, err := c.store.postgres.Health(ctx)
	if err != nil {
		return nil, err
	}
	f := &telemetry.DatabaseFacts{
		Bytes: h.Bytes, SnapshotAge: h.SnapshotAge, OldestTransaction: h.OldestTransaction, LockWait: h.LockWait,
		Sessions: h.Sessions, MaxSessions: h.MaxSessions,
		Standbys: h.Standbys, Synchronous: h.Synchronous, RetainedBytes: h.RetainedBytes,
	}
	for _, t := range h.Tables {
		f.Tables = append(f.Tables, telemetry.TableState(t))
	}
	return f, nil
}

func poolState(name string, s postgres.PoolStats) telemetry.PoolState {
	return telemetry.PoolState{Name: name, InUse: s.InUse, Idle: s.Idle, Max: s.Max, Waits: s.Waits, Waited: s.Waited}
}
