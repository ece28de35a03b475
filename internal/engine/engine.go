// Package engine has the rules: which jobs are admitted, which worker gets a job and for how
// long, what follows a failed attempt, and when a sweep takes a job from a silent worker.
//
// Every write is an op of package store. One commit loop (loop.go) gathers the ops that
// arrive while the last commit syncs, and applies them as one batch. APIs submit, read,
// watch and change jobs (submit.go, snapshot.go, watch.go, change.go). Runners consume jobs
// and report on them (consumer.go, output.go, finish.go, renewals.go). DESIGN.md beside this
// file explains how the parts work together.
//
// A method named by a past participle (settled, finished, cancelled) does what follows once
// the op is on disk. Nothing else is named so.
package engine

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// Config has the settings of an engine.
type Config struct {
	Store  store.Store
	Queues []Queue
	// Process identifies this start of the server among the processes that share the store.
	// Zero makes a new random one, or none if Alone is set.
	Process job.Process
	// Alone states that no other process runs jobs of the store. New then reclaims all running
	// jobs at once.
	Alone bool
	// DeadProcesses are processes that are known to be dead. New reclaims their running jobs at
	// once. The running jobs of other processes keep their leases.
	DeadProcesses []job.Process
	Log           *slog.Logger // nil discards
	// RenewEvery is the interval at which workers renew their leases. A lease is swept only if
	// renewals were possible for two such intervals. 0 means 10 s.
	RenewEvery time.Duration
	// MaxWatchers bounds the watches and long-polls that are open at once; 0 means 20,000.
	MaxWatchers int
	// IdempotencyKeep is the minimum time for which an idempotency key is kept; 0 means 24 h.
	IdempotencyKeep time.Duration
	// MaxBytes bounds the size of the store and of the jobs' files, in bytes. Above it the
	// oldest ended jobs are deleted before their retention is over. 0 means no bound.
	MaxBytes int64
	// MaxKept bounds the bytes of an owner's conversations and of the records of its deleted
	// jobs; see [store.Batch.MaxKept]. 0 means no bound.
	MaxKept int64
	// FileBytes returns the size of the jobs' files in bytes; nil if jobs have no files. One
	// goroutine calls it. It may be slow.
	FileBytes func(context.Context) (int64, error)
	// Free returns the bytes that are free on the store's disk; nil if that is unknown.
	// While fewer than MinFree bytes are free, new work is refused.
	Free    func() (int64, error)
	MinFree int64
	// RemoveFiles deletes the files of deleted jobs; nil if jobs have no files. One goroutine
	// calls it. It may be slow.
	RemoveFiles func([]job.ID)
	Observer    Observer // nil for none
	// ResourceLimits returns how many jobs of each limited resource this process may hold at
	// once, in a map of its own; nil if no queue has resources. The engine calls it for each
	// batch, so it must be quick. See [Engine.RoomChanged].
	ResourceLimits func() map[string]int
	// Refs returns the references of a job to the receivers of its end, or refuses its
	// callback; nil for none. callback may be nil. It is called for each submit, so it must be
	// quick.
	Refs func(tenant string, callback *job.Callback) ([]string, error)
	// Bus connects the engine with other processes on the same store; nil for a single
	// process. With it the smallest limits of all processes hold; see [QueueLimits].
	Bus bus.Bus
	// ProcessName names this process in the logs of the others.
	ProcessName string
}

// Engine applies the rules to the jobs of a store. Make one with New and call Run.
type Engine struct {
	// Set once.
	store          store.Store
	beginner       store.Beginner // the store, if it is one; else nil
	process        job.Process
	hub            *watch.Hub
	log            *slog.Logger
	queues         map[string]*queue
	names          []string // of the queues, sorted
	renewEvery     time.Duration
	idempotencyTTL time.Duration
	maxWatchers    int
	maxKept        int64
	lanes          *lanes
	commits        *commits
	sweeper        *sweeper
	pruner         *pruner
	disk           *disk
	startedAt      time.Time
	presence       *presence
	fileRemover    *fileRemover
	renewals       *renewals
	failures       *failureLog
	listTurns      *turns
	observer       Observer
	refs           func(tenant string, callback *job.Callback) ([]string, error) // see [Config.Refs]
	peers          *peers                                                        // nil without a bus
	sharedLimits   *sharedLimits                                                 // nil without a bus
	resources      *resources

	limits       atomic.Pointer[map[string]job.Limits] // by queue; part of each batch, and not changed
	stopping     atomic.Bool                           // submits are refused
	storeFailing atomic.Bool                           // the store cannot be written, so submits are refused at once
	refreshedAt  atomic.Int64                          // when the store was last read by runRefresh, in ns since startedAt

	// Owned by loop.
	stopLoop      context.CancelCauseFunc // if set, nothing more is applied
	fatal         error                   // if set, nothing is applied any more
	recovering    bool                    // the loop is applying batches in doubt again
	claimsStopped bool                    // the server is stopping

	mu sync.Mutex
	// Guarded by mu.
	leases map[job.ID]*localLease // the leases of this process's workers
}

