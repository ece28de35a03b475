package server

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/runner"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

const streams = 1000 // at once

// cpu is the processor time of this process so far.
func cpu() time.Duration {
	var use syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &use)
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// newBenchEngine returns an engine over a synced store, with capacity for all streams.
func newBenchEngine(b *testing.B) *engine.Engine {
	store, err := sqlite.Open(context.Background(), filepath.Join(b.TempDir(), "jobs.db"), sqlite.Options{PreallocateLog: preallocatedLog})
	if err != nil {
		b.Fatal(err)
	}
	e, err := engine.New(context.Background(), engine.Config{Store: store, Queues: []engine.Queue{{
		Name: "talk", Concurrency: streams, MaxDepth: 2 * streams, MaxAttempts: 1, Policy: config.FuncQueue().Policy(), Keep: time.Hour, KeepFailed: time.Hour,
	}}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	gone := make(chan error)
	go func() { gone <- e.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		<-gone
		_ = store.Close()
	})
	return e
}

func submitAll(b *testing.B, e *engine.Engine) (ids []job.ID) {
	for range streams {
		snap, _, err := e.Submit(context.Background(), engine.Request{Owner: job.Owner{User: "local"}, Queue: "talk", Input: []byte("{}")})
		if err != nil {
			b.Fatal(err)
		}
		ids = append(ids, snap.ID)
	}
	return ids
}

// BenchmarkAppend measures the cost of a piece of output in the engine and a synced store. A
// thousand leases each append again once the last append is answered.
func BenchmarkAppend(b *testing.B) {
	b.Run("text", func(b *testing.B) { benchmarkAppend(b, false) })
	b.Run("text and progress", func(b *testing.B) { benchmarkAppend(b, true) })
}

func benchmarkAppend(b *testing.B, progress bool) {
	e := newBenchEngine(b)
	claims := make(chan job.Claimed, streams)
	defer e.Consume(job.Worker{Name: "bench", Queue: "talk", Slots: streams, Deliver: func(c job.Claimed) { claims <- c }})()
	submitAll(b, e)
	var left atomic.Int64
	left.Store(int64(b.N))
	var all sync.WaitGroup
	b.ResetTimer()
	began := cpu()
	for range streams {
		c := <-claims
		all.Go(func() {
			for seq := int64(1); left.Add(-1) >= 0; seq++ {
				entries := []job.Entry{{Seq: seq, Attempt: 1, Kind: job.KindText, Events: 1, Data: []byte("token ")}}
				var p *job.Progress
				if progress {
					p = &job.Progress{Percent: 50, Status: "Generating response"}
					seq++
					entries = append(entries, job.Entry{Seq: seq, Attempt: 1, Kind: job.KindProgress, Events: 1, Data: []byte(`{"percent":50,"status":"Generating response"}`)})
				}
				if err := e.Append(context.Background(), c.Lease(), entries, p); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpu()-began).Microseconds())/float64(b.N), "cpu-µs/append")
}

// textExecutor writes b.N words in all, twenty a second on each stream, and records when.
type textExecutor struct {
	left    atomic.Int64
	written sync.Map // of outputAt: when it was written
}

type outputAt struct {
	id    job.ID
	bytes int
}

func (*textExecutor) Kind() string       { return "textExecutor" }
func (*textExecutor) TakesFiles() bool   { return false }
func (*textExecutor) Check([]byte) error { return nil }

func (k *textExecutor) Execute(ctx context.Context, t exec.Task, out exec.Sink) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := 1; k.left.Add(-1) >= 0; n++ {
		<-tick.C
		if err := out.Progress(job.Progress{Percent: 30 + 49*float64(n)/float64(n+200), Status: "Generating response"}); err != nil {
			return err
		}
		k.written.Store(outputAt{t.Job.ID, n * len("token ")}, time.Now())
		if err := out.Text("token "); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkStreams measures the cost of a word, and its delay to the watcher, of a thousand
// watched jobs that each write twenty words a second.
func BenchmarkStreams(b *testing.B) {
	e := newBenchEngine(b)
	k := &textExecutor{}
	k.left.Store(int64(b.N))
	r := runner.New(runner.Config{Source: e, Queue: "talk", Executor: k, Slots: streams, Name: "bench", Log: slog.New(slog.DiscardHandler)})
	ctx, stop := context.WithCancel(context.Background())
	gone := make(chan error)
	b.ResetTimer()
	began := cpu()
	var all sync.WaitGroup
	delays := make([][]time.Duration, streams)
	for i, id := range submitAll(b, e) {
		all.Go(func() { delays[i] = k.listen(b, e, id) })
	}
	go func() { gone <- r.Run(ctx) }()
	all.Wait()
	b.StopTimer()
	used := cpu() - began
	stop()
	<-gone
	every := slices.Concat(delays...)
	slices.Sort(every)
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-µs/word")
	b.ReportMetric(float64(len(every))/float64(b.N), "updates/word")
	b.ReportMetric(float64(every[len(every)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(every[len(every)*99/100].Microseconds())/1000, "p99-ms")
}

// listen watches a job to its end. It returns the delay of the last word of each update.
func (k *textExecutor) listen(b *testing.B, e *engine.Engine, id job.ID) (delays []time.Duration) {
	w, err := e.Watch(context.Background(), job.Owner{User: "local"}, id, 0)
	if err != nil {
		b.Error(err)
		return nil
	}
	defer w.Close()
	for received := 0; ; {
		up, err := w.Next(context.Background())
		if err == io.EOF {
			return delays
		}
		if err != nil {
			b.Error(err)
			return delays
		}
		before := received
		for _, entry := range up.Entries {
			if entry.Kind == job.KindText {
				received += len(entry.Data)
			}
		}
		if at, ok := k.written.Load(outputAt{id, received}); ok && received > before {
			delays = append(delays, time.Since(at.(time.Time)))
		}
		if up.Job.State.Ended() && len(up.Entries) == 0 {
			return delays
		}
	}
}
