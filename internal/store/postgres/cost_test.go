package postgres

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// BenchmarkCost measures the processor time of jobs that are submitted with a lease and finished
// by the next batch: of the server process that writes, and of this process. Unlike the time on
// the clock, it says something on a machine that is busy.
func BenchmarkCost(b *testing.B) {
	for _, size := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			s, err := Open(b.Context(), newDatabase(b).URL(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = s.Close() })
			input := bytes.Repeat([]byte("5"), 500)
			var running []*store.Submit
			run := func() {
				batch := store.NewBatch()
				for i := range size {
					batch.Submits = append(batch.Submits, newSubmit(leased, func(op *store.Submit) {
						op.Input, op.Job.Key = input, string(rune('a'+i%16))
					}))
				}
				for _, op := range running {
					batch.Finishes = append(batch.Finishes, &store.Finish{
						Lease: leaseOf(op), To: job.Succeeded, Result: &job.Result{ContentType: "text/plain", Body: []byte("done")},
					})
				}
				if err := store.Commit(context.Background(), s, batch); err != nil {
					b.Fatal(err)
				}
				running = batch.Submits
			}
			for range 20 { // prepares the statements
				run()
			}
			server, own := serverTime(b, s), ownTime(b)
			for b.Loop() {
				run()
			}
			jobs := float64(b.N * size)
			b.ReportMetric(float64((serverTime(b, s)-server).Nanoseconds())/1e3/jobs, "server-µs/job")
			b.ReportMetric(float64((ownTime(b)-own).Nanoseconds())/1e3/jobs, "own-µs/job")
			b.ReportMetric(jobs/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}

// serverTime is the processor time that the server process of the writer has used.
func serverTime(b *testing.B, s *Store) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", s.writer.pg.PID()))
	if err != nil {
		b.Skip(err)
	}
	var nanos int64
	if _, err := fmt.Fscan(strings.NewReader(string(text)), &nanos); err != nil {
		b.Fatal(err)
	}
	return time.Duration(nanos)
}

// ownTime is the processor time that this process has used.
func ownTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
