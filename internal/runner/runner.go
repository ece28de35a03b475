// Package runner does the jobs of a queue: it takes leased jobs from a [Source],
// gives each to an executor, stores what the executor says, keeps the leases
// alive, watches the clocks, and reports what each attempt came to. What follows
// from that (an end, a retry, a wait) is not its business.
//
// The life of an attempt: the source delivers a leased job, and a goroutine of its
// own runs the executor. The attempt is over when the executor returns, or when it
// was asked to stop and did not within its grace: whoever comes first seizes it,
// and stores its end. What an executor says after that goes nowhere.
//
// An attempt that says nothing costs one goroutine until its executor has returned, no
// timer and one write, which nobody waits for.
package runner

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Source is where jobs come from and where their ends go. All of its methods are
// called by many goroutines at once, but of one lease no more than one Append or
// Finish is outstanding. A write that fails, rather than being refused for good, is
// made again with the same arguments, whether or not it had been applied.
type Source interface {
	// Consume gives jobs to the worker until stop is called, which returns at once. Jobs
	// that were delivered stay with the worker. A claim that is under way may still
	// be delivered: the runner hands it back.
	Consume(w job.Worker) (stop func())
	// Append stores output and returns when it is on disk. Refused with
	// [job.LeaseLost], and with [job.TooLarge] past the bound of a job's output.
	Append(ctx context.Context, l job.Lease, entries []job.Entry, p *job.Progress) error
	// Finish ends the attempt and returns when that is on disk. Refused with
	// [job.LeaseLost].
	Finish(ctx context.Context, l job.Lease, o job.Outcome) (job.State, error)
	// FinishAsync is Finish without the wait: then is called once, with the error, by whatever
	// goroutine. It does not block.
	FinishAsync(l job.Lease, o job.Outcome, then func(error))
	// Renew extends leases by their jobs' [job.Timeouts.Lease]; the answer has an
	// error, or nil, for each. It returns when ctx has ended. Several calls may be out,
	// but never two for the same lease.
	Renew(ctx context.Context, leases []job.Lease) []error
}

// Config is what a runner is made of.
type Config struct {
	Source   Source
	Queue    string
	Executor exec.Executor
	Slots    int          // jobs at once
	Name     string       // of the worker, for people
	Log      *slog.Logger // nil for none
	// RenewEvery is how often a lease is renewed; 0 for 10 s. One that is shorter than
	// three times this is renewed three times in its length.
	RenewEvery time.Duration
	// IgnoreLeaseExpiry says that the source takes no lease while it cannot store renewals, and
	// nobody else takes any. Then work is stopped only when the source says that its lease
	// is lost. Otherwise work is stopped before a lease ends that could not be renewed, for
	// another worker may have the job after that.
	IgnoreLeaseExpiry bool
	// Grace is how long running work may go on when the runner is to stop; 0 for 25 s.
	Grace time.Duration
	// Files is the absolute path of a file that came with a job; nil where jobs have none.
	Files func(job.ID, job.File) string
	// OnAttempt is told of every attempt; nil for nobody.
	OnAttempt AttemptHook
}

// Runner does the jobs of one queue. Make it with [New] and call Run once.
type Runner struct {
	// set once, by New and at the start of Run
	cfg    Config
	values context.Context // what attempts' contexts are made from; never ends
	base   context.Context // of every write; ends when a shutdown gives up
	giveUp context.CancelFunc
	sooner chan struct{} // tells keepLeases of a lease that is due before it wakes; never closed
	quiet  chan struct{} // tells drain that nothing is active; never closed
	next   chan *attempt // work for goroutines at rest: see pool.go; never closed

	rested sync.WaitGroup // the goroutines that rest

	mu sync.Mutex // never held while an attempt's mu is taken; the reverse is fine
	// guarded by mu
	phase   phase
	held    map[job.Token]*attempt // the leases to be kept alive
	active  int                    // attempts that are not over, and goroutines at work on one that is
	resting int                    // goroutines that wait for the next one
	wake    time.Time              // when keepLeases wakes; zero for never
}

type phase uint8

const (
	serving  phase = iota
	stopping       // what is delivered now is handed back
	closed         // Run has returned
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
		cfg:    c,
		sooner: make(chan struct{}, 1),
		quiet:  make(chan struct{}, 1),
		next:   make(chan *attempt, mostResting),
		held:   make(map[job.Token]*attempt, c.Slots),
	}
}

// Run does jobs until ctx ends. Then it takes no more, gives those that run their
// grace, asks what is left to stop, hands it back, and returns when all that it
// started is gone. An error says that something is not: an executor that ignores
// its context, or a source that does not answer.
func (r *Runner) Run(ctx context.Context) error {
	r.values = context.WithoutCancel(ctx)
	r.base, r.giveUp = context.WithCancel(r.values)
	defer r.giveUp()

	keeping, stopKeeping := context.WithCancel(r.base)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		r.keepLeases(keeping)
	}()

	stopServing := r.cfg.Source.Consume(job.Worker{
		Name:    r.cfg.Name,
		Queue:   r.cfg.Queue,
		Slots:   r.cfg.Slots,
		Deliver: r.deliver,
		Order:   r.order,
	})
	<-ctx.Done()
	r.enterPhase(stopping)
	stopServing()
	err := r.drain()
	stopKeeping()
	<-kept
	r.rested.Wait()
	r.enterPhase(closed)
	return err
}

// deliver starts an attempt. The source calls it.
func (r *Runner) deliver(c job.Claimed) {
	a := &attempt{r: r, claimed: c, lease: leaseOf(&c, r.cfg.RenewEvery, time.Now())}
	a.lease.held = r.cfg.IgnoreLeaseExpiry
	a.clocks.limits = &a.claimed.Job.Policy.Timeouts
	r.mu.Lock()
	defer r.mu.Unlock()
	switch r.phase {
	case closed:
		r.cfg.Log.Warn("a job came after the end and waits for its lease to lapse", "job", c.Job.ID)
		return
	case stopping:
		a.why = exec.ErrStopping // it is handed back without having begun
	case serving:
	}
	r.holdLocked(a)
	r.active++
	r.startLocked(a)
}

// order passes an order on to the attempt it is for. The source calls it.
func (r *Runner) order(l job.Lease, o job.Order) {
	r.mu.Lock()
	a := r.held[l.Token]
	r.mu.Unlock()
	switch {
	case a == nil:
	case o == job.OrderCancel:
		a.cancelled()
	case o == job.OrderLost:
		a.lost()
	}
}

// enter counts one more at work on an attempt.
func (r *Runner) enter() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active++
}

// leave counts one less. An attempt that came to its end there is held no longer.
func (r *Runner) leave(ended *attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ended != nil {
		delete(r.held, ended.claimed.Token)
	}
	r.active--
	if r.active == 0 && r.phase != serving {
		notify(r.quiet)
	}
}

// drop forgets a lease that was lost.
func (r *Runner) drop(a *attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, a.claimed.Token)
}

// attempts are those whose leases are held.
func (r *Runner) attempts() []*attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*attempt, 0, len(r.held))
	for _, a := range r.held {
		all = append(all, a)
	}
	return all
}

// notify wakes whoever reads the channel, now or later; its buffer is one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
