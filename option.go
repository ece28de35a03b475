package meanwhile

import (
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// QueueOption changes a setting of a queue from its default.
type QueueOption interface{ configure(*queueConfig) }

// SubmitOption sets a field of a submission. See [Submission] for what each field means.
type SubmitOption interface{ set(*Submission) }

// KindOption is an option of a queue that one of its kinds may change for its own jobs.
type KindOption interface {
	QueueOption
	configuresKind()
}

// Option is a setting that a queue or kind gives to its jobs, and that a submission may
// replace for its own job.
type Option interface {
	KindOption
	SubmitOption
}

// queueConfig is what the options of a queue change.
type queueConfig struct {
	config.Queue
	middleware  []Middleware
	retryAtOnce bool // see [Server]
}

type queueOption func(*queueConfig)

func (o queueOption) configure(q *queueConfig) { o(q) }

// kindOption is a queueOption for which kinds may differ.
type kindOption struct{ queueOption }

func (kindOption) configuresKind() {}

type submitOption func(*Submission)

func (o submitOption) set(s *Submission) { o(s) }

// option is an [Option]: one function for the queue, one for a submission.
type option struct {
	kindOption
	submitOption
}

// Concurrency sets how many jobs of the queue run at once. The default is GOMAXPROCS. The
// minimum is 1.
func Concurrency(n int) QueueOption {
	return queueOption(func(q *queueConfig) { q.Concurrency = n })
}

// MaxDepth sets how many jobs of the queue may wait. The next submission is refused with
// [client.CodeQueueFull]. The default is 10,000.
func MaxDepth(n int) QueueOption {
	return queueOption(func(q *queueConfig) { q.MaxDepth = n })
}

// PerKey sets how many jobs of one key may run and wait at once; 0 means no limit. When the
// limit of running jobs is reached, further jobs of the key are parked. When the limit of
// waiting jobs is reached, the next submission is refused with [client.CodeKeyFull]. By
// default a key has no limit of running jobs, and 1,000 jobs may wait.
func PerKey(running, waiting int) QueueOption {
	return queueOption(func(q *queueConfig) { q.PerKey.Running, q.PerKey.Waiting = running, waiting })
}

// Use adds middleware to the functions of a queue or to that of a kind, inside that of
// [Config.Middleware]. The first one is the outermost. A second Use adds further ones, inside
// the first; that of a kind is inside that of its queue.
func Use(middleware ...Middleware) KindOption {
	return kindOption{func(q *queueConfig) { q.middleware = slices.Concat(q.middleware, middleware) }}
}

// MaxAttempts sets how many attempts of a job may fail before the job fails. The default
// is 4. Attempts lost in a crash of the program are counted separately.
func MaxAttempts(n int) Option {
	return option{
		kindOption{func(q *queueConfig) { q.MaxAttempts = n }},
		func(s *Submission) { s.MaxAttempts = n },
	}
}

// Backoff sets how long a job waits before its second attempt. The wait doubles for each
// further attempt, up to longest. The defaults are 2 s and 1 min. A queue with the backoff 0
// retries at once; in a submission 0 keeps the setting of the queue.
func Backoff(first, longest time.Duration) Option {
	return option{
		kindOption{func(q *queueConfig) { q.Retry.Backoff, q.Retry.BackoffMax = first, longest }},
		func(s *Submission) { s.Retry.Backoff, s.Retry.BackoffMax = first, longest },
	}
}

// RetryFor sets how long after its first start a job may be delayed by [RetryAfter]. Then
// the job fails. The default is 1 h.
func RetryFor(d time.Duration) Option {
	return option{
		kindOption{func(q *queueConfig) { q.Retry.For = d }},
		func(s *Submission) { s.Retry.For = d },
	}
}

// RunTimeout sets how long an attempt may run. Then its context ends with [ErrTimeout] and
// the job fails without a retry. By default an attempt may run for any time.
func RunTimeout(d time.Duration) Option {
	// The attempt is cut off when it has not stopped after the time that a cancel gives it.
	grace := config.FuncQueue().Timeouts.CancelGrace
	return option{
		kindOption{func(q *queueConfig) { q.Timeouts.RunSoft, q.Timeouts.RunHard = d, d+grace }},
		func(s *Submission) { s.Timeouts.RunSoft, s.Timeouts.RunHard = d, d+grace },
	}
}

// QueueTimeout sets how long a job may wait for its first attempt. Then the job expires.
// By default a job may wait for any time.
func QueueTimeout(d time.Duration) Option {
	return option{
		kindOption{func(q *queueConfig) { q.Timeouts.Queue = d }},
		func(s *Submission) { s.Timeouts.Queue = d },
	}
}

// Key sets the key of the job. The keys of a queue take turns; [PerKey] limits each.
func Key(key string) SubmitOption {
	return submitOption(func(s *Submission) { s.Key = key })
}

// Priority sets the priority of the job within its key: 1 runs first, 9 last. The default
// is 5.
func Priority(n int) SubmitOption {
	return submitOption(func(s *Submission) { s.Priority = n })
}

// Delay keeps the job from running before d has passed.
func Delay(d time.Duration) SubmitOption {
	return submitOption(func(s *Submission) { s.Delay = d })
}

// RunAt keeps the job from running before t. Use Delay or RunAt, not both.
func RunAt(t time.Time) SubmitOption {
	return submitOption(func(s *Submission) { s.RunAt = t })
}

// Metadata adds a pair to the metadata of the job. Lists can be filtered by it, and
// [Task.Metadata] has it.
func Metadata(name, value string) SubmitOption {
	return submitOption(func(s *Submission) {
		if s.Metadata == nil {
			s.Metadata = map[string]string{}
		}
		s.Metadata[name] = value
	})
}

// AbandonAfter cancels the job when no client has watched it or read it for d. The minimum
// is 2 minutes.
func AbandonAfter(d time.Duration) SubmitOption {
	return submitOption(func(s *Submission) { s.AbandonAfter = d })
}

// IdempotencyKey prevents a second job: a later submission with the same key and content
// returns the first job.
func IdempotencyKey(key string) SubmitOption {
	return submitOption(func(s *Submission) { s.IdempotencyKey = key })
}
