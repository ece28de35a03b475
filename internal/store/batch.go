package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// What the errors of Apply, and of the sync that follows it, may wrap.
var (
	// ErrNotCommitted says that nothing of the batch was applied, for certain.
	ErrNotCommitted = errors.New("store: not committed")
	// ErrUnknown says of a sync that nobody knows whether the batch is stored; see
	// [Store.Apply] for what is to be done then.
	ErrUnknown = errors.New("store: whether the batch is stored is not known")
	// ErrData says that nothing was applied because the store cannot take some op's
	// data. Whoever gets it commits the halves of the batch, until the culprit
	// stands alone.
	ErrData = errors.New("store: bad data in the batch")
	// ErrFull says that nothing was applied because the disk is full.
	ErrFull = errors.New("store: the disk is full")
	// ErrDamaged says that what is on the disk is not what was written there. It will
	// not get better: the same is said of every batch from then on.
	ErrDamaged = errors.New("store: the data is damaged")
)

// BatchID names a batch; random, so that no two processes make the same.
type BatchID [16]byte

// NewBatch makes an empty batch with an id of its own.
func NewBatch() *Batch {
	b := &Batch{}
	_, _ = rand.Read(b.ID[:]) // never fails: crypto/rand ends the program instead
	return b
}

// Batch is what one commit applies. Its fields stand in the order in which they
// are applied: what frees a slot comes before what takes one, and claims come
// last, so that a claim sees all that its own batch made ready.
//
// In every op the fields above "out" are the caller's, and the store only reads
// them; those below are set by Apply, are final when the sync has returned nil, and are
// left alone by the caller until then. Err is nil when the op applied; else a
// *[job.Error].
type Batch struct {
	// ID names the batch, and is made before its first commit. A store remembers the
	// last ones that it applied, in the same transaction, [MaxUnsynced] of each process:
	// that is how the outcome of a failed commit is found out. One that changed nothing
	// need not outlive the process.
	ID BatchID
	// Limits are what the queues' jobs are held to, by queue; a queue that is not here
	// has none. The store only reads them.
	//
	// However many processes share the store, two limits are exact: what runs of a queue,
	// and what runs of a key. What waits of a key is exact in one process; among several
	// it may be overshot by at most one batch of each. So may what a process itself
	// admits by counts: how many jobs of a queue wait, and their bytes. Turns are exact in
	// one process; among several no key is overtaken by more than what each process
	// claims within a second.
	Limits map[string]job.Limits

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

	// Counts are the counts, after the batch, of every queue that the batch changed, or
	// that one of its pauses, submits, claims or finishes names: a claim that got less
	// than it asked for, and a submit that was refused, tell what is true now. A finish
	// names the queue of its job while that runs, whoever holds the lease.
	Counts map[string]job.Counts
	// Moved are the jobs whose state was changed by an op that does not answer them, in
	// the order of the changes: those that a due made ready, that were parked, or that
	// followed when their key had room.
	Moved []Moved
	// Removed are the removed jobs that had files, which are to be deleted once the
	// batch is on disk.
	Removed []job.ID
	// FollowUps are the jobs that ends in the batch made; see [AtEnd].
	FollowUps []job.Job
	// Damaged are jobs whose record was found damaged on the disk. What could be read
	// of it is kept; those that had not ended were ended as failed, with the code
	// [DamagedJob]. They are for the log.
	Damaged []job.ID
}

// Moved is a job that an op has moved without naming it.
type Moved struct {
	ID       job.ID
	State    job.State
	Revision int64
}

// DamagedJob is the failure's code of a job whose record was damaged on the disk.
const DamagedJob = "damaged_job"

// Add puts an op, a pointer to one of the types below, into its place.
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

// Pause stops a queue from giving jobs to workers, or lets it go on. What runs is
// not touched, and submits are taken. It is remembered for as long as the store.
type Pause struct {
	Queue  string
	Paused bool

	// out
	Err error
}

// Renew extends a lease: it lasts from the commit for as long as it was claimed for, or
// for For. A lease that is past its
// time but was not taken is renewed like any other: only a sweep ends a lease.
// Refusals: job.LeaseLost.
type Renew struct {
	Lease    job.Lease
	LeaseFor time.Duration // 0 for as long as it was claimed for

	// out
	Err error
	// CancelRequested tells the worker that the job is to stop.
	CancelRequested bool
}

