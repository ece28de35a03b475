package engine

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Queue has the settings of a queue: where jobs of one kind wait, and how they run. They do not
// change while the server runs.
type Queue struct {
	Name        string
	Executor    string // the kind of executor, for display
	Concurrency int    // jobs running at once in this process
	MaxRunning  int    // jobs running at once over all processes; 0 for no limit
	MaxDepth    int    // waiting jobs, see [fairqueue.Load]; else [job.QueueFull]; 0 for no limit
	MaxBytes    int64  // bytes of input and files of the waiting jobs; 0 for no limit
	KeyRunning  int    // jobs of one key running at once, further ones are parked; 0 for no limit
	KeyWaiting  int    // waiting jobs of one key; else [job.KeyFull]; 0 for no limit
	MaxAttempts int
	MaxInput    int          // bytes of a job's input, files not counted; 0 for no limit
	Ceilings    job.Ceilings // what a submit may ask for
	Policy      job.Policy
	Keep        time.Duration // retention of jobs that did not fail
	KeepFailed  time.Duration // retention of failed jobs
	Files       bool          // jobs may have files
	// Internal is true for a queue whose jobs follow from ends of other jobs. It takes no
	// submits, and it is not shown before its first job.
	Internal bool
	// Callback is the receiver of the ends of jobs that name none; nil for none.
	Callback *job.Callback
	// Check refuses jobs that no attempt could process; nil accepts every job.
	Check func(metadata map[string]string, input []byte) error
	// CheckFiles refuses inputs that do not fit the files of their job; nil accepts all.
	CheckFiles func(input []byte, files []job.File) error
	// Defaults returns the MaxAttempts and the Policy of jobs with this metadata; ok is false
	// for those above. nil if all jobs have those above.
	Defaults func(metadata map[string]string) (maxAttempts int, policy job.Policy, ok bool)
	// Resource returns what an attempt with this input needs besides a slot, see
	// [job.Job.Resource]; nil if no job of the queue needs a resource.
	Resource func(input []byte) string
}

// DefaultsFor returns the MaxAttempts and the Policy of a job that sets none.
func (q *Queue) DefaultsFor(metadata map[string]string) (maxAttempts int, policy job.Policy) {
	if q.Defaults != nil {
		if maxAttempts, policy, ok := q.Defaults(metadata); ok {
			return maxAttempts, policy
		}
	}
	return q.MaxAttempts, q.Policy
}

// QueueView is the view of a queue that the APIs show.
type QueueView struct {
	Queue // with the limits that hold; see [QueueLimits]
	// Unconfigured is true for a queue of stored jobs that is not configured here. Of its
	// settings only the name is set.
	Unconfigured bool
	Counts       job.Counts
	// OldestQueued is how long the oldest ready job has waited, queued or parked; 0 if no job
	// is ready.
	OldestQueued time.Duration
	// HeldBackBy is the reason why the next queued job does not start, or why a new job would
	// not start if none is queued; "" if it would. See [Snapshot].
	HeldBackBy job.HeldBackBy
	// Wait and Run estimate how long a job submitted now would wait and then run, from the
	// durations of earlier jobs; 0 before the first job has ended. Wait is 0 in a paused queue.
	Wait, Run time.Duration
}

// queue is a queue with its counts and its consumers in this process.
type queue struct {
	Queue
	process   job.Process // of this engine
	resources *resources  // of this engine

	mu sync.Mutex
	// Guarded by mu.
	limits         QueueLimits // that hold: those of Queue, or smaller ones of another process
	counts         job.Counts  // a hint from the last commit that named the queue, or from a later read
	commits        int         // number of commits that set counts
	queuedShrank   bool        // the last one lowered the number of queued jobs
	claimFellShort bool        // no claims until new counts come; see releaseUnclaimed
	readySubmits   int         // pending submits that are ready and have no consumer
	delayedSubmits int         // pending submits that become ready later
	pendingBytes   int64       // bytes of pending submits
	claiming       int         // slots for which claims are pending
	consumers      []*consumer // in turn; the first one with a free slot gets the next job
	estimator      estimator
}

// Queue returns the settings of a queue, or [job.UnknownQueue] with the names that exist.
func (e *Engine) Queue(name string) (Queue, error) {
	q := e.queues[name]
	if q == nil {
		return Queue{}, job.Errorf(job.UnknownQueue, "there is no queue %s; the queues are: %s", job.Quote(name), strings.Join(e.submitNames(), ", "))
	}
	return q.Queue, nil
}

// submitNames returns the names of the queues that take submits, sorted.
func (e *Engine) submitNames() []string {
	return slices.DeleteFunc(slices.Clone(e.names), func(name string) bool { return e.queues[name].Internal })
}

