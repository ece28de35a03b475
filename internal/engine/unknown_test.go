package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// forgetful wraps the store at a path, so that syncs can be lost: a batch that will not
// have been applied is applied to a copy.
func forgetful(t *testing.T, s store.Store, path string, p faulty.Plan) *faulty.Store {
	copies := atomic.Int64{}
	p.Copy = func() (store.Store, error) {
		to := fmt.Sprintf("%s.%d.copy", path, copies.Add(1))
		if err := sqlite.Backup(context.Background(), path, to, func(_, _ int64) {}); err != nil {
			return nil, err
		}
		return engine.OpenOutsideBubble(to, sqlite.Options{Unsynced: true, Readers: 1})
	}
	f := faulty.New(s, p)
	t.Cleanup(func() {
		if n := f.OutOfOrder(); n > 0 {
			t.Errorf("%d batches came before others that were in doubt", n)
		}
	})
	return f
}

// Whatever a lost sync leaves in doubt, of two processes on one store: what was answered
// is on disk, what was seen is stored, no job runs twice, and none is left over.
func TestLostSyncsKeepEveryPromise(t *testing.T) {
	t.Parallel()
	for _, seed := range engine.Seeds(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "jobs.db")
			var r *ledger
			synctest.Test(t, func(t *testing.T) {
				s := &shared{Store: openStore(t, path)}
				defer func() { _ = s.Store.Close() }()
				r = newLedger(t, s, path, seed)
				r.work()
			})
			s := openStore(t, path)
			defer func() { _ = s.Close() }()
			r.check(t, s)
		})
	}
}

// ledger is what people were told by two processes.
type ledger struct {
	all []*house
	t   *testing.T

	mu sync.Mutex
	// Guarded by mu.
	stored map[job.ID]bool   // answered as stored
	ended  map[job.ID]bool   // answered as succeeded
	runs   map[job.ID]int    // how often a worker was given it
	seen   map[job.ID]string // by a watcher
}

func newLedger(t *testing.T, s *shared, path string, seed uint64) *ledger {
	r := &ledger{t: t, stored: map[job.ID]bool{}, ended: map[job.ID]bool{}, runs: map[job.ID]int{}, seen: map[job.ID]string{}}
	var notices bus.Local
	for i := range uint64(2) {
		dice := rand.New(rand.NewPCG(seed, i))
		var mu sync.Mutex
		f := forgetful(t, s, path, faulty.Plan{Seed: seed + i, Commit: func(int, *store.Batch) faulty.Fault {
			mu.Lock()
			defer mu.Unlock()
			late := time.Duration(dice.IntN(20)) * time.Millisecond // so that batches are behind
			f := faulty.Fault{After: func() { time.Sleep(late) }}
			switch dice.IntN(12) {
			case 0, 1:
				f.Step = faulty.SyncLostEither
			case 2:
				f.Step = faulty.LostEither
			case 3:
				f.Step = faulty.BeforeCommit
			}
			return f
		}})
		q := queues()
		q[0].MaxDepth = 1000
		r.all = append(r.all, startConfig(t, engine.Config{Store: unclosed{f}, Queues: q, Bus: &notices}))
	}
	return r
}

// While it is not known whether a batch is stored, nobody is told of it, no other is
// applied, and new work is refused. A server that is stopping says after a while that it
// does not know.
func TestNobodyIsToldWhileABatchIsInDoubt(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	synctest.Test(t, func(t *testing.T) {
		losing := atomic.Bool{}
		s := forgetful(t, openStore(t, path), path, faulty.Plan{Commit: func(int, *store.Batch) (f faulty.Fault) {
			if losing.Load() {
				f.Step = faulty.SyncLostBeforeCommit
			}
			return f
		}})
		defer func() { _ = s.Close() }() // and its copy
		h := start(t, unclosed{s})
		h.serve(2)
		first := h.submit(engine.Request{})
		c := <-h.jobs
		w := h.watch(first.ID)
		defer w.w.Close()

		losing.Store(true)
		finished, submitted := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := h.Finish(context.Background(), c.Lease(), job.Outcome{})
			finished <- err
		}()
		time.Sleep(10 * time.Second)
		if _, _, err := h.Submit(context.Background(), engine.Request{Owner: local, Queue: "sim"}); job.CodeOf(err) != job.Unavailable {
			t.Errorf("new work was answered %v", err)
		}
		ctx, stop := context.WithTimeout(context.Background(), time.Second)
		if u, err := w.w.Next(ctx); err == nil {
			t.Errorf("a watcher was told %s", u.Job.State)
		}
		stop()
		select {
		case err := <-finished:
			t.Fatalf("a finish in doubt was answered %v", err)
		default:
		}
		losing.Store(false)
		if err := <-finished; err != nil {
			t.Errorf("the finish was answered %v", err)
		}
		w.until(time.Second, "", job.Succeeded)

		losing.Store(true)
		go func() {
			_, _, err := h.Submit(context.Background(), engine.Request{Owner: local, Queue: "wide"})
			submitted <- err
		}()
		time.Sleep(time.Second)
		h.stop()
		if err := <-submitted; job.CodeOf(err) != job.Unavailable {
			t.Errorf("at the stop a submit in doubt was answered %v", err)
		}
	})
}

// unclosed is a store that the test closes.
type unclosed struct{ store.Store }

func (unclosed) Close() error { return nil }

