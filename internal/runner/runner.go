// Package runner runs the jobs of one queue. It takes leased jobs from a [Source], gives each
// to an executor, stores the executor's output, renews the leases, enforces the timeouts, and
// stores the outcome of each attempt. The source decides what follows an outcome: an end, a
// retry or a wait.
//
// Each attempt runs its executor on one goroutine. The attempt is over when the executor
// returns, or when it was asked to stop and its grace has passed. Whichever happens first
// starts finishing the attempt and stores its outcome. Output that arrives later is dropped.
//
// An attempt without output costs one goroutine until its executor returns, one write that no
// goroutine waits for, and no timer.
package runner

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Source delivers leased jobs and stores the writes of their attempts. Many goroutines call its
// methods at once, but at most one Append or Finish is outstanding for a lease. The runner
// repeats a failed write with the same arguments, even if the first write was applied, unless
// the error is a refusal.
type Source interface {
	// Consume delivers jobs to w until stop is called. stop returns at once. Delivered jobs stay
	// with the worker. A claim that is in progress when stop is called may still be delivered;
	// the runner releases that job.
	Consume(w job.Worker) (stop func())
	// Append stores output and returns when it is on disk. It returns [job.LeaseLost] for a void
	// lease, and [job.TooLarge] above the limit of a job's output.
	Append(ctx context.Context, l job.Lease, entries []job.Entry, p *job.Progress) error
	// Finish ends the attempt and returns when the outcome is on disk. It returns
	// [job.LeaseLost] for a void lease.
	Finish(ctx context.Context, l job.Lease, o job.Outcome) (job.State, error)
	// FinishAsync does what Finish does without blocking. It calls then once, with the error,
	// on any goroutine.
	FinishAsync(l job.Lease, o job.Outcome, then func(error))
	// Renew extends each lease by its job's [job.Timeouts.Lease] and returns an error or nil for
	// each lease. It returns at the latest when ctx ends. Several calls may be outstanding, two
	// for the same lease if the first one is slow.
	Renew(ctx context.Context, leases []job.Lease) []error
}

// Config configures a runner.
type Config struct {
	Source   Source
	Queue    string
	Executor exec.Executor
	Clocks   job.Timeouts // of the queue's configuration
	Slots    int          // maximum number of jobs that run at once
	Name     string       // name of the worker, for display
	Log      *slog.Logger // nil discards
	// RenewEvery is the interval between two renewals of a lease; 0 means 10 s. A lease that
	// is shorter than three intervals is renewed every third of its length.
	RenewEvery time.Duration
	// IgnoreLeaseExpiry keeps work running when its lease could not be renewed in time. Then
	// only [job.LeaseLost] or [job.OrderLost] from the source stops it. Set it only if the
	// source reassigns no lease while it cannot store renewals, and no other process reassigns
	// any. By default, work stops shortly before its lease expires, because another worker may
	// get the job after that.
	IgnoreLeaseExpiry bool
	// Grace is how long running work may continue after the runner was asked to stop; 0 means 25
	// s.
	Grace time.Duration
	// Files puts the files of a job on the local disk. It may block, until ctx ends, and fail. The
	// files stay at their absolute paths, which are in the order of list, until release is called.
	// Files may be nil if no job has files.
	Files func(ctx context.Context, id job.ID, list []job.File) (paths []string, release func(), err error)
	// OnAttempt is called when an attempt starts; nil for no hook.
	OnAttempt AttemptHook
}

// Runner runs the jobs of one queue. Make it with [New] and call Run once.
type Runner struct {
	// set once, by New and at the start of Run
	cfg          Config
	rootCtx      context.Context // parent of the attempts' contexts; never ends
	writeCtx     context.Context // context of every write; ends when a shutdown gives up
	cancelWrites context.CancelFunc
	wakeSooner   chan struct{} // receives a value if a lease is due before the timer of renewLeases; never closed
	drained      chan struct{} // receives a value if nothing is active, for drain; never closed
	next         chan *attempt // work for idle goroutines, see pool.go; never closed

	idlePool sync.WaitGroup // counts the idle goroutines

	mu sync.Mutex // may be taken while an attempt's mu is held, never the other way round
	// guarded by mu
	phase  phase
	leased map[job.Token]*attempt // attempts whose leases are renewed
	active int                    // attempts that are not over, and goroutines that work for one
	idle   int                    // goroutines that wait for the next attempt
	wakeAt time.Time              // when renewLeases wakes; zero for never
}

type phase uint8

