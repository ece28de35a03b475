package engine_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
)

// The outcome of every second commit is unknown. Every job still runs once and ends once.
func TestUnknownOutcomesApplyOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _ := newFaultyHarness(t, faulty.Plan{Commit: faulty.Every(2, faulty.LostEither, 1)})
		h.startWorker(2)
		const jobs = 100
		runs := map[job.ID]int{}
		var working sync.WaitGroup
		working.Go(func() {
			for range jobs {
				c := <-h.jobs
				runs[c.Job.ID]++
				h.finish(c, job.Outcome{})
			}
		})
		for i := range jobs {
			key := fmt.Sprint("key ", i)
			for range 2 { // each request is sent twice
				_, _, err := h.SubmitAndWait(context.Background(), engine.Request{Owner: local, Queue: "sim", IdempotencyKey: key}, 0)
				if err != nil && job.CodeOf(err) != job.QueueFull && job.CodeOf(err) != job.Unavailable {
					t.Fatal(err)
				}
				if err != nil {
					_, _, err = h.submitUntilAccepted(key)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		working.Wait()
		if len(runs) != jobs {
			t.Fatalf("%d jobs ran, want %d", len(runs), jobs)
		}
		for id, n := range runs {
			if got, err := h.Get(context.Background(), local, id); n != 1 || err != nil || got.State != job.Succeeded {
				t.Errorf("%s ran %d times and is %s: %v", id, n, got.State, err)
			}
		}
	})
}

// submitUntilAccepted repeats a submit until the engine accepts it.
func (h *harness) submitUntilAccepted(key string) (engine.Snapshot, bool, error) {
	for {
		s, existing, err := h.Submit(context.Background(), engine.Request{Owner: local, Queue: "sim", IdempotencyKey: key})
		if code := job.CodeOf(err); code != job.QueueFull && code != job.Unavailable {
			return s, existing, err
		}
		time.Sleep(time.Millisecond)
	}
}

// An op with data that the store cannot store is refused. The other ops of its batch are stored.
func TestUnstorableOpIsRefusedAlone(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	h, s := newFaultyHarness(t, faulty.Plan{Bad: func(op any) bool {
		submit, ok := op.(*store.Submit)
		return ok && string(submit.Input) == "poison"
	}})
	// The first commit waits, so that all others share a batch.
	s.Next(faulty.Fault{On: faulty.Op[store.Submit], Before: func() { <-gate }})
	inputs := []string{"first", "a", "poison", "b"}
	errs := make([]error, len(inputs))
	var callers sync.WaitGroup
	for i, input := range inputs {
		callers.Go(func() {
			_, _, errs[i] = h.Submit(context.Background(), engine.Request{Owner: local, Queue: "wide", Input: []byte(input)})
		})
	}
	close(gate)
	callers.Wait()
	for i, err := range errs {
		want := job.Code("")
		if inputs[i] == "poison" {
			want = job.Invalid
		}
		if job.CodeOf(err) != want {
			t.Errorf("%s was answered %v", inputs[i], err)
		}
	}
}

// On a full disk submits are refused, and running jobs can end.
func TestFullDiskRefusesSubmitsOnly(t *testing.T) {
	t.Parallel()
	h, s := newFaultyHarness(t, faulty.Plan{})
	h.startWorker(1)
	h.submit(engine.Request{})
	c := <-h.jobs
	s.Next(faulty.Fault{On: faulty.Op[store.Submit], Step: faulty.DiskFull})
	_, _, err := h.Submit(context.Background(), engine.Request{Owner: local, Queue: "sim"})
	var refused *job.Error
	if !errors.As(err, &refused) || refused.Code != job.NoSpace || refused.RetryAfter == 0 {
		t.Fatalf("a submit on a full disk was answered %v", err)
	}
	s.Next(faulty.Fault{On: faulty.Op[store.Finish], Step: faulty.DiskFull})
	if state := h.finish(c, job.Outcome{}); state != job.Succeeded {
		t.Fatalf("the running job went to %s", state)
	}
}

