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
	kinds map[string]exec.Executor
}

// NewKinds makes the executor of a queue that has no kind yet.
func NewKinds(queue string) *Kinds {
	return &Kinds{queue: queue, kinds: map[string]exec.Executor{}}
}

// Add adds a kind.
func (k *Kinds) Add(kind string, e exec.Executor) error {
	switch {
	case !validKind(kind):
		return fmt.Errorf("the kind %s must be 1 to %d letters, digits, _, -, . and :", job.Quote(kind), maxKindName)
	case k.kinds[kind] != nil:
		return fmt.Errorf("the queue %s has the kind %s already", job.Quote(k.queue), job.Quote(kind))
	}
	k.kinds[kind] = e
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
	e := k.kinds[metadata[KindMetadata]]
	if e == nil {
		refusal := job.Errorf(job.UnknownKind, "%s", k.explain(metadata[KindMetadata]))
		refusal.Field = "/metadata/" + KindMetadata
		return refusal
	}
	return e.Check(input)
}

// Execute runs a job by its kind. A job that was stored by an older version of the program may
// have a kind that is gone.
func (k *Kinds) Execute(ctx context.Context, t exec.Task, out exec.Sink) error {
	kind := t.Job.Metadata[KindMetadata]
	e := k.kinds[kind]
	if e == nil {
		return &job.Fault{Code: "unknown_kind", Message: k.explain(kind), Class: job.Final}
	}
	return e.Execute(ctx, t, out)
}

// explain says why a job with the kind cannot run, with the kinds that can.
func (k *Kinds) explain(kind string) string {
	names := strings.Join(slices.Sorted(maps.Keys(k.kinds)), ", ")
	if kind == "" {
		return fmt.Sprintf("a job of the queue %s needs its kind in metadata.%s; the kinds are: %s", job.Quote(k.queue), KindMetadata, names)
	}
	return fmt.Sprintf("the queue %s has no kind %s; the kinds are: %s", job.Quote(k.queue), job.Quote(kind), names)
}