const (
	accepting phase = iota
	stopping        // delivered jobs are released
	closed          // Run has returned
)

// New makes a runner.
func New(c Config) *Runner {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.RenewEvery == 0 {
		c.RenewEvery = 10 * time.Second
	}
	if c.Grace == 0 {
		c.Grace = 25 * time.Second
	}
	c.Log = c.Log.With("queue", c.Queue)
	return &Runner{
		cfg:        c,
		wakeSooner: make(chan struct{}, 1),
		drained:    make(chan struct{}, 1),
		next:       make(chan *attempt, maxIdle),
		leased:     make(map[job.Token]*attempt, c.Slots),
	}
}

// Run runs jobs until ctx ends. Then it accepts no more jobs, lets the running ones continue for
// their grace, stops and releases the rest, and returns when every goroutine that it started has
// ended. It returns an error if some goroutine has not ended, because an executor ignores its
// context or the source does not answer.
func (r *Runner) Run(ctx context.Context) error {
	// The end of ctx must not end running work. It starts the shutdown, with its grace.
	r.rootCtx = context.WithoutCancel(ctx)
	r.writeCtx, r.cancelWrites = context.WithCancel(r.rootCtx)
	defer r.cancelWrites()

	leaseCtx, stopRenewing := context.WithCancel(r.writeCtx)
	renewingDone := make(chan struct{})
	go func() {
		defer close(renewingDone)
		r.renewLeases(leaseCtx)
	}()

	unsubscribe := r.cfg.Source.Consume(job.Worker{
		Name:    r.cfg.Name,
		Queue:   r.cfg.Queue,
		Slots:   r.cfg.Slots,
		Deliver: r.deliver,
		Order:   r.order,
	})
	<-ctx.Done()
	// Set the phase before stopping the subscription, so that a job delivered in between is
	// released.
	r.setPhase(stopping)
	unsubscribe()
	err := r.drain()
	// Leases are renewed until the last outcome is stored.
	stopRenewing()
	<-renewingDone
	r.idlePool.Wait()
	r.setPhase(closed)
	return err
}

// deliver starts an attempt. The source calls it.
func (r *Runner) deliver(c job.Claimed) {
	a := &attempt{r: r, claimed: c, lease: newLease(&c, &r.cfg, time.Now())}
	if a.lease.renewFirst {
		a.leaseRenewed = make(chan struct{})
		a.ctx, a.cancel = context.WithCancelCause(r.rootCtx)
	}
	// The executor and the clocks see the timeouts of this attempt.
	if c.Job.Failures() > 1 {
		a.claimed.Job.Policy.Timeouts = c.Job.AttemptTimeouts()
	}
	// A pointer into the job saves a copy per attempt.
	a.clocks.limits = &a.claimed.Job.Policy.Timeouts
	r.mu.Lock()
	defer r.mu.Unlock()
	switch r.phase {
	case closed:
		r.cfg.Log.Warn("a job was delivered after the runner had stopped; its lease will expire", "job", c.Job.ID)
		return
	case stopping:
		a.stopCause = exec.ErrStopping // released without having started
	case accepting:
	}
	r.addLeaseLocked(a)
	r.active++
	r.startLocked(a)
}

// order passes an order to the attempt of the lease. The source calls it.
func (r *Runner) order(l job.Lease, o job.Order) {
	r.mu.Lock()
	a := r.leased[l.Token]
	r.mu.Unlock()
	switch {
	case a == nil:
	case o == job.OrderCancel:
		a.onCancel()
	case o == job.OrderLost:
		a.onLeaseLost()
	}
}

// addActive adds one to the goroutines that work for an attempt.
func (r *Runner) addActive() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active++
}

// removeActive subtracts one. If the attempt ended is not nil, its lease is no longer renewed.
func (r *Runner) removeActive(ended *attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ended != nil {
		delete(r.leased, ended.claimed.Token)
	}
	r.active--
	if r.active == 0 && r.phase != accepting {
		notify(r.drained)
	}
}

// removeLease stops renewing the lease of a.
func (r *Runner) removeLease(a *attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.leased, a.claimed.Token)
}

// leasedAttempts lists the attempts whose leases are renewed.
func (r *Runner) leasedAttempts() []*attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A copy, because the caller takes the attempts' locks, which come before mu.
	all := make([]*attempt, 0, len(r.leased))
	for _, a := range r.leased {
		all = append(all, a)
	}
	return all
}

// notify sends a value to c, unless one is waiting there. The buffer of c is one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
