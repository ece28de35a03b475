package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// The errors that Apply, and the sync that follows it, may wrap.
var (
	// ErrNotCommitted means that this call certainly applied nothing of the batch.
	ErrNotCommitted = errors.New("store: not committed")
	// ErrUnknown is returned by a sync when it is unknown whether the batch is stored.
	// [Store.Apply] describes what the caller does then.
	ErrUnknown = errors.New("store: whether the batch is stored is not known")
	// ErrOutdated comes with one of the errors above when the store works: a batch was computed
	// before another process changed what it depends on. The caller applies it again, as always.
	ErrOutdated = errors.New("store: another process came first")
	// ErrData means that nothing was applied because the store cannot take the data of some
	// op. The caller commits the two halves of the batch, and so on, until the bad op is
	// alone in its batch. A store takes any bytes in bodies, and all plain text in names: valid
	// UTF-8 without NUL bytes, as long as the API allows. Other names it may refuse.
	ErrData = errors.New("store: bad data in the batch")
	// ErrFull means that nothing was applied because the disk is full.
	ErrFull = errors.New("store: the disk is full")
	// ErrDamaged means that the data on the disk is not what was written there. The state is
	// permanent: every later batch fails with the same error.
	ErrDamaged = errors.New("store: the data is damaged")
)

// BatchID names a batch; random, so that no two processes make the same.
type BatchID [16]byte

// NewBatch makes an empty batch with an id of its own.
func NewBatch() *Batch {
	b := &Batch{}
	_, _ = rand.Read(b.ID[:]) // never fails: crypto/rand crashes the program instead
	return b
}

// Batch is the set of ops that one commit applies. Its fields are in the order in which they
// are applied: ops that free a slot come before ops that need one, and claims come last, so
// that a claim sees every job that its own batch made ready.
//
// In every op the fields above "out" belong to the caller, and the store only reads them.
// Apply sets the fields below "out"; they are final when the sync has returned nil, and the
// caller does not change them until then. Err is nil when the op applied, otherwise a
// *[job.Error]. The comment of each op lists the codes under "Refusals".
type Batch struct {
	// ID names the batch. The caller sets it before the first commit and never changes it.
	// In the same transaction as the batch a store remembers the ids of the last
	// [MaxUnsynced] batches of each process. It uses them to find out whether a commit
	// whose answer was lost was stored. The id of a batch that changed nothing need not
	// survive the process.
	ID BatchID
	// Limits are the limits of queues, by name; a queue that is missing here has none. The
	// store only reads them.
	//
	// With any number of processes two limits are exact: the running jobs of a queue, and
	// the running jobs of a key. The limit on waiting jobs of a key is exact in one process;
	// among several, each may overshoot it by at most one batch. The same holds for what a
	// process admits by counts itself: the waiting jobs of a queue and their bytes. Turns
	// are exact in one process. Among several, no key is overtaken by more jobs than each
	// process claims within a second.
	Limits map[string]job.Limits
	// Room is how many more jobs of each resource the claims of the batch may lease, all claims
	// together. A resource that is missing here has no limit. A claim leaves jobs without room
	// where they are, with their turns, and takes the jobs behind them. The store only reads it.
	Room map[string]int

	// MaxKept bounds the bytes that one owner keeps: of its side rows, and of the records of
	// deleted jobs, each with a fixed overhead. 0 is no bound. Past it a Write that only adds
	// rows, and a Submit with rows or an idempotency key, are refused with job.OwnerFull. A
	// delete applies and is not remembered. Rows of [AtEnd] and writes that remove rows always
	// apply. The bound is exact in one process.
	MaxKept int64

	Pauses    []*Pause
	Renews    []*Renew
	Presences []*Presence
	Appends   []*Append
	Finishes  []*Finish
	Cancels   []*Cancel
	Deletes   []*Delete
	Retries   []*Retry
	Writes    []*Write
	Submits   []*Submit
	Dues      []*Due
	Prunes    []*Prune
	Claims    []*Claim

	// out

	// Counts has the counts of queues after the batch: of every queue that the batch changed,
	// and of every queue that one of its pauses, submits, claims or finishes names, even if
	// that op was refused or got less than it asked for. A finish names the queue of its job
	// while the job runs, also when its lease is not the current one.
	Counts map[string]job.Counts
	// Moved lists the jobs whose state an op changed although its answer does not contain
	// them, in the order of the changes: jobs that a due made ready, jobs that were parked,
	// and parked jobs that were queued when their key had a free place.
	Moved []Moved
	// Removed lists the removed jobs that had files. The caller deletes the files once the
	// batch is on disk.
	Removed []job.ID
	// FollowUps are the jobs that ends in the batch made; see [AtEnd].
	FollowUps []job.Job
	// Damaged lists jobs whose record on the disk was found damaged. The store keeps what it
	// could read, and ends an unfinished one as failed, with the failure code [DamagedJob].
	// The caller logs them.
	Damaged []job.ID
}

