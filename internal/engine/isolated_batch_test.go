package engine_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
)

// isolatingStore rejects the data of one submit, so that its batch is isolated. When that submit
// is alone, applyAlone decides the result.
type isolatingStore struct {
	store.Store
	applyAlone func() (synced func() error, err error)
}

func (p *isolatingStore) Apply(ctx context.Context, b *store.Batch) (func() error, error) {
	for _, op := range b.Submits {
		switch {
		case string(op.Input) != "poison":
		case b.Len() > 1:
			return nil, fmt.Errorf("%w: %w", store.ErrData, store.ErrNotCommitted)
		default:
			return p.applyAlone()
		}
	}
	return p.Store.Apply(ctx, b)
}

// The first part of an isolated batch is stored and the last is not. Each caller gets the
// outcome of its own op, and the engine ends.
func TestIsolatedBatchAnswersEachPart(t *testing.T) {
	t.Parallel()
	for name, alone := range map[string]func() (func() error, error){
		"damaged":  func() (func() error, error) { return nil, store.ErrDamaged },
		"bad sync": func() (func() error, error) { return func() error { return faulty.ErrLost }, nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { testIsolatedBatch(t, alone) })
		})
	}
}

func testIsolatedBatch(t *testing.T, alone func() (func() error, error)) {
	file := newStore(t)
	s := faulty.New(&isolatingStore{file, alone}, faulty.Plan{})
	defer func() { _ = s.Close() }()
	e, err := engine.New(context.Background(), engine.Config{Store: s, Queues: queues()})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- e.Run(context.Background()) }()
	submit := func(id job.ID, input string) error {
		_, _, err := e.Submit(context.Background(), engine.Request{ID: id, Owner: local, Queue: "wide", Input: []byte(input)})
		return err
	}
	waiting := job.NewID()
	if err := submit(waiting, "waits"); err != nil {
		t.Fatal(err)
	}

	gate := make(chan struct{})
	s.Next(faulty.Fault{On: faulty.Op[store.Submit], Before: func() { <-gate }})
	var callers sync.WaitGroup
	callers.Go(func() { _ = submit(job.NewID(), "first") })
	synctest.Wait()
	stored := job.NewID()
	var cancelled, submitted, poison error
	callers.Go(func() { _, cancelled = e.Cancel(context.Background(), local, waiting) })
	callers.Go(func() { submitted = submit(stored, "valid") })
	synctest.Wait()
	callers.Go(func() { poison = submit(job.NewID(), "poison") })
	synctest.Wait()
	close(gate)
	callers.Wait()

	if cancelled != nil || submitted != nil {
		t.Errorf("ops that are on disk were answered %v and %v", cancelled, submitted)
	}
	if job.CodeOf(poison) != job.Unavailable {
		t.Errorf("the op that is not on disk was answered %v", poison)
	}
	if j, err := file.Job(context.Background(), local, waiting); err != nil || j.State != job.Cancelled {
		t.Errorf("the cancelled job is %s, %v", j.State, err)
	}
	if _, err := file.Job(context.Background(), local, stored); err != nil {
		t.Errorf("the submitted job: %v", err)
	}
	if err := <-ended; !errors.Is(err, store.ErrDamaged) && !errors.Is(err, faulty.ErrLost) {
		t.Errorf("the engine ended with %v", err)
	}
}

// If the disk is full for a part of an isolated batch, that part delays the others only for a
// short time. Then it waits like any other op without space.
func TestIsolatedPartOnFullDiskDelaysOthersBriefly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		full := atomic.Bool{}
		s := faulty.New(newStore(t), faulty.Plan{
			Bad: func(op any) bool {
				submit, ok := op.(*store.Submit)
				return ok && string(submit.Input) == "poison"
			},
			Commit: func(_ int, b *store.Batch) (f faulty.Fault) {
				if full.Load() && len(b.Finishes) > 0 {
					f.Step = faulty.DiskFull
				}
				return f
			},
		})
		h := startHarness(t, s)
		h.startWorker(1)
		h.submit(engine.Request{})
		c := <-h.jobs
		submit := func(input string) error {
			_, _, err := h.Submit(context.Background(), engine.Request{Owner: local, Queue: "wide", Input: []byte(input)})
			return err
		}
		gate := make(chan struct{})
		s.Next(faulty.Fault{On: faulty.Op[store.Submit], Before: func() { <-gate }})
		go func() { _ = submit("first") }()
		synctest.Wait()
		finished, poison, valid := make(chan error, 1), make(chan error, 1), make(chan error, 1)
		go func() { _, err := h.Finish(context.Background(), c.Lease(), job.Outcome{}); finished <- err }()
		go func() { poison <- submit("poison") }()
		go func() { valid <- submit("valid") }()
		synctest.Wait()
		full.Store(true)
		close(gate)
		for what, answer := range map[string]chan error{"bad": poison, "valid": valid} {
			select {
			case err := <-answer:
				if err == nil {
					t.Errorf("a %s submit was stored on a full disk", what)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("a %s submit waits for the room that another needs", what)
			}
		}
		full.Store(false)
		if err := <-finished; err != nil {
			t.Errorf("the finish was answered %v once there was room", err)
		}
	})
}

// halfDamagedStore rejects the data of one submit, so that its batch is halved. It reports
// damage when the half with that submit is committed.
type halfDamagedStore struct {
	store.Store
	tries int // number of batches with that submit; owned by the engine's loop
}

func (s *halfDamagedStore) Apply(ctx context.Context, b *store.Batch) (func() error, error) {
	for _, op := range b.Submits {
		if string(op.Input) != "poison" {
			continue
		}
		if s.tries++; s.tries == 1 {
			return nil, fmt.Errorf("%w: %w", store.ErrData, store.ErrNotCommitted)
		}
		return nil, fmt.Errorf("%w: %w", store.ErrDamaged, store.ErrNotCommitted)
	}
	return s.Store.Apply(ctx, b)
}

// The second half of a batch cannot be applied. The jobs of the first half are acknowledged and
// delivered to workers. Then the engine ends, although no further op arrives.
func TestAppliedHalfOfBatchIsAcknowledged(t *testing.T) {
	t.Parallel()
	s := &halfDamagedStore{Store: newStore(t)}
	e, err := engine.New(context.Background(), engine.Config{Store: s, Queues: queues()})
	if err != nil {
		t.Fatal(err)
	}
	delivered := make(chan job.Claimed, 9)
	defer e.Consume(job.Worker{Name: "local", Queue: "wide", Slots: 1, Deliver: func(c job.Claimed) { delivered <- c }})()
	ended := make(chan error, 1)
	go func() { ended <- e.Run(context.Background()) }()
	var list []engine.Request
	for _, input := range []string{"a", "b", "poison", "c"} {
		list = append(list, engine.Request{Owner: local, Queue: "wide", Input: []byte(input)})
	}
	answers, err := e.SubmitMany(t.Context(), list, false)
	if err != nil || len(answers) != 4 {
		t.Fatalf("the batch was answered %v, %v", answers, err)
	}
	for i, want := range []job.Code{"", "", job.Unavailable, job.Unavailable} {
		if job.CodeOf(answers[i].Err) != want {
			t.Errorf("%s was answered %v", list[i].Input, answers[i].Err)
		}
	}
	if c := <-delivered; string(c.Input) != "a" {
		t.Errorf("the worker was given %q", c.Input)
	}
	if err := <-ended; !errors.Is(err, store.ErrDamaged) {
		t.Errorf("the engine ended with %v", err)
	}
	_ = s.Close()
}
