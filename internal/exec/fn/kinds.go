package fn

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// KindMetadata is the name in a job's metadata that has its kind.
const KindMetadata = "kind"

const maxKindName = 64

// Kinds is the executor of a queue with several kinds of jobs. Each kind has an executor of its
// own. No kind may be added once the executor is used.
type Kinds struct {
	queue string
	kinds map[string]Kind
}

// Kind is a kind of jobs: how they run, and what they have instead of the queue's settings.
type Kind struct {
	exec.Executor
	MaxAttempts int
	Policy      job.Policy
}

// NewKinds makes the executor of a queue that has no kind yet.
func NewKinds(queue string) *Kinds {
	return &Kinds{queue: queue, kinds: map[string]Kind{}}
}

// Add adds a kind.
func (k *Kinds) Add(name string, kind Kind) error {
	_, known := k.kinds[name]
	switch {
	case !validKind(name):
		return fmt.Errorf("the kind %s must be 1 to %d letters, digits, _, -, . and :", job.Quote(name), maxKindName)
	case known:
		return fmt.Errorf("the queue %s has the kind %s already", job.Quote(k.queue), job.Quote(name))
	}
	k.kinds[name] = kind
	return nil
}

func validKind(kind string) bool {
	const special = "_-.:"
	return 1 <= len(kind) && len(kind) <= maxKindName && !strings.ContainsFunc(kind, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(special, r))
	})
}

// CheckRunnable returns an error for a queue without a kind, because it could not run any job.
func (k *Kinds) CheckRunnable() error {
	if len(k.kinds) == 0 {
		return fmt.Errorf("the queue %s has no kinds, so it can run no job", job.Quote(k.queue))
	}
	return nil
}

// Kind is "func".
func (*Kinds) Kind() string { return "func" }

// TakesFiles is true: a function opens the files of its job.
func (*Kinds) TakesFiles() bool { return true }

// Check accepts every input: the input alone does not tell its kind.
func (*Kinds) Check([]byte) error { return nil }

// CheckJob refuses a job without a kind of the queue, and an input that its kind refuses.
func (k *Kinds) CheckJob(metadata map[string]string, input []byte) error {
	kind, known := k.kinds[metadata[KindMetadata]]
	if !known {
		refusal := job.Errorf(job.UnknownKind, "%s", k.explain(metadata[KindMetadata]))
		refusal.Field = "/metadata/" + KindMetadata
		return refusal
	}
	return kind.Check(input)
}

// Defaults returns the settings of a job that sets none.
func (k *Kinds) Defaults(metadata map[string]string) (maxAttempts int, policy job.Policy, ok bool) {
	kind, known := k.kinds[metadata[KindMetadata]]
	return kind.MaxAttempts, kind.Policy, known
}

// Execute runs a job by its kind. A job that was stored by an older version of the program may
// have a kind that is gone.
func (k *Kinds) Execute(ctx context.Context, t exec.Task, out exec.Sink) error {
	name := t.Job.Metadata[KindMetadata]
	kind, known := k.kinds[name]
	if !known {
		return &job.Fault{Code: "unknown_kind", Message: k.explain(name), Class: job.Final}
	}
	return kind.Execute(ctx, t, out)
}

// explain says why a job with the kind cannot run, with the kinds that can.
func (k *Kinds) explain(kind string) string {
	names := strings.Join(slices.Sorted(maps.Keys(k.kinds)), ", ")
	if kind == "" {
		return fmt.Sprintf("a job of the queue %s needs its kind in metadata.%s; the kinds are: %s", job.Quote(k.queue), KindMetadata, names)
	}
	return fmt.Sprintf("the queue %s has no kind %s; the kinds are: %s", job.Quote(k.queue), job.Quote(kind), names)
}