// Moved is a job whose state changed without an op that names it.
type Moved struct {
	ID       job.ID
	State    job.State
	Revision int64
}

// DamagedJob is the failure code of a job whose record on the disk was damaged.
const DamagedJob = "damaged_job"

// Add appends an op, a pointer to one of the types below, to the slice of its kind.
func (b *Batch) Add(op any) {
	switch op := op.(type) {
	case *Pause:
		b.Pauses = append(b.Pauses, op)
	case *Renew:
		b.Renews = append(b.Renews, op)
	case *Presence:
		b.Presences = append(b.Presences, op)
	case *Append:
		b.Appends = append(b.Appends, op)
	case *Finish:
		b.Finishes = append(b.Finishes, op)
	case *Cancel:
		b.Cancels = append(b.Cancels, op)
	case *Delete:
		b.Deletes = append(b.Deletes, op)
	case *Retry:
		b.Retries = append(b.Retries, op)
	case *Write:
		b.Writes = append(b.Writes, op)
	case *Submit:
		b.Submits = append(b.Submits, op)
	case *Due:
		b.Dues = append(b.Dues, op)
	case *Prune:
		b.Prunes = append(b.Prunes, op)
	case *Claim:
		b.Claims = append(b.Claims, op)
	default:
		panic(fmt.Sprintf("store: %T is no op", op))
	}
}

// Len is the number of ops in the batch.
func (b *Batch) Len() int {
	return len(b.Pauses) + len(b.Renews) + len(b.Presences) + len(b.Appends) + len(b.Finishes) + len(b.Cancels) + len(b.Deletes) +
		len(b.Retries) + len(b.Writes) + len(b.Submits) + len(b.Dues) + len(b.Prunes) + len(b.Claims)
}

// Pause sets or clears the pause of a queue. A paused queue leases no job. Its running jobs
// go on, and it accepts submits. A pause lasts until it is cleared, across restarts.
type Pause struct {
	Queue  string
	Paused bool

	// out
	Err error
}

// Renew extends a lease to its length, counted from the commit. A lease that has run out but
// was not swept is renewed like any other: only a sweep ends a lease.
// Refusals: job.LeaseLost.
type Renew struct {
	Lease    job.Lease
	LeaseFor time.Duration // 0 for the length that was claimed

	// out
	Err error
	// CancelRequested is true when the worker must stop the job.
	CancelRequested bool
}

// Presence records, by the store's clock, that a client is interested in jobs: their
// [job.Timeouts.Abandon] starts again. The presence of an owner counts for all of the
// owner's unfinished jobs. Jobs that do not exist, have ended, or have no such timeout are
// ignored.
type Presence struct {
	Jobs   []job.ID
	Owners []job.Owner

	// out
	Err error
}

// Append adds entries to a running job's output. The numbers of the entries continue the
// job's cursor without a gap. When entries with all of these numbers exist already, and this
// lease wrote them, the append answers as applied: so a worker may repeat an append whose
// answer was lost. An append does not renew the lease.
// Refusals: job.LeaseLost; job.Conflict when the numbers do not continue the cursor.
type Append struct {
	Lease   job.Lease
	Entries []job.Entry // at least one; the caller sets Seq and Attempt
	// Progress, when not nil, becomes the job's progress.
	Progress *job.Progress

	// out
	Err             error
	CancelRequested bool // as in Renew
}

