package sqlite

import (
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

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
