package engine_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
)

// deaf is a bus that loses every notice.
type deaf struct{}

func (deaf) Join(func(bus.Notice)) bus.Member { return deaf{} }
func (deaf) Publish(bus.Notice)               {}
func (deaf) Leave()                           {}

// peers runs a test of two engines on one store, once with a bus between them and once
// with one that loses every notice: then all happens a second later. soon is how soon
// what crosses has to.
func peers(t *testing.T, test func(t *testing.T, a, b *house, soon time.Duration)) {
	for name, c := range map[string]struct {
		bus  bus.Bus
		soon time.Duration
	}{
		"with notices":          {&bus.Local{}, 100 * time.Millisecond},
		"with all notices lost": {deaf{}, within},
		"with notices that are lost, doubled or late": {&faulty.Bus{Inner: &bus.Local{}, LostPercent: 40, DoubledPercent: 30, LatePercent: 50, MaxDelay: 10 * time.Second}, within},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			beside(t, func(t *testing.T, s *shared) {
				q := queues()
				for i := range q {
					q[i].Policy.Timeouts.Abandon = job.MinAbandon
				}
				start := func() *house { return startConfig(t, engine.Config{Store: s, Queues: q, Bus: c.bus}) }
				a, b := start(), start()
				defer a.stop()
				defer b.stop()
				test(t, a, b, c.soon)
			})
		})
	}
}

// viewer is what a watcher has got so far.
type viewer struct {
	t    *testing.T
	w    *engine.Watch
	text string
	last job.State
}

func (h *house) watch(id job.ID) *viewer {
	h.t.Helper()
	w, err := h.Watch(context.Background(), local, id, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	got := &viewer{t: h.t.(*testing.T), w: w}
	got.next(time.Second)
	return got
}

// next takes what comes next, and fails when nothing does for so long.
func (w *viewer) next(soon time.Duration) error {
	w.t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), soon)
	defer stop()
	u, err := w.w.Next(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		w.t.Fatalf("after %q and %s nothing came within %s", w.text, w.last, soon)
	}
	if err == nil {
		w.last = u.Job.State
		for _, e := range u.Entries {
			w.text += string(e.Data)
		}
	}
	return err
}

func (w *viewer) until(soon time.Duration, text string, state job.State) {
	w.t.Helper()
	for w.text != text || w.last != state {
		if err := w.next(soon); err != nil {
			w.t.Fatalf("after %q and %s: %v", w.text, w.last, err)
		}
	}
}

