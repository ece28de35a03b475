package engine

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// BenchmarkRetention measures how much the deletion of a long history slows down submits. 64
// clients submit jobs, alternating a second with the deletion and a second without, so that
// other load on the machine affects both. Run it with -benchtime 10x for ten pairs of seconds.
func BenchmarkRetention(b *testing.B) {
	const history = 10_000 // jobs for each pair of seconds
	h := newRetentionBench(b, history*b.N)
	var deleting, idle []time.Duration
	for range b.N {
		h.pruning.Store(true)
		deleting = append(deleting, h.submitFor(time.Second)...)
		h.pruning.Store(false)
		idle = append(idle, h.submitFor(time.Second)...)
	}
	b.ReportMetric(float64(len(idle)/b.N), "jobs/s")
	b.ReportMetric(float64(len(deleting)/b.N), "jobs/s(pruning)")
	b.ReportMetric(float64(h.pruned.Load()/int64(b.N)), "pruned/s")
	b.ReportMetric(percentile(idle, 99), "ms(P99)")
	b.ReportMetric(percentile(deleting, 99), "ms(P99,pruning)")
}

// percentile returns a percentile, in milliseconds.
func percentile(took []time.Duration, percent int) float64 {
	slices.Sort(took)
	return float64(took[len(took)*percent/100].Microseconds()) / 1000
}

// retentionBench is a busy engine over a store with a long history to delete.
type retentionBench struct {
	*Engine
	b       *testing.B
	pruning atomic.Bool
	pruned  atomic.Int64
}

func newRetentionBench(b *testing.B, jobs int) *retentionBench {
	b.Helper()
	var ahead atomic.Int64
	begin := time.Now()
	s, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "jobs.db"), sqlite.Options{
		PreallocateLog: 16 << 20,
		Clock:          func() time.Time { return begin.Add(time.Since(begin) + time.Duration(ahead.Load())) },
	})
	if err != nil {
		b.Fatal(err)
	}
	q := Queue{Name: "q", Concurrency: 256, MaxAttempts: 1, Keep: time.Hour, KeepFailed: time.Hour}
	q.Policy.Timeouts.Lease = time.Hour
	e, err := New(b.Context(), Config{Store: s, Queues: []Queue{q}})
	if err != nil {
		b.Fatal(err)
	}
	h := &retentionBench{Engine: e, b: b}
	ctx, stop := context.WithCancel(context.Background())
	var all, working sync.WaitGroup
	all.Go(func() { _ = e.loop(ctx) })
	given := make(chan job.Claimed, 1000)
	e.Consume(job.Worker{Name: "w", Queue: "q", Slots: 256, Deliver: func(c job.Claimed) { given <- c }})
	for range 64 {
		working.Go(func() {
			for c := range given {
				_, _ = e.Finish(context.Background(), c.Lease(), job.Outcome{Result: &job.Result{Body: c.Input}})
			}
		})
	}
	for left := jobs; left > 0; {
		left -= len(h.submitFor(time.Second / 10))
	}
	ahead.Store(int64(2 * time.Hour))
	all.Go(func() { h.prune(ctx) })
	b.Cleanup(func() {
		stop()
		all.Wait()
		close(given)
		working.Wait()
		_ = s.Close()
	})
	return h
}

// prune deletes the history in chunks while pruning is set.
func (h *retentionBench) prune(ctx context.Context) {
	for after := ""; ctx.Err() == nil; {
		if !h.pruning.Load() {
			_ = h.pruner.yield(ctx, yieldFactor)
			continue
		}
		op := &store.Prune{After: after, Limit: chunkRows, MaxBytes: chunkBytes, MaxTime: chunkTime}
		if err := h.pruner.pruneChunk(ctx, op); err != nil {
			return
		}
		after = op.Next
		h.pruned.Add(int64(op.Deleted))
		_ = h.pruner.yield(ctx, yieldFactor)
	}
}

// submitFor submits jobs from 64 clients for a duration. It returns the time that each submit
// took.
func (h *retentionBench) submitFor(d time.Duration) []time.Duration {
	took := make([][]time.Duration, 64)
	var callers sync.WaitGroup
	start := time.Now()
	for i := range took {
		callers.Go(func() {
			input := make([]byte, 500)
			for len(took[i]) == 0 || time.Since(start) < d {
				began := time.Now()
				if _, _, err := h.Submit(context.Background(), Request{Owner: job.Owner{User: "u"}, Queue: "q", Input: input}); err != nil {
					h.b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(began))
			}
		})
	}
	callers.Wait()
	return slices.Concat(took...)
}