// work lets clients submit and watch, and workers run, until all is done.
func (r *ledger) work() {
	ctx := context.Background()
	var workers, clients sync.WaitGroup
	for place, h := range r.all {
		h.serve(4)
		for range 4 {
			workers.Go(func() {
				for c := range h.jobs {
					r.run(h, c)
				}
			})
		}
		for n := range 40 {
			clients.Go(func() {
				time.Sleep(time.Duration(n*7) * time.Millisecond)
				req := engine.Request{Owner: local, Queue: "sim", IdempotencyKey: fmt.Sprint(place, n)}
				snap, _, err := h.Submit(ctx, req)
				for job.CodeOf(err) == job.Unavailable {
					time.Sleep(time.Millisecond)
					snap, _, err = h.Submit(ctx, req)
				}
				if err != nil {
					r.t.Errorf("a submit was answered %v", err)
					return
				}
				r.mu.Lock()
				r.stored[snap.ID] = true
				r.mu.Unlock()
				r.follow(r.all[n%2], snap.ID)
			})
		}
	}
	clients.Wait()
	for _, h := range r.all {
		h.stop()
		close(h.jobs)
	}
	workers.Wait()
}

// run does a job as a worker does: what it is not told to be stored it writes again.
func (r *ledger) run(h *house, c job.Claimed) {
	r.mu.Lock()
	r.runs[c.Job.ID]++
	r.mu.Unlock()
	for i := range 3 {
		entries := text(int64(i+1), fmt.Sprintf("%s part %d. ", c.Job.ID, i))
		for {
			err := h.Append(context.Background(), c.Lease(), entries, nil)
			if err == nil {
				break
			}
			if code := job.CodeOf(err); code != job.Unavailable {
				r.t.Errorf("an append was answered %v", err)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	for {
		state, err := h.Finish(context.Background(), c.Lease(), job.Outcome{})
		if err == nil && state == job.Succeeded {
			break
		}
		if job.CodeOf(err) != job.Unavailable {
			r.t.Errorf("a finish was answered %s, %v", state, err)
			return
		}
		time.Sleep(time.Millisecond)
	}
	r.mu.Lock()
	r.ended[c.Job.ID] = true
	r.mu.Unlock()
}

// follow watches a job to its end.
func (r *ledger) follow(h *house, id job.ID) {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	w, err := h.Watch(ctx, local, id, 0)
	if err != nil {
		r.t.Errorf("a job that was answered as stored: %v", err)
		return
	}
	defer w.Close()
	said := ""
	for {
		u, err := w.Next(ctx)
		if err != nil {
			if u.Job != nil || ctx.Err() != nil {
				r.t.Errorf("a watcher got %v", err)
			}
			break
		}
		for _, e := range u.Entries {
			said += string(e.Data)
		}
	}
	r.mu.Lock()
	r.seen[id] = said
	r.mu.Unlock()
}

// check holds what people were told against what is on the disk.
func (r *ledger) check(t *testing.T, s store.Store) {
	if len(r.stored) != 80 || len(r.ended) != 80 {
		t.Errorf("%d jobs were stored and %d ended", len(r.stored), len(r.ended))
	}
	for id := range r.stored {
		j, err := s.Job(t.Context(), local, id)
		if err != nil || j.State != job.Succeeded || j.Attempt != 1 {
			t.Errorf("a job that was stored and ended is %s after %d attempts: %v", j.State, j.Attempt, err)
		}
		if n := r.runs[id]; n != 1 {
			t.Errorf("a job was given out %d times", n)
		}
		_, entries, err := s.Output(t.Context(), local, id, 0, 1<<20)
		said := ""
		for _, e := range entries {
			said += string(e.Data)
		}
		want := ""
		for i := range 3 {
			want += fmt.Sprintf("%s part %d. ", id, i)
		}
		if err != nil || said != want || r.seen[id] != want {
			t.Errorf("a job said %q, its watcher saw %q, and stored is %q: %v", want, r.seen[id], said, err)
		}
	}
	counts, err := s.Counts(t.Context())
	if c := counts["sim"]; err != nil || c.Waiting()+c.Running > 0 || int(c.Succeeded) != len(r.runs) {
		t.Errorf("of %d jobs that ran the store counts %+v: %v", len(r.runs), c, err)
	}
}

// A process whose clock is ahead of the store's asks in vain for what is due, but not as
// fast as it can, and nothing becomes ready before its time.
func TestAClockThatIsAheadMakesNobodySpin(t *testing.T) {
	t.Parallel()
	beside(t, func(t *testing.T, s *shared) {
		ahead := atomic.Int64{}
		clock := func(now time.Time) time.Time { return now.Add(time.Duration(ahead.Load())) }
		a := start(t, unclosed{faulty.New(s, faulty.Plan{Clock: clock})})
		defer a.stop()
		a.serve(1)
		a.submit(engine.Request{Delay: 10 * time.Second})
		began := time.Now()
		ahead.Store(int64(time.Hour))
		before := s.commits.Load()
		time.Sleep(9 * time.Second)
		if n := s.commits.Load() - before; n > 9*time.Second.Milliseconds()/store.ClockTolerance.Milliseconds()+9 {
			t.Errorf("in 9 s a process with a wrong clock made %d commits", n)
		}
		time.Sleep(time.Second)
		a.gets("delayed")
		if took := time.Since(began); took < 10*time.Second || took > 10*time.Second+within {
			t.Errorf("a job that was delayed for 10 s ran after %s", took)
		}
	})
}
