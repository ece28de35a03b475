// Package store is the contract between the engine and the database that keeps jobs:
// one writing method that takes a batch of operations, and read methods that do not wait
// for it. Package storetest is the same contract as tests. Where the two differ, the tests
// are right.
//
// A store decides nothing. It does not know why a job is retried or when. It checks that an
// operation may apply (the lease is current, the move is legal), applies all operations that
// may in one transaction, and reports the outcome of each. Package job computes how an
// operation changes a job; package fairqueue computes turns and limits.
//
// Several processes may share one store. Every promise here holds for all of them together,
// unless its comment says "in one process".
package store

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Store keeps jobs. One goroutine at a time calls Apply. Any number of goroutines may call
// the read methods, and the functions that Apply returned, at any time.
type Store interface {
	// Apply applies the batch in one transaction.
	//
	// When Apply returns, the caller may apply the next batch. When synced then returns nil,
	// this batch and all batches before it are on disk, and no crash undoes any of them. No
	// read of jobs or rows shows a change before it is on disk. The answers of the ops are
	// final only when synced has returned nil. Until then they are a forecast, and the
	// caller must not pass them on.
	//
	// Order: kinds of ops are applied in the order of the fields of [Batch], ops of one kind
	// in the order of their slice. An op that may not apply gets its own Err, changes
	// nothing, and does not affect other ops. When several ops of one kind name the same
	// job, the first applies; each later one is checked against the state that the earlier
	// ones left.
	//
	// Errors of Apply: an error that wraps [ErrNotCommitted] means that this call applied
	// nothing. Every other error means that the outcome is unknown. In both cases the caller
	// waits for the syncs of the batches before this one, and then applies the same batch
	// again (the very same value) before any other. If an earlier call had applied it after
	// all, the store applies nothing twice, and every op answers as it did the first time.
	// [ErrData] and [ErrFull] always come with [ErrNotCommitted], and only for a batch that no
	// earlier call has applied either: the caller may then split the batch or leave ops out.
	// [ErrDamaged] is permanent.
	//
	// Errors of synced: [ErrUnknown] means that the connection was lost before the answer
	// came, so it is unknown whether this batch and the batches applied after it are stored.
	// The syncs of those later batches fail with ErrUnknown too. The caller then applies all
	// of them again (the very same values, in the same order) before any other batch. Batches
	// that are stored are not applied twice and answer as before. The others may answer
	// differently, because another process may have written in between. Until then the store
	// refuses every other batch with [ErrNotCommitted].
	//
	// Where [ErrOutdated] comes with ErrUnknown or ErrNotCommitted, all of this holds too. Only
	// there is no trouble to wait for: the caller may apply the batches again at once.
	//
	// Any other error of synced means that the disk can no longer be trusted. The caller must
	// close the store. Only opening it again shows what is stored.
	//
	// At any time a caller has at most [MaxUnsynced] batches whose synced has not returned.
	Apply(ctx context.Context, b *Batch) (synced func() error, err error)

	JobReader
	UpkeepReader
	RowReader

	// Close waits for running reads and a running commit, and releases everything.
	Close() error
}

// Beginner is a store that other processes write to as well. Before the caller makes a batch that
// moves jobs, it may call Begin, which waits for the turn of this process: what the caller gets to
// write meanwhile joins the batch. Then it calls Apply at once, or cancel if there is no batch. Begin
// returns no error: what is wrong shows in Apply.
type Beginner interface {
	Begin(ctx context.Context) (cancel func())
}

// ClockTolerance is the largest difference between [UpkeepReader.Now] and the clock that a
// commit uses at the same moment.
const ClockTolerance = 100 * time.Millisecond

// MaxUnsynced is how many batches a caller may have applied whose synced has not returned
// yet. A batch whose Apply failed counts. The store remembers the ids of the last
// MaxUnsynced batches of each process that shares it. When it is opened again, it may have
// forgotten batches that changed nothing.
const MaxUnsynced = 8

// Commit applies a batch and returns when it is on disk. It applies the batch again when another
// process came first; see [ErrOutdated].
func Commit(ctx context.Context, s Store, b *Batch) error {
	for {
		synced, err := s.Apply(ctx, b)
		if err == nil {
			err = synced()
		}
		if !errors.Is(err, ErrOutdated) {
			return err
		}
		runtime.Gosched() // the batch that must come first may be another goroutine's
	}
}

