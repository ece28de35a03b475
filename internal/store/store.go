// Package store is the contract between the engine and whatever keeps jobs on
// disk: one writing method that takes a batch of operations, and readers that go
// around it. Package storetest is the same contract as tests, and where the two
// differ, the tests are right.
//
// A store holds no rules. It does not know why a job is retried or when; it checks
// that an operation may apply (the lease is held, the move is legal), applies all
// that may in one transaction, and says of each what became of it.
package store

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Store keeps jobs. Apply is called by one goroutine at a time; the readers, and
// what Apply returns, by any number, at any time.
type Store interface {
	// Apply applies the batch in one transaction. When it returns, the next batch may
	// be applied; when synced then returns nil, the batch and all before it are on
	// disk, and no crash takes any of them back. Reads of jobs and rows see nothing sooner.
	// Only then are the answers of the ops final. Until then they are what the answers
	// will be if nothing goes wrong: good for a guess, and for nobody to be told.
	//
	// Kinds are applied in the order of the fields of [Batch], ops of a kind in
	// theirs. An op that may not apply gets its own Err, changes nothing and harms no
	// neighbour. Of ops of one kind that name the same job the first applies; the
	// others are judged against what it left.
	//
	// An error of Apply says that the outcome is unknown, unless it wraps
	// [ErrNotCommitted] (nothing was applied by this call). The caller waits for the syncs
	// of the batches before it and then applies the same batch again, the very same value,
	// before any other. If it had been applied after all, nothing is applied twice, and
	// every op answers as it did the first time. [ErrData] and [ErrFull] are said only of
	// a batch that no earlier call has applied either.
	//
	// Synced may fail with [ErrUnknown]: a connection was lost before the answer came,
	// and nobody knows whether this batch, and those that were applied behind it, are
	// stored. The syncs of those fail in the same way. The caller then applies all of
	// them again, the very same values, in their order, before any other. Those that are
	// stored are not applied twice and answer as they did; the others may answer
	// otherwise, for another process may have been between. A store refuses any other
	// batch meanwhile with [ErrNotCommitted].
	//
	// Of no more than [MaxUnsynced] batches a caller has not heard from synced.
	//
	// Another error of synced, or [ErrDamaged], says that the disk cannot be trusted any
	// more: what is on it is known only to who opens the store anew.
	Apply(ctx context.Context, b *Batch) (synced func() error, err error)

	JobReader
	UpkeepReader
	RowReader

	// Close waits for readers and a commit under way, and releases everything.
	Close() error
}

// ClockTolerance is how far [UpkeepReader.Now] may be from the clock by which a commit decides
// at that moment.
const ClockTolerance = 100 * time.Millisecond

// MaxUnsynced is how many batches a caller may have applied of which synced has not
// returned yet, a batch whose Apply failed among them. A store remembers that many for
// each process that shares it, those that changed nothing left out when it is opened anew.
const MaxUnsynced = 8

// Commit applies a batch and returns when it is on disk.
func Commit(ctx context.Context, s Store, b *Batch) error {
	synced, err := s.Apply(ctx, b)
	if err != nil {
		return err
	}
	return synced()
}

// JobReader are the reads a face needs. A job of another owner is [job.NotFound], as is
// one that was deleted. Every answer is of one moment.
type JobReader interface {
	Job(ctx context.Context, owner job.Owner, id job.ID) (job.Job, error)
	// List returns the page that f asks for, newest first. A page may be shorter
	// than its limit although more follow: next is the cursor of the page after it,
	// or zero when this is the last.
	List(ctx context.Context, f job.Filter) (page []job.Job, next job.ID, err error)
	Input(ctx context.Context, owner job.Owner, id job.ID) ([]byte, error)
	// Result is [job.NotFinished] unless the job succeeded.
	Result(ctx context.Context, owner job.Owner, id job.ID) (job.Result, error)
	// Output returns the job and the entries after the given number, in order and
	// without a gap, up to about maxBytes of data but at least one if there is one.
	Output(ctx context.Context, owner job.Owner, id job.ID, after int64, maxBytes int) (job.Job, []job.Entry, error)
	// Text returns the job and what its last attempt has said: its text entries,
	// joined, up to limit bytes, never cut inside a character.
	Text(ctx context.Context, owner job.Owner, id job.ID, limit int) (job.Job, string, error)
	// Position is how many jobs of the queue will be claimed before this queued job,
	// counted up to most. It is 0 for the next one, and for jobs that are not queued.
	Position(ctx context.Context, owner job.Owner, id job.ID, most int) (int, error)
	// Idempotent finds the job that an idempotency key of this owner made, and the
	// hash of the request that made it. [job.NotFound] when the key is free.
	Idempotent(ctx context.Context, owner job.Owner, key string) (job.ID, [32]byte, error)
}