func TestAWatcherFollowsWhatRunsInAnotherProcess(t *testing.T) {
	t.Parallel()
	peers(t, func(t *testing.T, a, b *house, soon time.Duration) {
		snap := a.submit(engine.Request{})
		w := b.watch(snap.ID)
		defer w.w.Close()
		w.until(soon, "", job.Queued)
		a.serve(1)
		c := <-a.jobs
		w.until(soon, "", job.Running)
		said := ""
		for i, piece := range []string{"one ", "two ", "three"} {
			if err := a.Append(t.Context(), c.Lease(), text(int64(i+1), piece), nil); err != nil {
				t.Fatal(err)
			}
			said += piece
			w.until(soon, said, job.Running)
		}
		a.finish(c, job.Outcome{})
		w.until(soon, "one two three", job.Succeeded)
		if err := w.next(soon); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// A request that is held at one process is answered when the job ends at another.
func TestAHeldRequestIsAnsweredByAnEndInAnotherProcess(t *testing.T) {
	t.Parallel()
	peers(t, func(t *testing.T, a, b *house, soon time.Duration) {
		a.serve(1)
		snap := a.submit(engine.Request{})
		c := <-a.jobs
		answer := make(chan engine.Snapshot, 1)
		go func() {
			s, _ := b.Wait(context.Background(), local, snap.ID, time.Minute)
			answer <- s
		}()
		time.Sleep(5 * time.Second)
		a.finish(c, job.Outcome{})
		select {
		case s := <-answer:
			if s.State != job.Succeeded {
				t.Errorf("it is %s", s.State)
			}
		case <-time.After(soon):
			t.Errorf("no answer came within %s", soon)
		}
	})
}

func TestACancelCrossesToTheProcessThatRunsTheJob(t *testing.T) {
	t.Parallel()
	peers(t, func(t *testing.T, a, b *house, soon time.Duration) {
		a.serve(1)
		snap := a.submit(engine.Request{})
		c := <-a.jobs
		w := a.watch(snap.ID)
		defer w.w.Close()
		time.Sleep(5 * time.Second)
		if _, err := b.Cancel(t.Context(), local, snap.ID); err != nil {
			t.Fatal(err)
		}
		a.ordered(job.OrderCancel, soon)
		if state := a.finish(c, job.Outcome{}); state != job.Cancelled {
			t.Errorf("the job ended as %s", state)
		}
		w.until(soon, "", job.Cancelled)
	})
}

func TestADeleteCrossesToTheProcessThatRunsTheJob(t *testing.T) {
	t.Parallel()
	peers(t, func(t *testing.T, a, b *house, soon time.Duration) {
		a.serve(1)
		snap := a.submit(engine.Request{})
		<-a.jobs
		w := a.watch(snap.ID)
		defer w.w.Close()
		time.Sleep(5 * time.Second)
		if err := b.Delete(t.Context(), local, snap.ID); err != nil {
			t.Fatal(err)
		}
		a.ordered(job.OrderCancel, soon)
		for {
			if err := w.next(soon); err != nil {
				if job.CodeOf(err) != job.NotFound {
					t.Errorf("the watcher of a deleted job is told %v", err)
				}
				return
			}
		}
	})
}

// The worker of a lease that another process took is told, and its slot is free.
func TestALeaseTakenByAnotherProcessIsToldOf(t *testing.T) {
	t.Parallel()
	peers(t, func(t *testing.T, a, b *house, soon time.Duration) {
		a.serve(1)
		snap := a.submit(engine.Request{})
		<-a.jobs // and never renewed
		b.serve(1)
		time.Sleep(2 * time.Minute)
		a.ordered(job.OrderLost, soon)
		for range 2 { // both run something now: a's slot is free
			b.submit(engine.Request{})
		}
		got := 0
		for got < 2 {
			select {
			case <-a.jobs:
			case <-b.jobs:
			case <-time.After(time.Minute):
				t.Fatalf("%d of 2 free slots are used after %s was lost", got, snap.ID)
			}
			got++
		}
	})
}

// ordered waits for an order to a worker.
func (h *house) ordered(want job.Order, soon time.Duration) {
	h.t.Helper()
	select {
	case o := <-h.lost:
		if o != want {
			h.t.Errorf("the worker was ordered %v, want %v", o, want)
		}
	case <-time.After(soon):
		h.t.Fatalf("the worker got no order within %s", soon)
	}
}

// Whoever watches at one process, or is present there, keeps a job from being abandoned
// by another; when nobody is left, one of them cancels it.
func TestAPresenceCrosses(t *testing.T) {
	t.Parallel()
	peers(t, func(t *testing.T, a, b *house, _ time.Duration) {
		watched, present := a.submit(engine.Request{}), a.submit(engine.Request{})
		w := b.watch(watched.ID)
		for range 20 {
			time.Sleep(time.Minute)
			if _, err := b.Get(t.Context(), local, present.ID); err != nil {
				t.Fatal(err)
			}
		}
		w.until(within, "", job.Queued)
		for _, id := range []job.ID{watched.ID, present.ID} {
			if s, err := a.store.Job(t.Context(), local, id); err != nil || s.State != job.Queued {
				t.Errorf("a job that someone was seen at is %s, %v", s.State, err)
			}
		}
		w.w.Close()
		time.Sleep(4 * time.Minute)
		for _, id := range []job.ID{watched.ID, present.ID} {
			if s, err := a.store.Job(t.Context(), local, id); err != nil || s.State != job.Cancelled {
				t.Errorf("a job that nobody was seen at for its timeout is %s, %v", s.State, err)
			}
		}
	})
}

// filled fails unless all of a worker's slots that should be free are used at once.
func (h *house) filled(slots int) {
	h.t.Helper()
	for range slots {
		h.submit(engine.Request{})
	}
	for i := range slots {
		select {
		case <-h.jobs:
		case <-time.After(within):
			h.t.Fatalf("of %d slots that should be free %d are used", slots, i)
		}
	}
}

// An attempt that is ended through another process gives its slot back where it ran,
// also when the same process claims the job again before it looks where the job stands.
func TestAJobThatComesBackTakesOneSlot(t *testing.T) {
	t.Parallel()
	peers(t, func(t *testing.T, a, b *house, _ time.Duration) {
		a.serve(3)
		a.submit(engine.Request{})
		c := <-a.jobs
		for range 6 {
			if _, err := b.Finish(t.Context(), c.Lease(), job.Outcome{Released: true}); err != nil {
				t.Fatal(err)
			}
			c = a.gets("handed back through another process")
		}
		a.filled(2)
	})
}

// So does one whose job is gone by the time that anybody looks.
func TestAJobThatIsRemovedElsewhereFreesItsSlot(t *testing.T) {
	t.Parallel()
	peers(t, func(t *testing.T, a, b *house, soon time.Duration) {
		a.serve(1)
		snap := a.submit(engine.Request{})
		c := <-a.jobs
		if err := b.Delete(t.Context(), local, snap.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Finish(t.Context(), c.Lease(), job.Outcome{}); err != nil {
			t.Fatal(err)
		}
		for o := job.OrderCancel; o != job.OrderLost; { // the delete may be seen before the end
			select {
			case o = <-a.lost:
			case <-time.After(soon):
				t.Fatal("the worker never learned that its lease is void")
			}
		}
		a.filled(1)
	})
}

// A lease whose renewal is refused is void, whoever took it: its slot is free at once.
func TestARefusedRenewalFreesTheSlot(t *testing.T) {
	t.Parallel()
	peers(t, func(t *testing.T, a, b *house, _ time.Duration) {
		a.serve(1)
		a.submit(engine.Request{})
		c := <-a.jobs
		if _, err := b.Finish(t.Context(), c.Lease(), job.Outcome{}); err != nil {
			t.Fatal(err)
		}
		if err := a.Renew(t.Context(), []job.Lease{c.Lease()})[0]; job.CodeOf(err) != job.LeaseLost {
			t.Errorf("the renewal of a lease that has ended: %v", err)
		}
		if snap := a.submit(engine.Request{}); snap.State != job.Running {
			t.Errorf("with a free slot a job is %s", snap.State)
		}
	})
}

// What an attempt has said through another process decides what follows its failure.
func TestWhatWasSaidElsewhereCounts(t *testing.T) {
	t.Parallel()
	peers(t, func(t *testing.T, a, b *house, _ time.Duration) {
		p := policy()
		p.Retry.AfterOutput = job.FailAfterOutput
		a.serve(1)
		a.submit(engine.Request{Policy: &p})
		c := <-a.jobs
		if err := b.Append(t.Context(), c.Lease(), text(1, "word"), nil); err != nil {
			t.Fatal(err)
		}
		fault := &job.Fault{Code: "flaky", Message: "it broke", Class: job.Retryable}
		if state := a.finish(c, job.Outcome{Fault: fault}); state != job.Failed {
			t.Errorf("an attempt that had spoken failed, and the job is %s", state)
		}
	})
}

// A job that is to be cancelled already, and is then deleted, is gone to those who follow
// it where it runs.
func TestADeleteAfterACancelCrosses(t *testing.T) {
	t.Parallel()
	peers(t, func(t *testing.T, a, b *house, soon time.Duration) {
		a.serve(1)
		snap := a.submit(engine.Request{})
		<-a.jobs
		w := a.watch(snap.ID)
		defer w.w.Close()
		if _, err := b.Cancel(t.Context(), local, snap.ID); err != nil {
			t.Fatal(err)
		}
		a.ordered(job.OrderCancel, soon)
		time.Sleep(5 * time.Second)
		if err := b.Delete(t.Context(), local, snap.ID); err != nil {
			t.Fatal(err)
		}
		for {
			if err := w.next(soon); err != nil {
				if job.CodeOf(err) != job.NotFound {
					t.Errorf("the follower of a deleted job is told %v", err)
				}
				return
			}
		}
	})
}

// stalled is a store as a process sees it whose writes stand still while its reads go on.
type stalled struct {
	store.Store
	until atomic.Pointer[chan struct{}] // nil while writes go on
}

func (s *stalled) Apply(ctx context.Context, b *store.Batch) (func() error, error) {
	if until := s.until.Load(); until != nil {
		<-*until
	}
	return s.Store.Apply(ctx, b)
}

// A process that only reads cannot know that renewals are not accepted: it writes before
// it takes a lease, and takes none when that was slow.
func TestWritesThatStandStillTakeNoLease(t *testing.T) {
	t.Parallel()
	beside(t, func(t *testing.T, s *shared) {
		b := &bus.Local{}
		view := &stalled{Store: s}
		q := queues()
		q[0].Policy.Timeouts.Lease = 15 * time.Second
		start := func() *house {
			return startConfig(t, engine.Config{Store: view, Queues: q, Bus: b, RenewEvery: 5 * time.Second})
		}
		worker, idle := start(), start()
		defer worker.stop()
		defer idle.stop()
		worker.serve(1)
		worker.submit(engine.Request{})
		c := <-worker.jobs
		renew := func() error { return worker.Renew(context.Background(), []job.Lease{c.Lease()})[0] }
		for range 12 {
			time.Sleep(5 * time.Second)
			if err := renew(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second) // past the look of the retention, which would notice
		until := make(chan struct{})
		view.until.Store(&until)
		time.Sleep(18 * time.Second) // the lease has lapsed
		view.until.Store(nil)
		close(until)
		time.Sleep(4 * time.Second) // the worker asks within an interval
		if err := renew(); err != nil {
			t.Errorf("the renewal after the writes had stood still: %v", err)
		}
		if j, err := s.Job(t.Context(), local, c.Job.ID); err != nil || j.Attempt != 1 || j.State != job.Running {
			t.Errorf("the job of a healthy worker is %s, attempt %d, %v", j.State, j.Attempt, err)
		}
	})
}
