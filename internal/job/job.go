package job

import (
	"encoding/json"
	"time"
)

// Owner is the owner of a job. Every row has an owner and every read asks for it: for any
// other owner the job does not exist.
type Owner struct {
	Tenant string // one per application; "" is the tenant default
	User   string // "local" for a caller that names no user
}

// anyUser stands for every user of a tenant. No user has this name, because it is not printable.
const anyUser = "\x01"

// WholeTenant stands for all owners of a tenant where jobs are read or listed. No job belongs to
// it, and no op takes it.
func WholeTenant(tenant string) Owner { return Owner{tenant, anyUser} }

// IsWholeTenant reports whether the owner stands for all owners of its tenant.
func (o Owner) IsWholeTenant() bool { return o.User == anyUser }

// Job is one unit of slow work. Its input, output and result may be large, so stores keep
// them apart from it.
type Job struct {
	ID    ID
	Owner Owner
	Queue string
	// Key takes turns within the owner's tenant: tenants take turns, and so do the keys of
	// a tenant. Two tenants with the same key share nothing. "" is a key like any other.
	Key string
	// Resource names what an attempt needs besides a slot of its queue, such as a model; "" for
	// nothing. A claim takes no job whose resource has no room; see store.Batch.Room.
	Resource string
	Priority int // 1 is first, 9 is last; see [DefaultPriority]
	State    State
	// Revision counts the changes of the state and the cancel request since the submit,
	// over all retries. Each change raises it by one and nothing lowers it: of two reads of
	// a job, the one with the higher revision is the later. Output does not raise it; its
	// entries have numbers of their own.
	Revision int64

	// Attempt counts the started attempts. An attempt that was released (an orderly stop,
	// or a wait that the upstream asked for) is subtracted again.
	Attempt     int
	MaxAttempts int // the limit of failed attempts; lost ones do not count
	// Losses counts the attempts whose worker was lost. Cleared is the number of losses that
	// came before an attempt that ended in another way. A retry sets both to zero.
	Losses, Cleared int

	// Cursor is the number of the last output entry, 0 before the first.
	Cursor      int64
	OutputBytes int64    // the data of all entries, over all attempts
	Progress    Progress // of the current attempt

	// Failure is the failure of the last failed attempt. It stays until the job succeeds.
	Failure *Failure
	Usage   json.RawMessage // token counts, as the executor reports them; nil when unknown

	Metadata map[string]string
	Policy   Policy
	// Files came with the job. Package files keeps their content, under the job's id.
	Files []File
	// InputBytes is the job's share of its queue's byte limit: input and files.
	InputBytes int64
	// Trace is the caller's trace context, a traceparent of W3C Trace Context; "" for none.
	Trace string
	// Refs are references for the packages that add rows at the job's end, one per package
	// and opaque to all others. Most jobs have none.
	Refs []string
	// Tally names a group of jobs of one owner, with counts like those of a queue; "" for none.
	Tally string

	// CreatedAt is when the job was stored, by the store's clock. The time in its ID may be
	// much earlier: the id is made before the job's files are received.
	CreatedAt time.Time
	// RunAt is when a scheduled job becomes ready. For other jobs it is when they last
	// became ready.
	RunAt time.Time
	// StartedAt is the start of the first attempt; zero before it. A retry clears it.
	StartedAt  time.Time
	FinishedAt time.Time // zero until the job ends
	// CancelRequestedAt is set once, by the first cancel of the running job. From then on
	// the job can only end as cancelled.
	CancelRequestedAt time.Time
	// ExpiresAt is when an ended job, with everything that belongs to it, may be deleted;
	// zero until the job ends.
	ExpiresAt time.Time
}
