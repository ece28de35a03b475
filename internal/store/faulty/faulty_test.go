package faulty

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// inner counts the batches that reach the wrapped store.
type inner struct {
	store.Store
	mu      sync.Mutex
	applied int
	last    store.BatchID
	again   int // commits of the batch that was applied last
}

func (in *inner) Apply(_ context.Context, b *store.Batch) (func() error, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if b.ID == in.last {
		in.again++
	} else {
		in.applied++
		in.last = b.ID
	}
	return func() error { return nil }, nil
}

func (in *inner) Counts(context.Context) (map[string]job.Counts, error) {
	return map[string]job.Counts{"q": {Queued: 1}}, nil
}

func (in *inner) Now() time.Time { return time.Now() }

func (in *inner) Close() error { return nil }

func finish() *store.Batch {
	b := store.NewBatch()
	b.Finishes = []*store.Finish{{To: job.Failed}}
	return b
}

func TestEachStepFailsAsDocumented(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule    string
		step    Step
		applied int
		is, not error
	}{
		{"without a fault the commit applies", None, 1, nil, ErrLost},
		{"BeforeCommit applies nothing, and the caller knows", BeforeCommit, 0, store.ErrNotCommitted, store.ErrFull},
		{"LostBeforeCommit applies nothing, and the caller does not know", LostBeforeCommit, 0, ErrLost, store.ErrNotCommitted},
		{"LostAfterCommit applies all, and the caller does not know", LostAfterCommit, 1, ErrLost, store.ErrNotCommitted},
		{"SyncLostAfterCommit returns ErrUnknown", SyncLostAfterCommit, 1, store.ErrUnknown, store.ErrNotCommitted},
		{"BadSync applies all, and the caller does not know", BadSync, 1, ErrLost, store.ErrNotCommitted},
		{"DiskFull applies nothing, and the caller knows", DiskFull, 0, store.ErrFull, ErrLost},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			in := &inner{}
			err := store.Commit(t.Context(), New(in, Plan{Commit: Every(1, tt.step, 1)}), finish())
			if !errors.Is(err, tt.is) || errors.Is(err, tt.not) || in.applied != tt.applied {
				t.Errorf("the commit returned %v and applied %d batches", err, in.applied)
			}
		})
	}
}

func TestLostEitherIsRandom(t *testing.T) {
	t.Parallel()
	in := &inner{}
	s := New(in, Plan{Commit: Every(1, LostEither, 1), Seed: 1})
	for range 100 {
		if err := store.Commit(t.Context(), s, finish()); !errors.Is(err, ErrLost) {
			t.Fatalf("an unknown commit returned %v", err)
		}
	}
	if in.applied < 20 || in.applied > 80 {
		t.Errorf("of 100 unknown commits %d were applied", in.applied)
	}
	if s.Commits() != 100 {
		t.Errorf("of 100 commits %d were counted", s.Commits())
	}
}

func TestNextOverridesPlan(t *testing.T) {
	t.Parallel()
	s := New(&inner{}, Plan{Commit: Every(1, DiskFull, 1)})
	s.Next(Fault{Step: BeforeCommit}, Fault{})
	for i, want := range []error{store.ErrNotCommitted, nil, store.ErrFull} {
		if err := store.Commit(t.Context(), s, finish()); !errors.Is(err, want) {
			t.Errorf("commit %d returned %v, want %v", i+1, err, want)
		}
	}
}

func TestFaultWaitsForItsOp(t *testing.T) {
	t.Parallel()
	s := New(&inner{}, Plan{})
	s.Next(Fault{On: Op[store.Submit], Step: DiskFull})
	submit := finish()
	submit.Submits = append(submit.Submits, &store.Submit{})
	for i, c := range []struct {
		b    *store.Batch
		want error
	}{{finish(), nil}, {submit, store.ErrFull}, {submit, nil}} {
		if err := store.Commit(t.Context(), s, c.b); !errors.Is(err, c.want) {
			t.Errorf("commit %d returned %v, want %v", i+1, err, c.want)
		}
	}
}