// Finish ends an attempt. The job ends (Succeeded, Failed, Cancelled) or waits again:
// Scheduled after Delay, or Queued at once. Any other To is refused as job.Invalid.
//
// A job with a requested cancel ends as Cancelled, whatever To is, and its result is not
// kept.
// Refusals: job.Invalid; job.Conflict when the numbers of Entries do not continue the
// cursor; job.LeaseLost when the lease is not the job's current one, or the job no longer
// matches OnlyIf.
type Finish struct {
	Lease    job.Lease
	To       job.State
	Entries  []job.Entry // the last entries of the output, as in Append; may be empty
	Progress *job.Progress
	Result   *job.Result  // for Succeeded
	Failure  *job.Failure // for Failed, and for waiting again after a failure
	Usage    []byte       // JSON, or nil
	Delay    time.Duration
	// Unused means that the lease was never used: the job waits again as if it had not been
	// claimed. The attempt is not counted, and nothing records how it ended.
	Unused bool
	// Refund takes the attempt off the job's count when the job waits again.
	Refund bool
	// SkipAtEnd ends the job without calling [AtEnd]. The engine sets it when the store could
	// not take the end together with its follow-ups.
	SkipAtEnd bool
	// Lost counts the attempt as lost. An end without it clears the job's losses; see
	// [job.Finish].
	Lost bool
	// OnlyIf is the filter by which a sweep found the job. The finish applies only while the
	// job still matches it, so that a renewal or an output that was accepted since the
	// sweep's read keeps the job. The zero value is no condition.
	OnlyIf RunningFilter

	// out
	Err   error
	State job.State // the state after the finish
	Job   *job.Job  // after the finish; neither caller nor store may change it
}

// Cancel asks for the end of a job. A waiting job ends at once, as Cancelled. A running job
// keeps the request and runs until its worker or a sweep ends it. An ended job stays as it
// is. Refusals: job.NotFound; job.Conflict, see IfAbandoned.
type Cancel struct {
	Owner job.Owner
	ID    job.ID
	// IfAbandoned applies the cancel only while [UpkeepReader.Abandonable] would list the
	// job; otherwise it is refused with job.Conflict. So a presence that was stored after
	// the list was read keeps the job.
	IfAbandoned bool

	// out
	Err   error
	Job   job.Job // after the cancel
	Ended bool    // whether this cancel ended the job
}

// Delete removes an ended or waiting job with its input, output and result. A waiting job
// counts as cancelled. A running job gets a cancel request and is hidden from every read from
// then on; it is removed when its attempt ends. When its owner deletes a job again within
// [KeepDeletes], the op applies again. Refusals: job.NotFound when the job does not exist or belongs
// to another owner.
type Delete struct {
	Owner job.Owner
	ID    job.ID

	// out
	Err     error
	Running bool // the job was running: its worker must be ordered to stop
}

// Retry queues a failed, cancelled or expired job again. Attempts and losses count from zero,
// failure and finish time are cleared, and the output is kept. [AtEnd] runs again, so that it
// can undo the rows that the end left. Refusals: job.NotFound, job.NotRetryable.
type Retry struct {
	Owner job.Owner
	ID    job.ID

	// out
	Err error
	Job job.Job
}

// Write stores side rows that belong to no submit and no end: all of them or none.
// Refusals: those of its rows, see [Action]; job.OwnerFull, see [Batch.MaxKept].
type Write struct {
	Rows []Row

	// out
	Err      error
	Conflict []byte // as in Submit
}

// Submit stores a new job. The caller sets these fields of the job: ID, Owner, Queue, Key,
// Resource, Priority, MaxAttempts, Metadata, Policy, Files, InputBytes, Trace, Refs and Tally. The
// store sets its state and times, and rounds its policy; see [job.Policy.RoundUp].
//
// A submit with a known idempotency key is answered with the existing job, whatever the
// limits are.
// Refusals: job.IdempotencyMismatch; job.NotFound when the job of the idempotency key was
// removed and the key is still kept; job.KeyFull; those of its rows (job.Conflict,
// job.NotFound); job.OwnerFull, see [Batch.MaxKept]; job.BatchRefused.
type Submit struct {
	Job   job.Job
	Input []byte
	Delay time.Duration // before the job is ready; 0 for none
	// Token, when not zero, stores the job already leased to Worker for LeaseFor, as its
	// first attempt. That is one write less than a submit and a claim. It cannot be combined
	// with Delay. When a limit or a pause forbids the lease, the job waits like any other:
	// Job.State tells which. A submit that is repeated while its token holds the same job
	// answers that job.
	Token    job.Token
	LeaseFor time.Duration
	Worker   string
	Process  job.Process // the process that hands out the lease
	InUse    bool        // as in Claim
	// Idempotency, when not nil, makes the submit apply once: a second one by the same owner
	// with the same key answers the job of the first.
	Idempotency *Idempotency
	Rows        []Row
	// Group, when not nil, is shared by submits that follow each other in the batch and
	// apply all or none. When one is refused, the others are refused with job.BatchRefused.
	Group *Group

	// out: the store also completes Job with its state and times.
	Err error
	// Existing is the job of the idempotency key, when the key was known.
	Existing *job.Job
	// Conflict is the body of the existing row that an [Insert] or [RequireNone] found. Err
	// is then job.Conflict.
	Conflict []byte
}