// Queues returns all queues, sorted by name: those that are configured, and others that have
// unfinished jobs.
func (e *Engine) Queues(ctx context.Context) ([]QueueView, error) {
	counts, err := e.store.Counts(ctx)
	if err != nil {
		return nil, err
	}
	views := make([]QueueView, 0, len(e.names))
	for name, c := range counts {
		if e.queues[name] != nil || c.Unfinished() == 0 {
			continue
		}
		v := QueueView{Queue: Queue{Name: name}, Unconfigured: true, Counts: c, HeldBackBy: job.HeldBackByNoWorker}
		if v.OldestQueued, err = e.oldestQueued(ctx, name); err != nil {
			return nil, err
		}
		views = append(views, v)
	}
	for _, name := range e.names {
		if _, known := counts[name]; !known && e.queues[name].Internal {
			continue
		}
		v, err := e.queueView(ctx, name)
		if err != nil {
			return nil, err
		}
		views = append(views, v)
	}
	slices.SortFunc(views, func(a, b QueueView) int { return strings.Compare(a.Name, b.Name) })
	return views, nil
}

// queueView returns the view of a queue with the age of its oldest job.
func (e *Engine) queueView(ctx context.Context, name string) (QueueView, error) {
	v := e.queues[name].view()
	if v.Counts.Queued+v.Counts.Parked == 0 {
		return v, nil
	}
	var err error
	v.OldestQueued, err = e.oldestQueued(ctx, name)
	return v, err
}

// oldestQueued returns how long the oldest ready job of a queue has waited.
func (e *Engine) oldestQueued(ctx context.Context, name string) (time.Duration, error) {
	since, err := e.store.OldestQueued(ctx, name)
	if since.IsZero() {
		return 0, err
	}
	return max(e.store.Now().Sub(since), 0), err
}

// view returns the view of a queue without a read.
func (q *queue) view() QueueView {
	q.mu.Lock()
	defer q.mu.Unlock()
	v := QueueView{Queue: q.Queue, Counts: q.counts}
	v.setLimits(q.limits)
	v.HeldBackBy = q.heldBackByLocked(0, "")
	if v.HeldBackBy == "" && q.claimFellShort && q.resources.anyFull() {
		v.HeldBackBy = job.HeldBackByResource // the free slots are for none of the queued jobs
	}
	v.Wait, v.Run = q.estimateNewLocked(time.Now())
	return v
}

// SetPaused pauses or resumes a queue and returns when that is on disk, so that a restart keeps
// it. A paused queue starts no jobs. Its running jobs go on, and it accepts submits. For an
// unknown name it returns [job.UnknownQueue].
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
		// The pause is on disk, so the answer is a success, without the age of the oldest job.
		return e.queues[queue].view(), nil
	}
	return view, nil
}

// setCounts sets the counts that a commit returned.
func (q *queue) setCounts(c job.Counts) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queuedShrank, q.claimFellShort = c.Queued < q.counts.Queued, false
	q.counts = c
	q.commits++
}

// hasMaxRunning reports whether the running jobs of all processes have a limit.
func (q *queue) hasMaxRunning() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.limits.Running > 0
}

// queuedCount returns how many jobs are queued, as far as this process knows.
func (q *queue) queuedCount() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.counts.Queued
}

// availableSlotsLocked returns the number of slots that could run a queued job at once.
func (q *queue) availableSlotsLocked() int {
	if q.blockedLocked(0) {
		return 0
	}
	free := q.claiming
	for _, c := range q.consumers {
		free += c.free
	}
	if q.limits.Running > 0 {
		free = min(free, q.limits.Running-int(q.counts.Running))
	}
	return free
}

// blockedLocked reports whether the queue can start no job now: it is paused, or max_running jobs
// are running. Jobs with a pending finish do not count as running.
func (q *queue) blockedLocked(ending int) bool {
	return q.counts.Paused || q.limits.Running > 0 && q.counts.Running-int64(ending) >= int64(q.limits.Running)
}

// heldBackBy returns the reason why a job does not start. It reads nothing: it uses the known
// counts, which may miss changes of the last second by other processes.
func (q *queue) heldBackBy(s *Snapshot) job.HeldBackBy {
	h := s.HeldBackReason()
	if h == job.HeldBackByKey && q != nil && !q.resources.hasRoom(s.Resource) {
		return job.HeldBackByResource // the jobs of its key before it may wait for the same
	}
	if h != "" || s.State != job.Queued {
		return h
	}
	if q == nil {
		return job.HeldBackByNoWorker // the queue is not configured here
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.heldBackByLocked(s.Position, s.Resource)
}

// heldBackByLocked returns the reason why a queued job does not start. before is the number of
// jobs ahead of it, resource the one that it needs.
func (q *queue) heldBackByLocked(before int, resource string) job.HeldBackBy {
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
	case !q.resources.hasRoom(resource):
		return job.HeldBackByResource
	case before >= free:
		return job.HeldBackByTurn
	}
	return ""
}
