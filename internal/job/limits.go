package job

import "time"

// The bounds of the product. Where internal/config can set a bound, this is its default.
const (
	DefaultPriority = 5
	HighestPriority = 1
	LowestPriority  = 9

	DefaultMaxAttempts = 4
	MaxAttempts        = 100 // the highest Job.MaxAttempts

	MaxBody      = 1 << 20  // a JSON request without an input
	MaxInput     = 1 << 20  // a job's input; a queue may have another bound
	LargestInput = 32 << 20 // the largest bound that a queue may have
	MaxEnvelope  = 64 << 10 // what a submit has beside its input
	MaxDepth     = 64       // of nested JSON
	MaxOutput    = 16 << 20 // the entries of one attempt
	MaxJobOutput = 64 << 20 // all of a job's entries
	MaxResult    = 64 << 20 // bytes
	MaxInline    = 64 << 10 // a result, or the text so far, inside a job's JSON
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

// Limits are the limits of a queue that a commit enforces; 0 is no limit.
type Limits struct {
	Running    int // running jobs of the queue, over all processes: no more are leased
	KeyRunning int // running jobs of a tenant's key other than "": more ready jobs are parked
	KeyWaiting int // waiting jobs of a tenant's key other than "": more submits are refused with [KeyFull]
}
