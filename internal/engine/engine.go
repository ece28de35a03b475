// Package engine has the rules: what is admitted, who gets a job and for how long,
// what follows a failed attempt, and when a silent worker's job is taken from it.
//
// Every write is an op that goes through one commit loop (loop.go), which gathers
// what arrived while the last commit was syncing. Faces call what is in api.go,
// runners what is in worker.go. DESIGN.md beside this file tells how they meet.
package engine

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// Config sets an engine up.
type Config struct {
	Store  store.Store
	Queues []Queue
	// Process names this start of the server among those that share the store; zero for a
	// new name, or for none where it is alone.
	Process job.Process
	// Alone says that no other process can be running jobs of the store. Those that a
	// former one was running are then taken back at once.
	Alone bool
	// Dead are other processes that are known to be dead: their jobs are taken back at
	// once. Those of a process that is neither are left to their leases.
	DeadProcesses []job.Process
	Log           *slog.Logger // nil discards
	// RenewEvery is how often workers renew. Renewals must have been possible for twice
	// as long before a sweep takes a lease. 0 means 10 s.
	RenewEvery time.Duration
	// MaxWatchers is how many watches and held requests there may be at once; 0 means
	// 20,000.
	MaxWatchers int
	// IdempotencyKeep is how long an idempotency key is kept at least; 0 means 24 h.
	IdempotencyKeep time.Duration
	// MaxBytes is how much the store and the files of jobs may hold: past it the oldest
	// ended jobs are deleted before their time; 0 for no bound.
	MaxBytes int64
	// FileBytes is how much the files of jobs hold; nil when jobs have none. It is called
	// by one goroutine, and may take its time.
	FileBytes func(context.Context) (int64, error)
	// Free says how many bytes are free on the disk that the store is on; nil when
	// nobody knows. While there are less than MinFree no new work is taken.
	Free    func() (int64, error)
	MinFree int64
	// RemoveFiles deletes the files of jobs that are no more; nil when jobs have none.
	// It is called by one goroutine, and may take its time.
	RemoveFiles func([]job.ID)
	Observer    Observer // nil for nobody
	// Bus connects the engine with other processes on the same store; nil when it is the
	// only one.
	Bus bus.Bus
}

// Engine is the rules over a store. Make it with New, then let Run run.
type Engine struct {
	// Set once.
	store          store.Store
	process        job.Process
	hub            *watch.Hub
	log            *slog.Logger
	queues         map[string]*queue
	names          []string // of the queues, sorted
	renewEvery     time.Duration
	idempotencyTTL time.Duration
	maxWatchers    int
	limits         map[string]job.Limits // of every queue; given to each batch
	lanes          *lanes
	commits        *commits
	sweeper        *sweeper
	pruner         *pruner
	disk           *disk
	startedAt      time.Time
	presence       *presence
	fileRemover    *fileRemover
	renewals       *renewals
	observer       Observer
	peers          *peers // nil when the engine is alone on its store

	stopping     atomic.Bool // no more submits
	storeFailing atomic.Bool // the store has refused for a while: refuse submits at once

	// Owned by loop.
	stopLoop      context.CancelCauseFunc // ends the loop; also called by the settler
	fatal         error                   // why nothing is applied any more: the data is damaged, or in doubt for good
	recovering    bool                    // batches in doubt are applied again
	claimsStopped bool                    // nothing is claimed any more

	mu sync.Mutex
	// Guarded by mu.
	leases map[job.ID]*localLease // the leases that workers of this process hold
}

// New makes an engine. It takes back at once the jobs that a former process of
// this installation was running: that process is dead, for the store has one
// owner.
func New(ctx context.Context, c Config) (*Engine, error) {
	e := &Engine{
		store:          c.Store,
		process:        c.Process,
		hub:            watch.NewHub(),
		log:            c.Log,
		queues:         map[string]*queue{},
		renewEvery:     c.RenewEvery,
		idempotencyTTL: c.IdempotencyKeep,
		maxWatchers:    c.MaxWatchers,
		limits:         map[string]job.Limits{},
		lanes:          newLanes(),
		startedAt:      time.Now(),
		presence:       newPresence(),
		fileRemover:    newFileRemover(c.RemoveFiles),
		renewals:       newRenewals(),
		observer:       c.Observer,
		leases:         map[job.ID]*localLease{},
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.observer == nil {
		e.observer = noObserver{}
	}
	if e.renewEvery == 0 {
		e.renewEvery = 10 * time.Second
	}
	if e.maxWatchers == 0 {
		e.maxWatchers = 20_000
	}
	if e.idempotencyTTL == 0 {
		e.idempotencyTTL = 24 * time.Hour
	}
	if e.process == (job.Process{}) && !c.Alone { // alone no lease needs to say whose it is
		e.process = job.NewProcess()
	}
	for _, q := range c.Queues {
		e.queues[q.Name] = &queue{Queue: q, process: e.process}
		e.limits[q.Name] = job.Limits{Running: q.MaxRunning, KeyRunning: q.KeyRunning, KeyWaiting: q.KeyWaiting}
		e.names = append(e.names, q.Name)
	}
	slices.Sort(e.names)
	e.disk = &disk{free: c.Free, minFree: c.MinFree, log: e.log}
	e.commits = newCommits(e.refuseWaiting)
	e.sweeper = newSweeper(e)
	e.pruner = newPruner(e, c.MaxBytes)
	e.pruner.fileBytes = c.FileBytes
	if err := e.reclaimDead(ctx, c.Alone, c.DeadProcesses); err != nil {
		return nil, err
	}
	if err := e.loadCounts(ctx); err != nil {
		return nil, err
	}
	e.peers = newPeers(e, c.Bus) // last: it is on the bus from here on
	return e, nil
}

// loadCounts tells the queues what is in them. Jobs of a queue that there is no more
// wait until it is there again: nobody would notice, were it not said.
func (e *Engine) loadCounts(ctx context.Context) error {
	counts, err := e.store.Counts(ctx)
	for name, c := range counts {
		switch q := e.queues[name]; {
		case q != nil:
			q.setCounts(c)
		case c.Waiting() > 0:
			e.log.Warn("jobs wait in a queue that there is not: they run when it is configured again, or can be cancelled", "queue", name, "jobs", c.Waiting())
		}
	}
	return err
}

// Run commits and sweeps until ctx ends; then it commits what was asked before,
// and returns when all that it started is gone. Runners are to be stopped first:
// what they ask afterwards is refused.
func (e *Engine) Run(ctx context.Context) error {
	var duties sync.WaitGroup
	sweeping, stop := context.WithCancel(ctx)
	duties.Go(func() { e.sweeper.run(sweeping) })
	duties.Go(func() { e.runRefresh(sweeping) })
	if e.peers != nil {
		duties.Go(func() { e.peers.run(sweeping) })
	}
	duties.Go(func() { e.pruner.run(sweeping) })
	duties.Go(func() { e.fileRemover.run(sweeping) })
	err := e.loop(ctx)
	stop()
	duties.Wait()
	return err
}

// StopSubmits refuses submits from now on, with [job.ShuttingDown]; what is under way goes
// on.
func (e *Engine) StopSubmits() { e.stopping.Store(true) }

// die is a number in [0,1), for jitter.
func die() float64 { return rand.Float64() }