// New makes an engine. It reclaims the running jobs of dead processes, as configured, and reads
// the counts of all queues.
func New(ctx context.Context, c Config) (*Engine, error) {
	c.setDefaults()
	e := &Engine{
		store:          c.Store,
		process:        c.Process,
		hub:            watch.NewHub(),
		log:            c.Log,
		queues:         map[string]*queue{},
		renewEvery:     c.RenewEvery,
		idempotencyTTL: c.IdempotencyKeep,
		maxWatchers:    c.MaxWatchers,
		maxKept:        c.MaxKept,
		lanes:          newLanes(),
		startedAt:      time.Now(),
		presence:       newPresence(),
		fileRemover:    newFileRemover(c.RemoveFiles),
		renewals:       newRenewals(),
		failures:       newFailureLog(c.Log),
		listTurns:      newListTurns(),
		observer:       c.Observer,
		refs:           c.Refs,
		resources:      &resources{limits: c.ResourceLimits, held: map[string]int{}},
		leases:         map[job.ID]*localLease{},
	}
	limits := map[string]job.Limits{}
	e.beginner, _ = c.Store.(store.Beginner)
	for _, q := range c.Queues {
		e.queues[q.Name] = &queue{Queue: q, process: e.process, resources: e.resources, limits: q.ownLimits()}
		limits[q.Name] = q.ownLimits().ofBatch()
		e.names = append(e.names, q.Name)
	}
	e.limits.Store(&limits)
	slices.Sort(e.names)
	e.disk = &disk{free: c.Free, minFree: c.MinFree, largest: job.MaxBody, log: e.log}
	for i := range c.Queues {
		e.disk.largest = max(e.disk.largest, int64(c.Queues[i].MaxInput))
	}
	e.commits = newCommits(e.refuseWaiting)
	e.sweeper = newSweeper(e)
	e.pruner = newPruner(e, c.MaxBytes)
	e.pruner.fileBytes = c.FileBytes
	// Before the counts are read: the reclaimed jobs are queued again.
	if err := e.reclaimDead(ctx, c.Alone, c.DeadProcesses); err != nil {
		return nil, err
	}
	if err := e.loadCounts(ctx); err != nil {
		return nil, err
	}
	if e.sharedLimits = newSharedLimits(e, &c); e.sharedLimits != nil {
		if err := e.sharedLimits.follow(ctx); err != nil { // before anything starts a job
			return nil, err
		}
	}
	e.peers = newPeers(e, c.Bus) // last, because notices arrive from here on
	return e, nil
}

// setDefaults sets the defaults of fields that are zero.
func (c *Config) setDefaults() {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Observer == nil {
		c.Observer = noObserver{}
	}
	if c.RenewEvery == 0 {
		c.RenewEvery = 10 * time.Second
	}
	if c.MaxWatchers == 0 {
		c.MaxWatchers = 20_000
	}
	if c.IdempotencyKeep == 0 {
		c.IdempotencyKeep = 24 * time.Hour
	}
	if c.Process == (job.Process{}) && !c.Alone { // a lone engine needs no process id in its leases
		c.Process = job.NewProcess()
	}
}

// loadCounts reads the counts of all queues. It logs a warning for jobs in a queue that is not
// configured: they wait until it is configured again, and nothing else shows that.
func (e *Engine) loadCounts(ctx context.Context) error {
	counts, err := e.store.Counts(ctx)
	for name, c := range counts {
		switch q := e.queues[name]; {
		case q != nil:
			q.setCounts(c)
		case c.Waiting() > 0:
			e.log.Warn("jobs wait in a queue that is not configured: configure it again to run them, or cancel them", "queue", name, "jobs", c.Waiting())
		}
	}
	return err
}

// Run commits and sweeps until ctx ends. Then it commits the ops that were submitted before, and
// returns when all its goroutines have ended. Stop the runners first, because later ops are
// refused.
func (e *Engine) Run(ctx context.Context) error {
	var background sync.WaitGroup
	sweeping, stop := context.WithCancel(ctx)
	e.refreshedAt.Store(int64(time.Since(e.startedAt))) // New has read the counts
	background.Go(func() { e.sweeper.run(sweeping) })
	background.Go(func() { e.runRefresh(sweeping) })
	if e.peers != nil {
		background.Go(func() { e.peers.run(sweeping) })
		background.Go(func() { e.sharedLimits.run(sweeping) })
	}
	background.Go(func() { e.pruner.run(sweeping) })
	background.Go(func() { e.fileRemover.run(sweeping) })
	logging, stopLog := context.WithCancel(context.WithoutCancel(ctx)) // the last commits may end jobs too
	background.Go(func() { e.failures.run(logging) })
	err := e.loop(ctx)
	stop()
	stopLog()
	background.Wait()
	return err
}

// StopSubmits refuses submits from now on, with [job.ShuttingDown]. Other work goes on.
func (e *Engine) StopSubmits() { e.stopping.Store(true) }
