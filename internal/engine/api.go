package engine

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Request asks for a job.
type Request struct {
	// ID is the job's id where the caller made one, to name the job in its own Rows;
	// zero for a new one.
	ID          job.ID
	Owner       job.Owner
	Queue       string
	Key         string
	Priority    int // 0 for the default
	Input       []byte
	Delay       time.Duration
	MaxAttempts int         // 0 for the queue's
	Policy      *job.Policy // nil for the queue's
	Metadata    map[string]string
	// IdempotencyKey makes the request apply once; "" for none. Hash is the hash of
	// all that was asked.
	IdempotencyKey string
	Hash           [32]byte
	// Rows are a face's own rows, stored with the job or not at all.
	Rows []store.Row
	Ref  string
}

// Snapshot is a job as it is shown: the job itself and what is known around it.
type Snapshot struct {
	job.Job
	Position int           // how many jobs of its queue will run before it; 0 unless queued
	Estimate time.Duration // until it has ended, from now; 0 when unknown or ended
	Text     string        // said so far in this attempt, at most job.MaxInline bytes
	Result   *job.Result   // of a succeeded job, when at most job.MaxInline bytes
}

// Update is what a watcher is told next: the job as it is now and the entries
// since the last update. The last update of an ended job has Job.State.Ended().
type Update struct {
	Job     job.Job
	Entries []job.Entry
}

// QueueView is a queue as it is shown.
type QueueView struct {
	Queue
	Counts store.Counts
	// OldestQueued is how long the longest-waiting queued job has waited.
	OldestQueued time.Duration
	// Wait and Run are what a job submitted now would wait and run, learned from what
	// really happened; zero before the first job ended.
	Wait, Run time.Duration
}

// ---- what faces call ----

// Queue finds a queue by name; [job.UnknownQueue], with the names that exist.
func (e *Engine) Queue(name string) (Queue, error) { panic("soon") }

// Submit stores a job and returns when it is on disk. existing says that the
// idempotency key was known: the snapshot is then of the job that it made.
// A [store.Insert] row that met another is a job.Conflict error whose cause is a
// *[RowConflict].
func (e *Engine) Submit(ctx context.Context, r Request) (snap Snapshot, existing bool, err error) {
	panic("soon")
}

// SubmitAndWait is Submit, held until the job has ended or ctx is over; then the
// snapshot is of that moment, without an error.
func (e *Engine) SubmitAndWait(ctx context.Context, r Request, wait time.Duration) (Snapshot, bool, error) {
	panic("soon")
}

// RowConflict is the row that a submit's [store.Insert] met.
type RowConflict struct{ Body []byte }

func (c *RowConflict) Error() string { return "the row is there already" }

// Get returns a job as it is now.
func (e *Engine) Get(ctx context.Context, owner job.Owner, id job.ID) (Snapshot, error) {
	panic("soon")
}

// Wait is Get, held until the job has ended or the wait is over.
func (e *Engine) Wait(ctx context.Context, owner job.Owner, id job.ID, wait time.Duration) (Snapshot, error) {
	panic("soon")
}

// List returns a page of the owner's jobs, newest first.
func (e *Engine) List(ctx context.Context, f store.Filter) (page []job.Job, next job.ID, err error) {
	panic("soon")
}

// Output returns the entries after a number, held until there is one, or the job
// has changed or ended, or the wait is over. A wait of 0 answers at once.
func (e *Engine) Output(ctx context.Context, owner job.Owner, id job.ID, after int64, wait time.Duration) (Update, error) {
	panic("soon")
}

// Result returns what a job came to: [job.NotFinished] before it has succeeded.
func (e *Engine) Result(ctx context.Context, owner job.Owner, id job.ID) (job.Result, error) {
	panic("soon")
}

// Cancel asks for a job's end; see [store.Cancel]. Cancelling an ended job
// answers it unchanged.
func (e *Engine) Cancel(ctx context.Context, owner job.Owner, id job.ID) (Snapshot, error) {
	panic("soon")
}

// Retry queues a failed, cancelled or expired job again.
func (e *Engine) Retry(ctx context.Context, owner job.Owner, id job.ID) (Snapshot, error) {
	panic("soon")
}

// Delete removes a job with all it left; a running one is cancelled first.
func (e *Engine) Delete(ctx context.Context, owner job.Owner, id job.ID) error { panic("soon") }

// Queues returns every queue, by name.
func (e *Engine) Queues(ctx context.Context) ([]QueueView, error) { panic("soon") }

// Write stores side rows that belong to no job. Conflicts are as in Submit.
func (e *Engine) Write(ctx context.Context, rows ...store.Row) error { panic("soon") }

// Watch follows a job from a cursor. Close it when done.
func (e *Engine) Watch(ctx context.Context, owner job.Owner, id job.ID, after int64) (*Watch, error) {
	panic("soon")
}

// Watch is one watcher of one job. It is used by one goroutine.
type Watch struct{}

// Next returns at once with the job and the entries after the cursor the first
// time; from then on when there is something new. After an update whose job has
// ended and whose entries reach the job's cursor, it returns io.EOF.
func (w *Watch) Next(ctx context.Context) (Update, error) { panic("soon") }

// Close lets go of the job.
func (w *Watch) Close() { panic("soon") }

// ---- what a runner calls: it satisfies runner.Source ----

// Worker is someone with free slots for a queue's jobs.
type Worker struct {
	Name  string
	Queue string
	Slots int
	// Deliver takes a leased job, for one slot. It must not block. The slot is free
	// again when the lease has been finished, or was lost.
	Deliver func(job.Claimed)
	// Order tells the worker what to do with a job it holds. It must not block.
	Order func(job.Lease, job.Order)
}

// Serve gives jobs to the worker until stop is called, which returns at once; jobs
// that were delivered stay with the worker.
func (e *Engine) Serve(w Worker) (stop func()) { panic("soon") }

// Append stores output of a leased job and returns when it is on disk. Refusals:
// [job.LeaseLost], and [job.TooLarge] past the bound of a job's output.
func (e *Engine) Append(ctx context.Context, l job.Lease, entries []job.Entry, p *job.Progress) error {
	panic("soon")
}

// Finish ends the attempt and returns when that is on disk, with the state that
// the job went to. Refusals: [job.LeaseLost].
func (e *Engine) Finish(ctx context.Context, l job.Lease, o job.Outcome) (job.State, error) {
	panic("soon")
}

// Renew extends leases; the answer has an error, or nil, for each.
func (e *Engine) Renew(ctx context.Context, leases []job.Lease) []error { panic("soon") }
