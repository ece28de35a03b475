package job

import "time"

// Bounds that hold everywhere; those that a server may set otherwise are in
// internal/config, with these as their defaults.
const (
	DefaultPriority = 5
	HighestPriority = 1
	LowestPriority  = 9

	DefaultMaxAttempts = 4
	MaxAttempts        = 100

	MaxBody      = 1 << 20  // a JSON request
	MaxDepth     = 64       // of nested JSON
	MaxOutput    = 16 << 20 // the entries of one attempt
	MaxJobOutput = 64 << 20 // all of a job's entries
	MaxResult    = 64 << 20 // bytes
	MaxInline    = 64 << 10 // a result, or text said so far, inside a job's own JSON
	MaxMetadata  = 16       // pairs
	MaxMetaKey   = 64       // bytes
	MaxMetaValue = 512      // bytes
	MaxKey       = 256      // bytes of a job's key, or of an idempotency key
	MaxQueueName = 64       // bytes
	MaxListPage  = 100      // jobs
	MaxBatch     = 1000     // jobs in one request
	MaxBatchBody = 16 << 20 // a JSON request with many jobs
	MaxFiles     = 32       // of a job
	MaxFileName  = 255      // bytes
	MaxWait      = 60 * time.Second
	MinAbandon   = 2 * time.Minute
	MaxDuration  = 366 * 24 * time.Hour // any delay or timeout
)

// Limits are what a queue's jobs are held to by the commit itself; 0 is no limit.
type Limits struct {
	Running    int // of the queue, over all processes: no more are leased
	KeyRunning int // of a tenant's key other than "": one that becomes ready beyond it is parked
	KeyWaiting int // of a tenant's key other than "": a submit beyond it is refused with [KeyFull]
}
