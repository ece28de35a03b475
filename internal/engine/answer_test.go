package engine_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
)

// Once an op is on disk, its answer is a success, even if the read after the commit finds the
// job deleted or fails.
func TestCommittedOpSucceedsDespiteFailedRead(t *testing.T) {
	t.Parallel()
	keyed := engine.Request{Owner: local, Queue: "sim", IdempotencyKey: "known"}
	fresh := engine.Request{Owner: local, Queue: "sim"}
	submit := func(h *harness, r engine.Request) (engine.Snapshot, error) {
		snap, _, err := h.Submit(t.Context(), r)
		return snap, err
	}
	wait := func(h *harness, r engine.Request, wait time.Duration) (engine.Snapshot, error) {
		snap, _, err := h.SubmitAndWait(t.Context(), r, wait)
		return snap, err
	}
	batch := func(h *harness, list ...engine.Request) (engine.Snapshot, error) {
		out, err := h.SubmitMany(t.Context(), list, false)
		if err != nil {
			return engine.Snapshot{}, err
		}
		for i := range out {
			err = errors.Join(err, out[i].Err)
		}
		return out[0].Snapshot, err
	}
	for name, c := range map[string]struct {
		op func(any) bool
		do func(h *harness, waiting, ended job.ID) (engine.Snapshot, error)
	}{
		"submit":                             {faulty.Op[store.Submit], func(h *harness, _, _ job.ID) (engine.Snapshot, error) { return submit(h, fresh) }},
		"submit of a known key":              {faulty.Op[store.Submit], func(h *harness, _, _ job.ID) (engine.Snapshot, error) { return submit(h, keyed) }},
		"waiting submit":                     {faulty.Op[store.Submit], func(h *harness, _, _ job.ID) (engine.Snapshot, error) { return wait(h, fresh, time.Millisecond) }},
		"waiting submit of a known key":      {faulty.Op[store.Submit], func(h *harness, _, _ job.ID) (engine.Snapshot, error) { return wait(h, keyed, time.Millisecond) }},
		"waiting submit of a known key, 0 s": {faulty.Op[store.Submit], func(h *harness, _, _ job.ID) (engine.Snapshot, error) { return wait(h, keyed, 0) }},
		"batch":                              {faulty.Op[store.Submit], func(h *harness, _, _ job.ID) (engine.Snapshot, error) { return batch(h, keyed, fresh) }},
		"cancel": {faulty.Op[store.Cancel], func(h *harness, waiting, _ job.ID) (engine.Snapshot, error) {
			return h.Cancel(t.Context(), local, waiting)
		}},
		"cancel of an ended job": {faulty.Op[store.Cancel], func(h *harness, _, ended job.ID) (engine.Snapshot, error) { return h.Cancel(t.Context(), local, ended) }},
		"retry":                  {faulty.Op[store.Retry], func(h *harness, _, ended job.ID) (engine.Snapshot, error) { return h.Retry(t.Context(), local, ended) }},
		"pause": {faulty.Op[store.Pause], func(h *harness, waiting, _ job.ID) (engine.Snapshot, error) {
			view, err := h.SetPaused(t.Context(), "sim", true)
			if err == nil && !view.Counts.Paused {
				err = errors.New("the queue is not shown as paused")
			}
			return engine.Snapshot{Job: job.Job{ID: waiting}}, err
		}},
	} {
		for why, failure := range map[string]error{
			"deleted since": job.Errorf(job.NotFound, "there is no such job"),
			"disk":          errors.New("the disk does not answer"),
		} {
			t.Run(name+", "+why, func(t *testing.T) {
				t.Parallel()
				var failing atomic.Bool
				s := faulty.New(newStore(t), faulty.Plan{Read: func(string) error {
					if failing.Load() {
						return failure
					}
					return nil
				}})
				h := startHarness(t, s)
				waiting := h.submit(keyed).ID
				ended := h.submit(engine.Request{}).ID
				if _, err := h.Cancel(t.Context(), local, ended); err != nil {
					t.Fatal(err)
				}
				s.Next(faulty.Fault{On: c.op, After: func() { failing.Store(true) }})
				snap, err := c.do(h, waiting, ended)
				if err != nil || snap.ID == (job.ID{}) {
					t.Errorf("answered with %s, %v", snap.ID, err)
				}
			})
		}
	}
}

// A waiting submit returns the stored job when its caller leaves or its server stops.
func TestCancelledSubmitAndWaitReturnsStoredJob(t *testing.T) {
	t.Parallel()
	ctx, leave := context.WithCancel(t.Context())
	h := startWithConfig(t, engine.Config{Store: newStore(t), Queues: queues(), Observer: &cancelOnSubmit{cancel: leave}})
	h.startWorker(1)
	snap, _, err := h.SubmitAndWait(ctx, engine.Request{Owner: local, Queue: "sim"}, time.Hour)
	if err != nil || snap.State != job.Running {
		t.Errorf("%s, %v", snap.State, err)
	}
}

// cancelOnSubmit is an observer that calls cancel when a submit is answered.
type cancelOnSubmit struct {
	countingObserver
	cancel func()
}

func (l *cancelOnSubmit) OpSettled(lane engine.Lane, _ time.Duration) {
	if lane.String() == "submit" {
		l.cancel()
	}
}

// A submit to a full queue is refused if the job of its idempotency key is deleted meanwhile,
// because the key then has no job.
func TestSubmitWithKeyOfDeletedJobIsRefusedWhenFull(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{}, 1)
	s := faulty.New(newStore(t), faulty.Plan{Read: func(method string) error {
		if method == "Job" && len(gone) > 0 {
			return job.Errorf(job.NotFound, "there is no such job")
		}
		return nil
	}})
	h := startHarness(t, s)
	keyed := engine.Request{Owner: local, Queue: "sim", IdempotencyKey: "known"}
	for _, r := range []engine.Request{keyed, {}, {}} { // fills the queue
		h.submit(r)
	}
	gone <- struct{}{}
	if _, _, err := h.Submit(t.Context(), keyed); job.CodeOf(err) != job.QueueFull {
		t.Error(err)
	}
}
