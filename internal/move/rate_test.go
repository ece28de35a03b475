package move

import (
	"bytes"
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/postgres"
)

// BenchmarkMove moves waiting jobs with an input of 500 bytes.
func BenchmarkMove(b *testing.B) {
	const jobs = 40_000
	in := newInstallation(b, 1, 1)
	in.open()
	input := bytes.Repeat([]byte("input"), 100)
	for range jobs / 500 {
		batch := store.NewBatch()
		for range 500 {
			batch.Add(&store.Submit{Job: job.Job{ID: job.NewID(), Owner: in.owners[0], Queue: "a", MaxAttempts: 4}, Input: input})
		}
		if err := store.Commit(context.Background(), in.store, batch); err != nil {
			b.Fatal(err)
		}
	}
	in.close()
	for b.Loop() {
		d := newDatabase(b)
		to, from, err := in.begin(d, postgres.ImportOptions{SaveBytes: 32 << 20})
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		copied, err := Copy(context.Background(), from, to, func(Report) {})
		if err == nil {
			err = to.End(context.Background())
		}
		if err != nil {
			b.Fatal(err)
		}
		took := time.Since(began).Seconds()
		b.ReportMetric(float64(copied.Jobs)/took, "jobs/s")
		b.ReportMetric(float64(copied.Bytes)/took/(1<<20), "MiB/s")
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapSys)/(1<<20), "MiB-heap")
}