// Group ties submits together. The store checks all of them before it applies any. The
// conditions of their rows are checked as if they belonged to one op, and the jobs of the
// group count against [job.Limits.KeyWaiting] of the jobs after them. An incomplete group
// (fewer submits in a row than Size) is refused whole.
type Group struct{ Size int } // the number of submits

// Idempotency makes two requests count as one.
type Idempotency struct {
	Key  string
	Hash [32]byte      // of the request; the same key with another hash is refused
	Keep time.Duration // the key is kept at least this long, and as long as its job
}

// Due applies what the clock has made due, up to Limit of each: scheduled jobs whose time has
// come become queued (or parked); waiting jobs past their queue timeout end as Expired; and
// parked jobs whose key has a free place become queued, because limits may have changed.
// While no suspect runs, any batch queues the next parked suspect, also one without a Due.
type Due struct {
	Limit     int
	Failure   *job.Failure // of the expired jobs
	SkipAtEnd bool         // for the expired jobs, as in Finish

	// out
	Err     error
	Ready   int // how many jobs became queued or parked
	Expired []job.Job
	More    bool // a limit was reached
}

// Prune deletes ended jobs past their ExpiresAt, with everything that belongs to them, and
// idempotency keys past their time. It reads at most Limit jobs, roughly oldest first, after
// a cursor. It stops once it has deleted about MaxBytes or MaxTime has passed, but always
// reads some jobs first. Refusals: job.Invalid when After is not a cursor.
type Prune struct {
	After    string // an opaque cursor: Next of an earlier prune; "" starts with the oldest
	Limit    int
	MaxBytes int64         // of input, output and result, with Early also of files; 0 for no bound
	MaxTime  time.Duration // how long the prune may delay its batch; 0 for no bound
	// Jobs are kept while a job that their last end made has not ended; see [AtEnd].

	// Early deletes ended jobs before their time, because the store holds too much.
	Early bool

	// out
	Err     error
	Deleted int
	// Next is the cursor for the next prune; "" when this one reached the newest job. A
	// cursor skips no job that is submitted later. It stays valid as long as the store.
	Next string
	// More is true when more idempotency keys, or records of deletes, are past their time.
	More bool
	// ReadUntil is the submit time of the last job that this prune read.
	ReadUntil time.Time
}

// Claim leases the next ready jobs of a queue: as many as there are tokens, ready jobs whose
// resource has room (see [Batch.Room]) and whose key may run another job, and free places under the
// queue's limit, none while the queue is paused. The Attempt of each claimed job includes the new
// attempt. A claim parks the jobs that it finds of keys at their limit. At most one suspect of the whole store runs at a
// time (see [job.Job.Suspect]): a claim skips the others and parks them until it ends.
//
// A token that already holds a job answers its lease again, whatever else the claim asks
// for. So a claim whose answer was lost can be repeated.
//
// Tenants with ready jobs take turns. Within a tenant its keys take turns, and a job's
// priority is a head start before other jobs of the tenant.
type Claim struct {
	Queue    string
	Tenant   *string // only jobs of this tenant; nil for any
	Worker   string
	Tokens   []job.Token
	LeaseFor time.Duration // 0 for the lease of each job's own policy
	Process  job.Process   // the process that hands out the leases
	// InUse counts the leases as used from the start. It is for a worker in the claiming
	// process, which cannot miss the answer.
	InUse bool

	// out
	Err     error
	Claimed []job.Claimed
}