// A failed sync ends the engine. No caller gets a success for its op, and Run returns the error.
func TestBadSyncEndsTheEngine(t *testing.T) {
	t.Parallel()
	s := faulty.New(newStore(t), faulty.Plan{})
	e, err := engine.New(context.Background(), engine.Config{Store: s, Alone: true, Queues: queues()})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- e.Run(context.Background()) }()
	s.Next(faulty.Fault{On: faulty.Op[store.Submit], Step: faulty.BadSync})
	_, _, err = e.Submit(context.Background(), engine.Request{Owner: local, Queue: "sim"})
	if job.CodeOf(err) != job.Unavailable {
		t.Errorf("the submit was answered %v", err)
	}
	if err := <-ended; !errors.Is(err, faulty.ErrLost) {
		t.Errorf("the engine ended with %v", err)
	}
	if _, _, err := e.Submit(context.Background(), engine.Request{Owner: local, Queue: "sim"}); job.CodeOf(err) != job.Unavailable && job.CodeOf(err) != job.ShuttingDown {
		t.Errorf("afterwards a submit was answered %v", err)
	}
	_ = s.Close()
}

// While the disk stalls, the engine accepts a bounded number of submits and refuses the others
// at once. It stores the accepted ones when the disk works again.
func TestStalledDiskBoundsPendingSubmits(t *testing.T) {
	if testing.Short() {
		t.Skip("stores 64 MiB")
	}
	t.Parallel()
	// In a bubble the stall takes no time. After a second of it, all waiting submits are refused.
	synctest.Test(t, func(t *testing.T) {
		gate, stuck := make(chan struct{}), make(chan struct{})
		h, s := newFaultyHarness(t, faulty.Plan{})
		s.Next(faulty.Fault{On: faulty.Op[store.Submit], Before: func() { close(stuck); <-gate }})
		answers := make(chan error)
		ask := func() {
			_, _, err := h.Submit(context.Background(), engine.Request{Owner: local, Queue: "wide", Input: make([]byte, 1<<20)})
			answers <- err
		}
		go ask()
		<-stuck
		const asked = 100 // MiB, of which 64 fit
		for range asked {
			go ask()
		}
		refused := 0
		for range asked - 63 {
			if err := <-answers; job.CodeOf(err) != job.Overloaded {
				t.Fatalf("past the bound a submit was answered %v", err)
			}
			refused++
		}
		close(gate)
		for range asked + 1 - refused {
			if err := <-answers; err != nil {
				t.Errorf("an accepted submit was refused later: %v", err)
			}
		}
		h.stop()
	})
}

// A client leaves while its submit is pending. The job is nevertheless stored and runs.
func TestCancelledSubmitStillStoresJob(t *testing.T) {
	t.Parallel()
	gate, stuck := make(chan struct{}), make(chan struct{})
	h, s := newFaultyHarness(t, faulty.Plan{})
	h.startWorker(1)
	s.Next(faulty.Fault{On: faulty.Op[store.Submit], Before: func() { close(stuck); <-gate }})
	ctx, leave := context.WithCancel(context.Background())
	id := job.NewID()
	gone := make(chan error)
	go func() {
		_, _, err := h.Submit(ctx, engine.Request{ID: id, Owner: local, Queue: "sim"})
		gone <- err
	}()
	<-stuck
	leave()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatalf("the client was answered %v", err)
	}
	close(gate)
	if c := <-h.jobs; c.Job.ID != id {
		t.Fatal("another job runs")
	} else if state := h.finish(c, job.Outcome{}); state != job.Succeeded {
		t.Fatalf("the job went to %s", state)
	}
}

// A store that refuses everything ends the engine, even while a waiting job and a free slot
// cause claims.
func TestDamagedStoreEndsEngineWithFreeWorker(t *testing.T) {
	t.Parallel()
	withCluster(t, func(t *testing.T, p *cluster) {
		m := p.startProcess(t, engine.Config{Queues: queues()})
		m.submit(engine.Request{})
		if _, err := m.Cancel(t.Context(), local, m.submit(engine.Request{}).ID); err != nil { // now fewer jobs wait than before
			t.Fatal(err)
		}
		m.link.killed.Store(true)
		m.Consume(job.Worker{Name: "w", Queue: "sim", Slots: 1, Deliver: func(job.Claimed) {}})
		select {
		case <-m.ended:
		case <-time.After(time.Minute):
			t.Error("a minute after its store was damaged, the engine runs on")
			m.stop()
		}
	})
}
