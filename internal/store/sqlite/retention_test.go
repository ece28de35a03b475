package sqlite

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// aged is a store with ended jobs and a clock that a test moves.
type bulkStore struct {
	*Store
	tb   testing.TB
	path string
	now  time.Time // moved between commits only
}

func newBulkStore(tb testing.TB, o Options) *bulkStore {
	tb.Helper()
	a := &bulkStore{tb: tb, path: filepath.Join(tb.TempDir(), "jobs.db"), now: time.Unix(1_900_000_000, 0)}
	o.Clock = func() time.Time { return a.now }
	s, err := Open(context.Background(), a.path, o)
	if err != nil {
		tb.Fatal(err)
	}
	a.Store = s
	tb.Cleanup(func() { _ = s.Close() })
	return a
}

func (a *bulkStore) commit(b *store.Batch) {
	a.tb.Helper()
	if err := store.Commit(context.Background(), a.Store, b); err != nil {
		a.tb.Fatal(err)
	}
}

// end puts jobs into the store that have ended, each with an input, an entry of
// output and a result of so many bytes.
func (a *bulkStore) addEnded(jobs, size int) {
	a.tb.Helper()
	body := bytes.Repeat([]byte("5"), size)
	for ; jobs > 0; jobs -= 250 {
		born, done := store.NewBatch(), store.NewBatch()
		for range min(jobs, 250) {
			j := job.Job{ID: job.NewID(), Owner: job.Owner{User: "u"}, Queue: "q", Priority: 5, MaxAttempts: 1}
			lease := job.Lease{Job: j.ID, Token: job.NewToken()}
			born.Submits = append(born.Submits, &store.Submit{Job: j, Input: body, Token: lease.Token, LeaseFor: time.Minute, Worker: "w"})
			done.Finishes = append(done.Finishes, &store.Finish{
				Lease: lease, To: job.Succeeded, Result: &job.Result{ContentType: "text/plain", Body: body},
				Entries: []job.Entry{{Seq: 1, Attempt: 1, Kind: job.KindText, Events: 1, Data: body}},
			})
		}
		a.commit(born)
		a.commit(done)
	}
}

func BenchmarkPrune(b *testing.B) {
	a := newBulkStore(b, Options{})
	a.addEnded(max(b.N, 1000), 500)
	a.now = a.now.Add(2 * time.Hour)
	b.ResetTimer()
	for left := b.N; left > 0; left -= 100 {
		batch := store.NewBatch()
		batch.Prunes = []*store.Prune{{Limit: 100, MaxBytes: 1 << 20, MaxTime: 2 * time.Millisecond}}
		a.commit(batch)
	}
}