func TestMarkedOpIsBadData(t *testing.T) {
	t.Parallel()
	in := &inner{}
	bad := &store.Finish{To: job.Succeeded}
	s := New(in, Plan{Bad: func(op any) bool { return op == bad }})
	b := finish()
	b.Finishes = append(b.Finishes, bad)
	if err := store.Commit(t.Context(), s, b); !errors.Is(err, store.ErrData) || in.applied != 0 {
		t.Errorf("a batch with a marked op returned %v and applied %d", err, in.applied)
	}
	if err := store.Commit(t.Context(), s, finish()); err != nil {
		t.Errorf("a batch without a marked op returned %v", err)
	}
}

func TestCommitWaitsForBeforeAndAfter(t *testing.T) {
	t.Parallel()
	in := &inner{}
	s := New(in, Plan{})
	var order []int
	s.Next(Fault{
		Before: func() { order = append(order, in.applied) },
		After:  func() { order = append(order, in.applied) },
	})
	if err := store.Commit(t.Context(), s, finish()); err != nil {
		t.Fatal(err)
	}
	if len(order) != 2 || order[0] != 0 || order[1] != 1 {
		t.Errorf("before and after the commit %v batches were applied", order)
	}
}

func TestReadsFailAsPlanned(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	s := New(&inner{}, Plan{Read: func(method string) error {
		if method == "Counts" {
			return nil
		}
		return broken
	}})
	if counts, err := s.Counts(t.Context()); err != nil || counts["q"].Queued != 1 {
		t.Errorf("a read that is to go well returned %v, %v", counts, err)
	}
	if _, err := s.Job(t.Context(), job.Owner{}, job.ID{}); !errors.Is(err, broken) {
		t.Errorf("a read that is to fail returned %v", err)
	}
	if _, err := s.Rows(t.Context(), store.RowSet{}, store.RowPage{}); !errors.Is(err, broken) {
		t.Errorf("a read that is to fail returned %v", err)
	}
}

func TestRetryingCommitsUntilOutcomeIsKnown(t *testing.T) {
	t.Parallel()
	in := &inner{}
	s := New(in, Plan{})
	s.Next(Fault{Step: BeforeCommit}, Fault{Step: BeforeCommit}, Fault{Step: LostAfterCommit}, Fault{Step: LostBeforeCommit})
	if err := store.Commit(t.Context(), Retrying(s), finish()); err != nil {
		t.Fatal(err)
	}
	if in.applied != 1 || in.again != 1 || s.Commits() != 5 {
		t.Errorf("a batch was applied %d times and committed again %d times, in %d commits", in.applied, in.again, s.Commits())
	}
}

func TestRetryingReturnsBadDataAndFullDisk(t *testing.T) {
	t.Parallel()
	s := New(&inner{}, Plan{Bad: func(any) bool { return true }})
	if err := store.Commit(t.Context(), Retrying(s), finish()); !errors.Is(err, store.ErrData) {
		t.Errorf("bad data returned %v", err)
	}
	s = New(&inner{}, Plan{Commit: Every(1, DiskFull, 1)})
	if err := store.Commit(t.Context(), Retrying(s), finish()); !errors.Is(err, store.ErrFull) || s.Commits() != 1 {
		t.Errorf("a full disk returned %v after %d commits", err, s.Commits())
	}
}

func TestStoreIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	in := &inner{}
	s := New(in, Plan{Commit: Every(2, LostEither, 1)})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				s.Next(Fault{})
				_ = store.Commit(t.Context(), s, finish())
				_, _ = s.Counts(t.Context())
			}
		})
	}
	all.Wait()
	if s.Commits() != 400 {
		t.Errorf("of 400 commits %d were counted", s.Commits())
	}
}