// Presence notes, by the store's clock, that someone was seen at jobs: their
// [job.Timeouts.Abandon] begins anew. An owner who was seen counts for all of their
// unfinished jobs. Jobs that do not exist, have ended or have no such timeout are passed over.
type Presence struct {
	Jobs   []job.ID
	Owners []job.Owner

	// out
	Err error
}

// Append adds entries to a running job's output. The entries' numbers follow the
// job's cursor, and each other, without a gap; an append whose numbers are all
// taken already answers as applied if this lease wrote them, so that a lost answer
// is harmless. It does not renew the lease. Refusals: job.LeaseLost; job.Conflict
// when the numbers do not follow.
type Append struct {
	Lease   job.Lease
	Entries []job.Entry // at least one; Seq and Attempt are set by the caller
	// Progress, when not nil, becomes the job's progress.
	Progress *job.Progress

	// out
	Err             error
	CancelRequested bool
}

// Finish ends an attempt. The job ends (Succeeded, Failed, Cancelled), or goes
// back to wait: Scheduled after Delay, or Queued at once. Another To is
// job.Invalid.
//
// Whatever To says, a job whose cancel was requested ends as Cancelled, and a
// result is then not kept. Refusals: job.LeaseLost, when the lease is not the
// job's, or has ended, or the job is not of the selection If any more.
type Finish struct {
	Lease    job.Lease
	To       job.State
	Entries  []job.Entry // the last chunk of output: as in Append
	Progress *job.Progress
	Result   *job.Result  // for Succeeded
	Failure  *job.Failure // for Failed, and for going back after a failure
	Usage    []byte       // JSON, or nil
	Delay    time.Duration
	// Unused says that the lease was never used: the job goes back as if it had not been
	// claimed, with the attempt taken off and no word of how it ended.
	Unused bool
	// Refund takes the attempt off the job's count again, when it goes back.
	Refund bool
	// SkipAtEnd ends the job without what follows from an end; see [AtEnd]. It is for an end
	// that the store could not take with that.
	SkipAtEnd bool
	// Lost counts the attempt as lost; without it the end clears the job. See [job.Finish].
	Lost bool
	// OnlyIf is the selection by which a sweep found the job, for a finish by a sweep. The
	// finish applies only while the job is of it: a renewal, or a piece of output, that was
	// accepted since the sweep looked keeps the job. The zero value is no condition.
	OnlyIf RunningFilter

	// out
	Err   error
	State job.State // where the job went
	Job   *job.Job  // as the finish left it; not to be changed, by the store neither
}

// Cancel asks for a job's end. A waiting job ends now, as Cancelled. A running one
// remembers the request and goes on until its worker, or a sweep, ends it. An
// ended one is left as it is. Refusals: job.NotFound; job.Conflict, see Abandoned.
type Cancel struct {
	Owner job.Owner
	ID    job.ID
	// IfAbandoned makes the cancel apply only while the job is one that
	// [UpkeepReader.Abandonable] lists; otherwise it is refused with job.Conflict. A presence
	// that was stored since the list was read keeps the job.
	IfAbandoned bool

	// out
	Err   error
	Job   job.Job // as the cancel left it
	Ended bool    // this cancel ended it
}

// Delete removes an ended or waiting job with all it left: input, output, result.
// A running one is marked, is gone to every read from then on, gets a cancel
// request, and is removed when its attempt ends. A waiting job that is deleted
// counts as cancelled. Deleting again what its owner deleted within the last day
// applies; what does not exist, or is not the owner's, is job.NotFound.
type Delete struct {
	Owner job.Owner
	ID    job.ID

	// out
	Err     error
	Running bool // it was running: whoever runs it is to be told
}

// Retry makes a failed, cancelled or expired job queued again, with its attempts
// and losses counted from zero, its failure and finish cleared, and its output kept. What its
// end left in side rows is made anew; see [AtEnd].
// Refusals: job.NotFound, job.NotRetryable.
type Retry struct {
	Owner job.Owner
	ID    job.ID

	// out
	Err error
	Job job.Job
}

// Write stores side rows that belong to no job's submit or end: all or none.
// Refusals: as of its rows.
type Write struct {
	Rows []Row

	// out
	Err      error
	Conflict []byte
}