// UpkeepReader are the reads of the engine's own duties, across all owners.
type UpkeepReader interface {
	// Counts returns the kept counts of every queue that ever had a job.
	Counts(ctx context.Context) (map[string]job.Counts, error)
	// Running lists jobs that are leased, by id, after the given one, with their
	// leases. The conditions of the asked-for kind hold at the moment of the read
	// only: whoever acts on it carries the lease, and is refused if it changed hands.
	Running(ctx context.Context, which RunningFilter, after job.ID, limit int) ([]Running, error)
	// RunningOf lists the running jobs whose leases are of a process, as Running does.
	RunningOf(ctx context.Context, p job.Process, after job.ID, limit int) ([]Running, error)
	// Leases answers, for each lease in order, the running job that it holds, whichever
	// process it was handed out by; the zero value for one that holds nothing.
	Leases(ctx context.Context, leases []job.Lease) ([]Running, error)
	// Versions tells where jobs stand, all in one read and in any order. A job that does
	// not exist is left out. It is what a process asks about the jobs that it runs, or that
	// are watched in it, and that another may have changed.
	Versions(ctx context.Context, jobs []OwnedID) ([]JobVersion, error)
	// NextDue is when the first scheduled job becomes ready and when the first
	// waiting job expires; zero times when there is none. A suspect that is parked while
	// no other runs is ready now.
	NextDue(ctx context.Context) (ready, expires time.Time, err error)
	// OldestQueued is since when the job of a queue has been ready that has waited
	// longest, queued or parked; zero when there is none. It may be up to two seconds
	// too early, and it costs the same however many jobs wait.
	OldestQueued(ctx context.Context, queue string) (time.Time, error)
	// WithFiles lists jobs that have files, of all owners. The cursor is opaque: "" begins
	// and ends.
	WithFiles(ctx context.Context, after string, limit int) (ids []job.ID, next string, err error)
	// Abandonable lists unfinished jobs, of all owners, at which nobody was seen for
	// their [job.Timeouts.Abandon] by the store's clock: since the submit, the last retry,
	// or the last [Presence] of the job or its owner, whichever came last. A job whose cancel
	// was requested is not listed. The cursor is opaque: "" begins and ends.
	Abandonable(ctx context.Context, after string, limit int) (jobs []job.Job, next string, err error)
	// Size is how many bytes the jobs and the side rows hold: what deleting all of them
	// would free, give or take a tenth and a fixed amount for an empty store. Whether and
	// when the disk gets the room back does not count. It falls in the commit that deletes,
	// by about what that deletes: whoever prunes until it is small enough relies on that.
	Size(ctx context.Context) (int64, error)
	// Now is the store's clock, which alone decides leases and due times, to within
	// [ClockTolerance]: a store that is shared knows its clock by estimate. It may go back
	// by as much, and not by more.
	Now() time.Time
}

// RowReader are the reads of side rows; see [Row].
type RowReader interface {
	Row(ctx context.Context, of RowSet, id string) (Row, error) // job.NotFound when there is none
	// Tally counts the jobs of an owner's tally as those of a queue are counted:
	// what ever ended stays counted. A tally of which a commit leaves no job is removed.
	// Zero counts when there is no such tally.
	Tally(ctx context.Context, owner job.Owner, name string) (job.Counts, error)
	// Rows lists the rows of a set by id: ascending, from after the cursor; or
	// descending, from before it. "" begins at that end.
	Rows(ctx context.Context, of RowSet, page RowPage) ([]Row, error)
}

// RunningFilter selects running jobs.
type RunningFilter uint8

// The selections of [UpkeepReader.Running].
const (
	AllRunning  RunningFilter = iota
	LapsedOnly                // the lease is past its time
	CancelOnly                // a cancel was requested, longer ago than the job's grace
	OverrunOnly               // the attempt has run for longer than [job.Timeouts.RunHard]
	SilentOnly                // the attempt has been silent for longer than it may; see [job.Timeouts.Silent]
)

// OwnedID names a job of an owner.
type OwnedID struct {
	Owner job.Owner
	ID    job.ID
}

// JobVersion is where a job stands: enough to know whether anything has changed.
type JobVersion struct {
	ID       job.ID
	Revision int64 // see [job.Job.Revision]
	State    job.State
	Attempt  int
	Cursor   int64
	Token    job.Token // of the lease that holds it; zero unless it runs
	// CancelRequested says that it runs and is to stop. Deleted says that it runs, and is
	// gone to every other read.
	CancelRequested, Deleted bool
}

// Running is a running job as a sweep sees it.
type Running struct {
	Job     job.Job
	Token   job.Token
	Worker  string
	Process job.Process
	// LeaseFor is how long the lease was claimed for: a renewal extends it by as much.
	LeaseFor time.Duration
	// AttemptStartedAt is when the attempt began, and Heard when its last entry that breaks the
	// silence was stored; zero before that. A store that was opened since, or whose commit
	// failed, may answer later times than the true ones, but never earlier ones.
	AttemptStartedAt, LastOutputAt time.Time
	// LeaseUsed says that the lease was ever used: renewed, or written under.
	LeaseUsed bool
	// EarlierOutputBytes is how many bytes the attempts before this one have said.
	EarlierOutputBytes int64
	// HasOutput says that an entry of kind text or json was appended under this lease.
	HasOutput bool
}

// RowPage is a page of side rows.
type RowPage struct {
	After string // the cursor: the id to begin beyond
	Desc  bool
	Limit int
}
