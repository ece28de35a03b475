package engine_test

import (
	"context"
	"maps"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

type countingObserver struct {
	mu sync.Mutex
	// guarded by mu
	counts      map[string]int
	ops         int // bytes of all batches
	outputBytes int64
}

func (t *countingObserver) count(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[string]int{}
	}
	t.counts[what]++
}

func (t *countingObserver) OpSettled(l engine.Lane, took time.Duration) {
	t.count("lane " + l.String())
	if took <= 0 {
		t.count("no time")
	}
}

func (t *countingObserver) BatchSettled(ops int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ops += ops
}

func (t *countingObserver) OpRefused(op string, code job.Code)         { t.count(op + " " + string(code)) }
func (t *countingObserver) AttemptBegan(queue string, _ time.Duration) { t.count("began " + queue) }
func (t *countingObserver) LeaseSwept(bool)                            { t.count("swept") }
func (t *countingObserver) AttemptEnded(q string, how engine.Ending, ran time.Duration) {
	t.count("ended " + q + " " + how.String())
	if ran > 0 {
		t.count("ran")
	}
}

func (t *countingObserver) OutputStored(bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.outputBytes += bytes
}

func startObserved(t *testing.T, path string) (*harness, *countingObserver) {
	observer := &countingObserver{}
	s := openStore(t, path)
	return startWithConfig(t, engine.Config{Store: s, Queues: queues(), Observer: observer}), observer
}

// The observer is called once for every op, attempt and refusal.
func TestObserverCountsEverythingOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	h, observer := startObserved(t, path)
	h.startWorker(1)
	ctx := context.Background()
	next := func() job.Claimed { h.submit(engine.Request{}); return <-h.jobs }

	c := next()
	if err := h.Append(ctx, c.Lease(), textEntry(1, "hello"), nil); err != nil {
		t.Fatal(err)
	}
	h.Renew(ctx, []job.Lease{c.Lease()})
	h.finish(c, job.Outcome{Entries: textEntry(2, " world")})
	h.finish(next(), job.Outcome{Fault: &job.Fault{Code: "x", Class: job.Final}})
	c = next()
	if _, err := h.Cancel(ctx, local, c.Job.ID); err != nil {
		t.Fatal(err)
	}
	h.finish(c, job.Outcome{Cancelled: true})
	h.finish(next(), job.Outcome{Fault: &job.Fault{Code: "x", Class: job.Wait}})
	h.finish(<-h.jobs, job.Outcome{Fault: &job.Fault{Code: "x", Class: job.Retryable}})
	h.finish(<-h.jobs, job.Outcome{Released: true})
	<-h.jobs // will be lost with the process

	_, _, _ = h.Submit(ctx, engine.Request{Owner: local, Queue: "nowhere"})
	_, _ = h.SubmitMany(ctx, []engine.Request{{Owner: local, Queue: "sim"}, {Owner: local, Queue: "nowhere"}}, true)
	_, _ = h.Retry(ctx, local, c.Job.ID)
	_, _ = h.Retry(ctx, local, job.NewID())
	h.stop()
	want := map[string]int{
		"began sim": 7, "ran": 6,
		"ended sim succeeded": 1, "ended sim failed": 1, "ended sim cancelled": 1, "ended sim waited": 1,
		"ended sim retried": 1, "ended sim handed_back": 1,
		"submit unknown_queue": 2, "submit batch_refused": 1, "retry not_found": 1,
	}
	observer.expect(t, want, "lane")
	if observer.outputBytes != int64(len("hello world")) {
		t.Errorf("%d bytes of output were reported", observer.outputBytes)
	}
	lanes := observer.counts["lane urgent"] + observer.counts["lane output"] + observer.counts["lane submit"]
	if observer.counts["lane submit"] != 4 || observer.counts["lane output"] != 1 || observer.ops < lanes {
		t.Errorf("%v were reported in batches of %d ops", observer.counts, observer.ops)
	}

	again, observer := startObserved(t, path)
	again.stop()
	observer.expect(t, map[string]int{"ended sim lost": 1}, "lane")
}

// expect compares the counts with want. It ignores names with the prefix exceptPrefix.
func (t *countingObserver) expect(tt *testing.T, want map[string]int, exceptPrefix string) {
	tt.Helper()
	got := maps.Clone(t.counts)
	maps.DeleteFunc(got, func(what string, _ int) bool {
		return len(what) > len(exceptPrefix) && what[:len(exceptPrefix)] == exceptPrefix
	})
	if !maps.Equal(got, want) {
		tt.Errorf("reported\n%v, want\n%v", got, want)
	}
}
