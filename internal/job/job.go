package job

import (
	"encoding/json"
	"time"
)

// Owner is whose a job is. Every row has one and every read asks for it: to anyone
// else the job does not exist.
type Owner struct {
	Tenant string // one per API key; "" until there are keys
	User   string // "local" for whoever speaks to a loopback server without saying who they are
}

// Job is one unit of slow work, without its input, output and result, which may be
// large and live beside it.
type Job struct {
	ID    ID
	Owner Owner
	Queue string
	// Key is whose turn it is within the owner's tenant: tenants take turns, and so do
	// the keys of a tenant. Two tenants that use the same name share nothing. "" is a
	// key like any other.
	Key      string
	Priority int // 1 first, 9 last, 5 when nobody said
	State    State
	// Revision counts the changes of the job's state and the cancel request, from its
	// submit on, over all its retries. Each raises it by one, and none takes it back: of
	// two looks at a job the one with the higher revision is the later one. What a job
	// says does not raise it; that has numbers of its own.
	Revision int64

	// Attempt counts the attempts that were started. An attempt that was handed back
	// (an orderly stop, or being told to wait) is taken off again.
	Attempt     int
	MaxAttempts int // bounds the attempts that fail, not those that are lost
	// Losses are the attempts whose worker was lost; Cleared are those of them that came
	// before an attempt that ended in another way. A retry that someone asked for begins
	// anew.
	Losses, Cleared int

	// Cursor is the number of the last output entry, 0 before the first.
	Cursor      int64
	OutputBytes int64    // of all entries' data, over all attempts
	Progress    Progress // of the current attempt

	// Failure is what the last failed attempt came to. A job that was tried again
	// keeps it until it succeeds.
	Failure *Failure
	Usage   json.RawMessage // what the work cost, as its executor tells it: token counts; nil when unknown

	Metadata map[string]string
	Policy   Policy
	// Files came with the job; their bytes lie beside the store, under the job's id.
	Files []File
	// InputBytes is what the job weighs in its queue's bound: input and files.
	InputBytes int64
	// Trace is the caller's trace context, a traceparent of W3C Trace Context; "" for none.
	Trace string
	// Refs are what the packages that want to know the job's end need to find their own
	// rows then, one for each; opaque to everyone else. Most jobs have none.
	Refs []string
	// Tally names a group of jobs of the same owner that is counted as a queue is; ""
	// for none.
	Tally string

	// CreatedAt is when the job was stored, by the store's clock. An ID may be from long
	// before: it is made before the job's files have come in.
	CreatedAt time.Time
	// RunAt is when a scheduled job becomes ready; for others, when it last did.
	RunAt time.Time
	// StartedAt is the start of the first attempt; zero before. A retry that someone
	// asked for begins anew.
	StartedAt  time.Time
	FinishedAt time.Time // zero until the job ends
	// CancelRequestedAt is set once, by the first cancel that meets the job running.
	// From then on the job ends as cancelled and as nothing else.
	CancelRequestedAt time.Time
	// ExpiresAt is when an ended job may be deleted with all it left; zero until it ends.
	ExpiresAt time.Time
}
