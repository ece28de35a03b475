package ops

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Tx is the transaction of a batch: what a store can read and write. Every read sees the writes of
// the batch before it. An error ends the batch, and the store takes everything back. One goroutine
// uses a Tx.
//
// A nil job, body or record means that there is none. Times are in whole microseconds.
type Tx interface {
	// Now is the store's clock. It stands still during the batch.
	Now() time.Time

	JobTx
	LeaseTx
	OutputTx
	LineTx
	RetentionTx
	KeyTx
	RowTx
	PresenceTx
	SumTx
}

// JobTx reads and writes jobs by id.
type JobTx interface {
	// Find reads a job of an owner in any state, also a deleted one that still runs.
	Find(owner job.Owner, id job.ID) (*Job, error)
	// Insert stores a new job with its input in its first state, and sets N. A job that is running
	// has a lease; one that is queued or parked has a turn.
	Insert(j *Job, input []byte) error
	// Input reads a job's input.
	Input(j *Job) ([]byte, error)
	// SaveEnd writes the end of a job that was in the state from, and the result unless it is nil
	// or empty. The lease of a running job is over.
	SaveEnd(j *Job, from job.State, result *job.Result) error
	// SaveRetry writes an ended job that is queued or parked again; from is the state in which it
	// had ended.
	SaveRetry(j *Job, from job.State) error
	// Repair replaces the record of a damaged job. A job whose state was not ended before has
	// failed, and its lease is over. The store must find the job by N. It also forgets the
	// presence of the job.
	Repair(j *Job, from job.State) error
	// Remove deletes an ended job, or a running one whose attempt has ended, with its input,
	// output, result and list of files. Of the job only the fields of [RetentionTx.Prunable] are
	// set.
	Remove(j *Job) error
}

// LeaseTx reads and writes running jobs. Find, Running and Holder return the same pointer for the
// same running job until its lease is over.
type LeaseTx interface {
	// Running reads a running job of any owner.
	Running(id job.ID) (*Job, error)
	// Holder reads the running job of a token.
	Holder(token job.Token) (*Job, error)
	// Damaged lists running jobs that the store knows to be damaged. A batch ends them before its
	// first op.
	Damaged() ([]*Job, error)
	// SaveLease writes a queued job that now runs, with its new lease. From now on its progress and
	// its queue deadline are cleared on the disk too.
	SaveLease(j *Job) error
	// SaveRenewal writes Lease.Until and Lease.Used.
	SaveRenewal(j *Job) error
	// SaveCancelRequest writes CancelRequestedAt, Revision and Deleted.
	SaveCancelRequest(j *Job) error
	// SaveRequeue writes a job that is scheduled or queued again after its attempt. Its lease is
	// over. A scheduled job has no turn and is due at RunAt.
	SaveRequeue(j *Job) error
}

// OutputTx reads and writes the output of running jobs. For each entry that it stores a Tx calls
// [Job.AddOutput], so that the job's cursor is right at each moment for the Tx. The op has set the
// job's progress and the use of the lease before.
type OutputTx interface {
	// Append appends entries to a job's output. reported is true if the progress has changed too.
	Append(j *Job, entries []job.Entry, reported bool) error
	// AppendLast appends the last entries of an attempt, perhaps none: SaveEnd or SaveRequeue
	// follows, which writes the progress.
	AppendLast(j *Job, entries []job.Entry) error
	// Text joins the text of a job's last attempt, up to limit bytes, with all entries that were
	// appended before. Of a damaged output it returns the readable part.
	Text(j *Job, limit int) (string, error)
	// Entries reads a job's output from its beginning, up to about limit bytes, in the same way.
	Entries(j *Job, limit int) ([]job.Entry, error)
}

// LineTx reads waiting jobs in their order, and moves them. Lanes are those of [LaneOf].
type LineTx interface {
	// Ready reads the first queued jobs of a lane by turn, and among equal turns by N. Resource is
	// that of the lane, also for a damaged job.
	Ready(queue, lane string, limit int) ([]*Job, error)
	// Parked reads the first parked jobs of a lane in the same order. It sets what a move to queued
	// needs: N, ID, Owner, Queue, Key, Resource, Tally, Priority, State, Revision and Turn. The other
	// fields may be zero. Resource is that of the lane, also for a damaged job.
	Parked(queue, lane string, limit int) ([]*Job, error)
	// FirstSuspect reads the job with the earliest RunAt, and then the lowest N, in all lanes of
	// parked suspects of the queue; see [SuspectLane]. It sets RunAt and the fields of Parked but Turn.
	FirstSuspect(queue string) (*Job, error)
	// Due reads the scheduled jobs with the earliest RunAt of those whose RunAt has come.
	Due(limit int) ([]*Job, error)
	// Expired reads the waiting jobs with the earliest queue deadline of those whose deadline has
	// come; see [job.Job.QueueDeadline].
	Expired(limit int) ([]*Job, error)
	// SaveReady writes a waiting job that is queued or parked: State, Revision, Turn and its lane.
	// It is no longer due at RunAt. The other fields may be zero; see Parked.
	SaveReady(j *Job, lane string) error
}