// JobReader has the reads that an API needs. A job of another owner and a deleted job are
// [job.NotFound]. Each answer is a consistent snapshot of one moment.
//
// [job.WholeTenant] is an owner of all jobs of its tenant, except for Idempotent.
type JobReader interface {
	// Job reads one job.
	Job(ctx context.Context, owner job.Owner, id job.ID) (job.Job, error)
	// List reads the page that f asks for, newest first. A page may be shorter than its
	// limit, even empty, although more jobs follow: next is the cursor of the following
	// page, zero after the last one.
	//
	// A list takes a few milliseconds at most, because lists take turns, and it does not
	// delay the other reads. Filters by queue, key, status and error code, alone or
	// combined, use an index: their pages are full, however many other jobs there are. Three
	// filters have no index. A page ends after it has looked at about a thousand jobs that
	// do not pass them: metadata, the empty key, and a key together with an error code. A list of
	// a whole tenant uses no index but that of its ids: with any filter a page ends so.
	List(ctx context.Context, f job.Filter) (page []job.Job, next job.ID, err error)
	// Input reads a job's input.
	Input(ctx context.Context, owner job.Owner, id job.ID) ([]byte, error)
	// Result reads a part of a job's result: up to limit bytes after the first from bytes.
	// [job.NotFinished] unless the job succeeded. The result of a job never changes, so parts
	// of several reads fit together. A store does not read the bytes before and after the part
	// into memory.
	Result(ctx context.Context, owner job.Owner, id job.ID, from int64, limit int) (job.ResultPart, error)
	// Output reads a job and its output entries with numbers above after, in order and
	// without a gap. It stops after about maxBytes of data, but returns at least one entry
	// if one exists.
	Output(ctx context.Context, owner job.Owner, id job.ID, after int64, maxBytes int) (job.Job, []job.Entry, error)
	// Text reads a job and the text of its last attempt: the text entries, joined, up to
	// limit bytes, never cut inside a character.
	Text(ctx context.Context, owner job.Owner, id job.ID, limit int) (job.Job, string, error)
	// Position counts the jobs of the queue that will be claimed before this queued job, up
	// to limit. It is 0 for the next job, and for a job that is not queued.
	Position(ctx context.Context, owner job.Owner, id job.ID, limit int) (int, error)
	// Idempotent finds the job that an owner's idempotency key made, and the hash of the
	// request that made it. It returns [job.NotFound] when the key is free.
	Idempotent(ctx context.Context, owner job.Owner, key string) (job.ID, [32]byte, error)
}

// UpkeepReader has the reads that the engine needs for its own work, across all owners.
type UpkeepReader interface {
	// Counts reads the counts of every queue that ever had a job.
	Counts(ctx context.Context) (map[string]job.Counts, error)
	// Running lists running jobs that match the filter, with their leases: by id, ascending,
	// starting after the given id. The filter holds at the moment of the read only. A caller
	// that acts on an answer passes the lease along, so that the write is refused if the
	// lease has changed.
	Running(ctx context.Context, filter RunningFilter, after job.ID, limit int) ([]Running, error)
	// RunningOf lists the running jobs whose leases a process handed out. Order and cursor
	// are those of Running.
	RunningOf(ctx context.Context, p job.Process, after job.ID, limit int) ([]Running, error)
	// Leases reads the running job of each lease, in the order of the leases. Any process
	// may have handed out the lease. The answer for a lease that is not current is the zero
	// value.
	Leases(ctx context.Context, leases []job.Lease) ([]Running, error)
	// Versions reads the state and cursor of many jobs in one read, in any order. It leaves
	// out jobs that do not exist. A process uses it to notice what other processes changed
	// in jobs that it runs or that are watched in it.
	Versions(ctx context.Context, jobs []OwnedID) ([]JobVersion, error)
	// NextDue reads when the next scheduled job becomes ready and when the next waiting job
	// expires; a zero time means never. A parked suspect is ready now when no other suspect
	// runs.
	NextDue(ctx context.Context) (ready, expires time.Time, err error)
	// OldestQueued reads the time at which the queue's longest waiting job, queued or parked,
	// became ready; zero when no job waits. The time may be up to two seconds too early. The
	// cost of the read does not grow with the number of waiting jobs.
	OldestQueued(ctx context.Context, queue string) (time.Time, error)
	// WithFiles lists jobs that have files. The cursor is opaque: "" starts, and a next of
	// "" ends the list.
	WithFiles(ctx context.Context, after string, limit int) (ids []job.ID, next string, err error)
	// Abandonable lists unfinished jobs whose [job.Timeouts.Abandon] has passed by the
	// store's clock. The timeout starts at the submit, and starts again at each retry and
	// each [Presence] of the job or its owner. A job with a requested cancel is not listed.
	// The cursor is opaque: "" starts, and a next of "" ends the list.
	Abandonable(ctx context.Context, after string, limit int) (jobs []job.Job, next string, err error)
	// Size estimates the bytes that deleting all jobs and side rows would free: within a
	// tenth, plus a fixed amount for an empty store. It does not matter whether and when the
	// disk gets the space back. A commit that deletes lowers Size at once, by about the
	// bytes of what it deletes: the engine prunes until Size is small enough.
	Size(ctx context.Context) (int64, error)
	// Kept reads what owners keep besides their jobs; see [Batch.MaxKept].
	Kept(ctx context.Context) (Kept, error)
	// Now reads the store's clock, to within [ClockTolerance]. Only this clock decides
	// leases and due times. A shared store estimates it, so Now may go back by up to
	// ClockTolerance. It goes back by more only when the clock was set back by seconds.
	Now() time.Time
}