// Submit stores a new job. The caller sets ID, Owner, Queue, Key, Priority,
// MaxAttempts, Metadata, Policy, Files, InputBytes, Trace, Refs and Tally of the job; the
// store sets its state and times, and makes its policy whole: see [job.Policy.Whole].
//
// Refusals: job.IdempotencyMismatch; job.NotFound, when the idempotency key is kept
// longer than its job; job.KeyFull; those of its rows (job.Conflict, job.NotFound);
// job.BatchRefused. A known idempotency key is answered whatever the limits.
type Submit struct {
	Job   job.Job
	Input []byte
	Delay time.Duration // before it is ready; 0 for at once
	// Token, when not zero, stores the job already leased for LeaseFor to Worker, as
	// its first attempt: one write less than a submit and a claim. Not with Delay.
	// Where the limits or a pause forbid that, it waits like any other; Job tells. Made
	// again while the token holds the same job, the submit answers that job.
	Token    job.Token
	LeaseFor time.Duration
	Worker   string
	Process  job.Process // of the worker
	InUse    bool        // as in Claim
	// Idempotency, when not nil, makes the submit apply once: a second one by the same
	// owner with the same key answers the first one's job.
	Idempotency *Idempotency
	Rows        []Row
	// Group, when not nil, is shared by submits that stand in a row in the batch and
	// apply all or none: when one is refused, so are the others, with job.BatchRefused.
	Group *Group

	// out: Job is completed with state and times.
	Err error
	// Existing is set when the idempotency key was known: the job that it made.
	Existing *job.Job
	// Conflict is the body of the row that an [Insert] or [RequireNone] met; Err is then
	// job.Conflict.
	Conflict []byte
}

// Group ties submits together. Whether all may apply is found out before any does,
// with the conditions of their rows checked as if they were one op's; what the group
// itself adds counts for [Limits.KeyWaiting]. If it is not whole, nothing of it applies.
type Group struct{ Size int } // how many they are

// Idempotency is a submitter's promise that two requests are one.
type Idempotency struct {
	Key  string
	Hash [32]byte      // of what was asked; another hash with the same key is refused
	Keep time.Duration // the key is kept at least this long, and as long as its job
}

// Due moves what the clock has made due: scheduled jobs whose time has come become
// queued (or parked), waiting jobs past their queue time end as Expired, and parked
// jobs whose key has room become queued: limits may have changed. Up to Limit of
// each. While no suspect runs, any batch queues the next parked suspect.
type Due struct {
	Limit     int
	Failure   *job.Failure // of the expired ones
	SkipAtEnd bool         // of the expired ones: as in Finish

	// out
	Err     error
	Ready   int // became queued or parked, or were unparked
	Expired []job.Job
	// More says that a limit was reached.
	More bool
}

// Prune deletes ended jobs past their ExpiresAt with all they left, and idempotency
// keys past theirs. It looks at no more than Limit jobs, about the oldest first,
// from after a cursor, and stops once it has deleted about Bytes, or For has passed,
// but not before it has looked at some. Refusals: job.Invalid, when After is no cursor.
type Prune struct {
	After    string // an opaque cursor, as a prune before answered it; "" begins with the oldest
	Limit    int
	MaxBytes int64         // of input, output and result, with Early also of files; 0 for no bound
	MaxTime  time.Duration // how long it may hold up the batch; 0 for no bound
	// Early deletes ended jobs before their time: the store holds more than it may.
	Early bool

	// out
	Err     error
	Deleted int
	// Next is where the following prune continues; "" when this one saw the newest. It
	// passes no job that is submitted later, and is good as long as the store.
	Next string
	// More says that more keys, or memories of deletes, are past their time.
	More bool
	// LookedUntil is when the last job that this one looked at was submitted.
	LookedUntil time.Time
}

// Claim leases the next ready jobs of a queue: as many as there are tokens, as are
// ready, or as the queue's limit allows; none while it is paused. Each claimed job's
// Attempt counts the new attempt. Of the store's suspects (see [job.Job.Suspect]) one
// runs at a time: the others are passed over and parked until it ends.
//
// A token that holds a job already answers its lease again, whatever else the claim
// says: so a claim whose answer was lost can be made again.
//
// Tenants with ready jobs take turns. Within a tenant its keys take turns, and a job's
// priority is a head start before the tenant's other jobs.
type Claim struct {
	Queue    string
	Tenant   *string // only jobs of this tenant; nil for any
	Worker   string
	Tokens   []job.Token
	LeaseFor time.Duration // 0 for what each job's own policy says
	Process  job.Process   // of the worker
	// InUse makes the leases count as used from the start: the worker is in the claimer's
	// own process and cannot miss the answer.
	InUse bool

	// out
	Err     error
	Claimed []job.Claimed
}
