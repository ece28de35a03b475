package runner

import (
	"context"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// benchSource delivers a new job for each finished one, and stores nothing.
type benchSource struct {
	serving chan job.Worker
	free    chan struct{}
}

func (m *benchSource) Consume(w job.Worker) func() {
	m.serving <- w
	return func() {}
}

func (m *benchSource) Append(context.Context, job.Lease, []job.Entry, *job.Progress) error {
	return nil
}

func (m *benchSource) Finish(context.Context, job.Lease, job.Outcome) (job.State, error) {
	m.free <- struct{}{}
	return job.Succeeded, nil
}

func (m *benchSource) FinishAsync(_ job.Lease, _ job.Outcome, then func(error)) {
	m.free <- struct{}{}
	then(nil)
}

func (m *benchSource) Renew(_ context.Context, leases []job.Lease) []error {
	return make([]error, len(leases))
}

// BenchmarkNoOutput measures the runner's overhead per job, from delivery to outcome, with 64
// slots: the jobs do nothing and have a result, but no other output.
func BenchmarkNoOutput(b *testing.B) {
	body := []byte("{}")
	benchmark(b, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		out.Result(job.Result{ContentType: "application/json", Body: body})
		return nil
	})
}

// BenchmarkShortOutput measures a job that writes three words before its result.
func BenchmarkShortOutput(b *testing.B) {
	body := []byte("{}")
	benchmark(b, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		for range 3 {
			if err := out.Text("word "); err != nil {
				return err
			}
		}
		out.Result(job.Result{ContentType: "application/json", Body: body})
		return nil
	})
}

// BenchmarkLongOutput measures a job that writes a thousand pieces as fast as it can and
// reports progress with every eighth.
func BenchmarkLongOutput(b *testing.B) {
	const pieces = 1 << 10
	body := []byte("{}")
	benchmark(b, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		for i := range pieces {
			if i%8 == 0 {
				_ = out.Progress(job.Progress{Percent: float64(i) / pieces * 100, Status: "Generating response"})
			}
			if err := out.Text("word "); err != nil {
				return err
			}
		}
		out.Result(job.Result{ContentType: "application/json", Body: body})
		return nil
	})
}

func benchmark(b *testing.B, s executorFunc) {
	const slots = 64
	m := &benchSource{serving: make(chan job.Worker, 1), free: make(chan struct{}, slots)}
	r := New(Config{Source: m, Queue: "bench", Executor: s, Slots: slots, Name: "bench"})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	w := <-m.serving
	c := claimed(1)
	for range slots {
		m.free <- struct{}{}
	}

	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		<-m.free
		c.Token = job.Token{1, byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)}
		w.Deliver(c)
	}
	for range slots {
		<-m.free
	}
	b.StopTimer()
	stop()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