// Kept is what owners keep besides their jobs: side rows, and records of deleted jobs.
type Kept struct {
	Bytes     int64     // of all owners
	Most      job.Owner // the owner that keeps most
	MostBytes int64     // of that owner
}

// RowReader has the reads of side rows; see [Row].
type RowReader interface {
	// Row reads one row, or returns [job.NotFound].
	Row(ctx context.Context, of RowSet, id string) (Row, error)
	// Tally reads the counts of an owner's jobs with this [job.Job.Tally]. They count as a
	// queue's counts do: a job stays counted in the state in which it ended. A commit that
	// removes the last job of a tally removes the tally. The counts of an unknown tally are
	// zero.
	Tally(ctx context.Context, owner job.Owner, name string) (job.Counts, error)
	// Rows lists the rows of a set by id.
	Rows(ctx context.Context, of RowSet, page RowPage) ([]Row, error)
	// TenantRows lists up to limit rows of all owners of a tenant, of any kind and in any order,
	// without their bodies. It returns fewer than limit only if there are no more.
	TenantRows(ctx context.Context, tenant string, limit int) ([]Row, error)
}

// RunningFilter selects running jobs.
type RunningFilter uint8

// The filters of [UpkeepReader.Running].
const (
	AllRunning  RunningFilter = iota
	LapsedOnly                // the lease has run out
	CancelOnly                // a cancel was requested, longer ago than the job's cancel grace
	OverrunOnly               // the attempt has run longer than [job.Timeouts.RunHard]
	SilentOnly                // the attempt was without output for too long; see [job.Timeouts.Silent] and [job.Job.AttemptTimeouts]
)

// OwnedID names a job of an owner.
type OwnedID struct {
	Owner job.Owner
	ID    job.ID
}

// JobVersion is the part of a job that tells whether anything in it has changed.
type JobVersion struct {
	ID       job.ID
	Revision int64 // see [job.Job.Revision]
	State    job.State
	Attempt  int
	Cursor   int64     // the number of the last output entry
	Token    job.Token // of the current lease; zero unless the job runs
	// CancelRequested is true for a running job that is to stop. Deleted is true for a
	// running job that was deleted: every other read no longer finds it.
	CancelRequested, Deleted bool
}

// Running is a running job with its lease.
type Running struct {
	Job     job.Job
	Token   job.Token
	Worker  string
	Process job.Process // the process that handed out the lease
	// LeaseFor is the length of the lease as it was claimed. A renewal extends it by as much.
	LeaseFor time.Duration
	// AttemptStartedAt is the start of the attempt. LastOutputAt is when its last entry that
	// resets the idle clock was stored ([job.Kind.ResetsIdleClock]); zero before the first.
	// After it was opened, or after a failed commit, a store may answer later times than the
	// true ones, never earlier ones.
	AttemptStartedAt, LastOutputAt time.Time
	// LeaseUsed is true when the lease was renewed, when anything was written under it, or
	// when it was claimed with InUse.
	LeaseUsed bool
	// EarlierOutputBytes is how many bytes of output the attempts before this one wrote.
	EarlierOutputBytes int64
	// HasOutput is true when an entry of kind text or json was appended under this lease.
	HasOutput bool
}

// RowPage is a page of side rows.
type RowPage struct {
	After string // the cursor: rows beyond this id; "" starts at the first
	Desc  bool   // descending by id; otherwise ascending
	Limit int
}