// RetentionTx reads what may be deleted.
type RetentionTx interface {
	// Prunable reads the first jobs with an N above after, by N. It may leave out unfinished jobs,
	// and returns fewer than limit jobs only if there are no more. Of a job these fields are set: N,
	// ID, Owner, State, IdempotencyKey, Tally, FileCount, InputBytes, OutputBytes, CreatedAt,
	// ExpiresAt and HasRefs.
	Prunable(after int64, limit int) ([]*Job, error)
	// BodyBytes is the size of a job's input and result.
	BodyBytes(j *Job) (int64, error)
}

// OwnedKey is an idempotency key of an owner.
type OwnedKey struct {
	Owner job.Owner
	Key   string
}

// KeyUse is the use of an idempotency key.
type KeyUse struct {
	Job   job.ID
	Hash  [32]byte
	Until time.Time // the key is kept at least until then
}

// KeyTx reads and writes idempotency keys, and what is remembered of removed jobs.
type KeyTx interface {
	// KeyUse reads the use of a key.
	KeyUse(k OwnedKey) (*KeyUse, error)
	// InsertKey writes a key that is free.
	InsertKey(k OwnedKey, use KeyUse) error
	DeleteKey(k OwnedKey) error
	// InsertLeftover records that a key has lost its job and is kept until a time. A key may have
	// several such records.
	InsertLeftover(k OwnedKey, until time.Time) error
	// TakeLeftovers reads and deletes the oldest records of InsertLeftover whose time has passed.
	TakeLeftovers(limit int) ([]OwnedKey, error)
	// SaveDelete records that an owner deleted a job, until a time. It replaces an earlier record.
	SaveDelete(of store.OwnedID, until time.Time) error
	// DeletedBy reads the owner who deleted a job; known is false if there is no record.
	DeletedBy(id job.ID) (by job.Owner, known bool, err error)
	// TakeDeletes reads and deletes the oldest records of SaveDelete whose time has passed.
	TakeDeletes(limit int) ([]store.OwnedID, error)
}

// RowTx reads and writes side rows; see [store.Row]. The body of a row that exists is not nil.
type RowTx interface {
	RowBody(of store.RowSet, id string) ([]byte, error)
	// FirstRowBody reads the body of the row with the lowest id in a set.
	FirstRowBody(of store.RowSet) ([]byte, error)
	// RowLength is the length of a row's body; known is false if there is no such row.
	RowLength(of store.RowSet, id string) (bytes int64, known bool, err error)
	// RowLengths is the number of rows in a set, and the length of all their bodies.
	RowLengths(of store.RowSet) (rows, bytes int64, err error)
	PutRow(of store.RowSet, id string, body []byte) error
	DeleteRow(of store.RowSet, id string) error
	DeleteRows(of store.RowSet) error
}

// PresenceTx keeps the abandon timeouts of unfinished jobs.
type PresenceTx interface {
	// StartAbandon starts the timeout of a job, or starts it again: it ends after the time that the
	// job's policy says.
	StartAbandon(j *Job) error
	// StopAbandon deletes the timeout of a job, if it has one.
	StopAbandon(id job.ID) error
	// RenewJob and RenewOwner start again the timeouts of a job, and of all jobs of an owner.
	RenewJob(id job.ID) error
	RenewOwner(o job.Owner) error
	// Abandoned reports whether a job has a timeout that has ended.
	Abandoned(id job.ID) (bool, error)
}

// Tally names the counts of a group of one owner's jobs.
type Tally struct {
	Owner job.Owner
	Name  string
}

// TallyChange is the change of a tally by a batch.
type TallyChange struct {
	job.Counts       // added to those of the tally
	Rows       int64 // jobs stored in the tally, ended ones included
	Removed    bool  // jobs were removed: a tally whose rows are 0 is deleted
}

// SumTx reads sums as they were before the batch. The ops keep the changes of the batch and add
// them at its end, once for each sum.
type SumTx interface {
	// TallyCounts reads the counts of a tally; zero for an unknown one.
	TallyCounts(of Tally) (job.Counts, error)
	// AddToTally adds to a tally, which may not exist yet.
	AddToTally(of Tally, c *TallyChange) error
	// KeptBytes reads the bytes that an owner keeps; see [store.Batch.MaxKept].
	KeptBytes(o job.Owner) (int64, error)
	// AddToKept adds to the bytes that an owner keeps. An owner that keeps none may be deleted.
	AddToKept(o job.Owner, bytes int64) error
}
