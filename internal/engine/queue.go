package engine

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Queue is where jobs of one kind wait, and how they are done. It is set once, at
// boot.
type Queue struct {
	Name        string
	Executor    string // the kind, for people
	Concurrency int    // jobs running at once in this process
	MaxRunning  int    // jobs running at once over all processes; 0 for no limit
	MaxDepth    int    // waiting jobs (see [fairqueue.Load]); one more is refused with [job.QueueFull]; 0 for no limit
	MaxBytes    int64  // of the waiting jobs' input and files; 0 for no limit
	KeyRunning  int    // jobs of one key running at once, the others are parked; 0 for no limit
	KeyWaiting  int    // waiting jobs of one key; one more is refused with [job.KeyFull]; 0 for no limit
	MaxAttempts int
	Policy      job.Policy
	Keep        time.Duration // ended jobs are kept this long
	KeepFailed  time.Duration // failed ones this long
	Files       bool          // jobs may come with files: its executor knows what to do with them
	// Check refuses inputs that no attempt could work on. Nil takes everything.
	Check func(input []byte) error
}

// QueueView is a queue as it is shown.
type QueueView struct {
	Queue
	Counts job.Counts
	// OldestQueued is for how long the job has been ready that has waited longest,
	// queued or parked.
	OldestQueued time.Duration
	// HeldBackBy is why the next queued job is not given to a worker, or would not be if
	// none is queued; "" when nothing holds it back. See [Snapshot].
	HeldBackBy job.HeldBackBy
	// Wait and Run are what a job submitted now would wait and run, learned from what
	// really happened; zero before the first job ended. Nobody knows the wait in a
	// paused queue.
	Wait, Run time.Duration
}

// queue is a queue and who serves it here.
type queue struct {
	Queue
	process job.Process // of this engine

	mu sync.Mutex
	// Guarded by mu.
	counts         job.Counts  // a hint: of the last commit that named the queue, or read since
	commits        int         // how many commits gave counts
	queuedShrank   bool        // by it fewer are queued than were known before
	claimFellShort bool        // a claim got less than it asked for although more are queued; no news of the queue came since
	readySubmits   int         // submits on their way that are ready at once and assigned to no worker
	delayedSubmits int         // submits on their way that become ready later
	pendingBytes   int64       // bytes of submits on their way
	claiming       int         // slots for which jobs are being claimed
	consumers      []*consumer // in turn: the first that has a free slot gets the next job
	estimator      estimator
}

// Queue finds a queue by name; [job.UnknownQueue], with the names that exist.
func (e *Engine) Queue(name string) (Queue, error) {
	q := e.queues[name]
	if q == nil {
		return Queue{}, job.Errorf(job.UnknownQueue, "there is no queue %s; the queues are: %s", job.Quote(name), strings.Join(e.names, ", "))
	}
	return q.Queue, nil
}

// Queues returns every queue, by name.
func (e *Engine) Queues(ctx context.Context) ([]QueueView, error) {
	views := make([]QueueView, 0, len(e.names))
	for _, name := range e.names {
		v, err := e.queueView(ctx, name)
		if err != nil {
			return nil, err
		}
		views = append(views, v)
	}
	return views, nil
}

func (e *Engine) queueView(ctx context.Context, name string) (QueueView, error) {
	v := e.queues[name].view()
	if v.Counts.Queued+v.Counts.Parked == 0 {
		return v, nil
	}
	since, err := e.store.OldestQueued(ctx, name)
	if !since.IsZero() {
		v.OldestQueued = max(e.store.Now().Sub(since), 0)
	}
	return v, err
}

func (q *queue) view() QueueView {
	q.mu.Lock()
	defer q.mu.Unlock()
	v := QueueView{Queue: q.Queue, Counts: q.counts}
	v.HeldBackBy = q.holdReasonLocked(0)
	v.Wait, v.Run = q.estimateNewLocked(time.Now())
	return v
}

// SetPaused stops a queue from giving jobs to workers, or lets it go on, and returns
// when that is on disk: a restart does not forget it. What runs goes on, and
// submits are taken as before. [job.UnknownQueue] when there is no such queue.
func (e *Engine) SetPaused(ctx context.Context, queue string, paused bool) (QueueView, error) {
	if _, err := e.Queue(queue); err != nil {
		return QueueView{}, err
	}
	op := &store.Pause{Queue: queue, Paused: paused}
	if err := e.doUrgent(ctx, op); err != nil {
		return QueueView{}, err
	}
	if op.Err != nil {
		return QueueView{}, op.Err
	}
	e.log.Info("a queue was paused or resumed", "queue", queue, "paused", paused)
	view, err := e.queueView(ctx, queue)
	if err != nil {
		// The pause is on disk, so its answer is a success without the oldest job's age.
		return e.queues[queue].view(), nil
	}
	return view, nil
}

// setCounts takes the counts that a commit answered.
func (q *queue) setCounts(c job.Counts) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queuedShrank, q.claimFellShort = c.Queued < q.counts.Queued, false
	q.counts = c
	q.commits++
}

func (q *queue) queued() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.counts.Queued
}

// usableLocked is how many slots would take a queued job at once.
func (q *queue) availableSlotsLocked() int {
	if q.blockedLocked(0) {
		return 0
	}
	free := q.claiming
	for _, c := range q.consumers {
		free += c.free
	}
	if q.MaxRunning > 0 {
		free = min(free, q.MaxRunning-int(q.counts.Running))
	}
	return free
}

// heldLocked says that the queue gives no jobs to workers for now: it is paused, or
// has as many running as it may, even when so many of them are about to end.
func (q *queue) blockedLocked(ending int) bool {
	return q.counts.Paused || q.MaxRunning > 0 && q.counts.Running-int64(ending) >= int64(q.MaxRunning)
}

// hold says what holds a job back, without a read: by what is known of its queue, which
// another process may have changed up to about a second ago.
func (q *queue) holdReason(s *Snapshot) job.HeldBackBy {
	if h := s.HeldBackReason(); h != "" || s.State != job.Queued {
		return h
	}
	if q == nil {
		return job.HeldBackByNoWorker // the queue is not configured here
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.holdReasonLocked(s.Position)
}

// holdLocked says what holds back a queued job with so many before it.
func (q *queue) holdReasonLocked(before int) job.HeldBackBy {
	counts, free := &q.counts, q.claiming
	for _, c := range q.consumers {
		free += max(c.free, 0)
	}
	switch {
	case counts.Paused:
		return job.HeldBackByPause
	case q.blockedLocked(0):
		return job.HeldBackByMaxRunning
	case len(q.consumers) == 0 && counts.Running == 0:
		return job.HeldBackByNoWorker
	case before >= free:
		return job.HeldBackByTurn
	}
	return ""
}
