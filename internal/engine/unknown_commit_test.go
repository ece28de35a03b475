package engine_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
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

// newSyncLosingStore wraps the store at path so that its syncs can be lost. If a lost sync is
// going to undo a batch, the batch is applied only to a copy of the database.
func newSyncLosingStore(t *testing.T, s store.Store, path string, p faulty.Plan) *faulty.Store {
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

// Two processes on one store lose syncs at random. Everything in an answer is on disk,
// everything that a watcher got is stored, no job runs twice, and every job ends.
func TestPromisesHoldAfterLostSyncs(t *testing.T) {
	t.Parallel()
	for _, seed := range engine.Seeds(t, 5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "jobs.db")
			var r *clientLog
			synctest.Test(t, func(t *testing.T) {
				s := &sharedStore{Store: openStore(t, path)}
				defer func() { _ = s.Store.Close() }()
				r = newClientLog(t, s, path, seed)
				r.runClients()
			})
			s := openStore(t, path)
			defer func() { _ = s.Close() }()
			r.compareWithStore(t, s)
		})
	}
}

// clientLog records the answers of two processes to clients, watchers and workers.
type clientLog struct {
	processes []*harness
	t         *testing.T

	mu sync.Mutex
	// Guarded by mu.
	stored   map[job.ID]bool   // submits that were answered
	finished map[job.ID]bool   // finishes that were answered
	runs     map[job.ID]int    // how many times the job was delivered
	watched  map[job.ID]string // the text that its watcher read
}

func newClientLog(t *testing.T, s *sharedStore, path string, seed uint64) *clientLog {
	r := &clientLog{t: t, stored: map[job.ID]bool{}, finished: map[job.ID]bool{}, runs: map[job.ID]int{}, watched: map[job.ID]string{}}
	var notices bus.Local
	for i := range uint64(2) {
		rng := rand.New(rand.NewPCG(seed, i))
		var mu sync.Mutex
		f := newSyncLosingStore(t, s, path, faulty.Plan{Seed: seed + i, Commit: func(int, *store.Batch) faulty.Fault {
			mu.Lock()
			defer mu.Unlock()
			late := time.Duration(rng.IntN(20)) * time.Millisecond // so that several batches wait for their sync
			f := faulty.Fault{After: func() { time.Sleep(late) }}
			switch rng.IntN(12) {
			case 0, 1:
				f.Step, f.Outdated = faulty.SyncLostEither, rng.IntN(2) == 0
			case 2:
				f.Step = faulty.LostEither
			case 3:
				f.Step = faulty.BeforeCommit
			}
			return f
		}})
		q := queues()
		q[0].MaxDepth = 1000
		r.processes = append(r.processes, startWithConfig(t, engine.Config{Store: f, Queues: q, Bus: &notices}))
	}
	return r
}

// A batch that another process came before is applied again. That is no outage: nothing is refused or
// logged, and no lease gets time.
func TestOutdatedBatchIsNoOutage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	synctest.Test(t, func(t *testing.T) {
		var outdated atomic.Int64
		var log strings.Builder
		s := newSyncLosingStore(t, openStore(t, path), path, faulty.Plan{Commit: func(_ int, b *store.Batch) (f faulty.Fault) {
			if len(b.Submits) > 0 && outdated.Add(1)%2 == 1 {
				f.Step, f.Outdated = faulty.SyncLostBeforeCommit, true
			}
			return f
		}})
		q := queues()
		q[0].MaxDepth = 100
		h := startWithConfig(t, engine.Config{Store: s, Queues: q, Log: slog.New(slog.NewTextHandler(&log, nil))})
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if _, _, err := h.Submit(context.Background(), engine.Request{Owner: local, Queue: "sim"}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if err := h.CheckCapacity("sim", 1); err != nil || h.StoreAway() || log.Len() > 0 {
			t.Errorf("an outage is seen: %v, %v, %s", err, h.StoreAway(), log.String())
		}
		if outdated.Load() < 2 {
			t.Error("no batch was outdated")
		}
	})
}

// While the outcome of a batch is unknown, no caller is answered, no other batch is applied, and
// new work is refused. A server that stops answers after a while that the outcome is unknown.
func TestUncertainBatchIsNotAnswered(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	synctest.Test(t, func(t *testing.T) {
		losingSyncs := atomic.Bool{}
		s := newSyncLosingStore(t, openStore(t, path), path, faulty.Plan{Commit: func(int, *store.Batch) (f faulty.Fault) {
			if losingSyncs.Load() {
				f.Step = faulty.SyncLostBeforeCommit
			}
			return f
		}})
		h := startHarness(t, s)
		h.startWorker(2)
		first := h.submit(engine.Request{})
		c := <-h.jobs
		w := h.startWatch(first.ID)
		defer w.watch.Close()

		losingSyncs.Store(true)
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
		if u, err := w.watch.Next(ctx); err == nil {
			t.Errorf("a watcher got %s", u.Job.State)
		}
		stop()
		select {
		case err := <-finished:
			t.Fatalf("a finish in doubt was answered %v", err)
		default:
		}
		losingSyncs.Store(false)
		if err := <-finished; err != nil {
			t.Errorf("the finish was answered %v", err)
		}
		w.waitFor(time.Second, "", job.Succeeded)

		losingSyncs.Store(true)
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

// runClients runs clients that submit and watch, and workers that run jobs, until all jobs have
// ended.
func (r *clientLog) runClients() {
	ctx := context.Background()
	var workers, clients sync.WaitGroup
	for place, h := range r.processes {
		h.startWorker(4)
		for range 4 {
			workers.Go(func() {
				for c := range h.jobs {
					r.runJob(h, c)
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
				r.watchJob(r.processes[n%2], snap.ID)
			})
		}
	}
	clients.Wait()
	for _, h := range r.processes {
		h.stop()
		close(h.jobs)
	}
	workers.Wait()
}

// runJob runs a job as a worker would. It repeats each write until it is stored.
func (r *clientLog) runJob(h *harness, c job.Claimed) {
	r.mu.Lock()
	r.runs[c.Job.ID]++
	r.mu.Unlock()
	for i := range 3 {
		entries := textEntry(int64(i+1), fmt.Sprintf("%s part %d. ", c.Job.ID, i))
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
	r.finished[c.Job.ID] = true
	r.mu.Unlock()
}

// watchJob watches a job to its end.
func (r *clientLog) watchJob(h *harness, id job.ID) {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	w, err := h.Watch(ctx, local, id, 0)
	if err != nil {
		r.t.Errorf("a job that was answered as stored: %v", err)
		return
	}
	defer w.Close()
	content := ""
	for {
		u, err := w.Next(ctx)
		if err != nil {
			if u.Job != nil || ctx.Err() != nil {
				r.t.Errorf("a watcher got %v", err)
			}
			break
		}
		for _, e := range u.Entries {
			content += string(e.Data)
		}
	}
	r.mu.Lock()
	r.watched[id] = content
	r.mu.Unlock()
}

func (r *clientLog) compareWithStore(t *testing.T, s store.Store) {
	if len(r.stored) != 80 || len(r.finished) != 80 {
		t.Errorf("%d jobs were stored and %d ended", len(r.stored), len(r.finished))
	}
	for id := range r.stored {
		j, err := s.Job(t.Context(), local, id)
		if err != nil || j.State != job.Succeeded || j.Attempt != 1 {
			t.Errorf("a job that was stored and ended is %s after %d attempts: %v", j.State, j.Attempt, err)
		}
		if n := r.runs[id]; n != 1 {
			t.Errorf("a job was delivered %d times", n)
		}
		_, entries, err := s.Output(t.Context(), local, id, 0, 1<<20)
		content := ""
		for _, e := range entries {
			content += string(e.Data)
		}
		want := ""
		for i := range 3 {
			want += fmt.Sprintf("%s part %d. ", id, i)
		}
		if err != nil || content != want || r.watched[id] != want {
			t.Errorf("a job wrote %q, its watcher read %q, and stored is %q: %v", want, r.watched[id], content, err)
		}
	}
	counts, err := s.Counts(t.Context())
	if c := counts["sim"]; err != nil || c.Waiting()+c.Running > 0 || int(c.Succeeded) != len(r.runs) {
		t.Errorf("of %d jobs that ran the store counts %+v: %v", len(r.runs), c, err)
	}
}

// The clock of a process is ahead of the store's. Its reads of due jobs find none, but cause no
// busy loop, and no job becomes due before its time.
func TestFastClockCausesNoBusyLoop(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		ahead := atomic.Int64{}
		clock := func(now time.Time) time.Time { return now.Add(time.Duration(ahead.Load())) }
		a := startHarness(t, faulty.New(s, faulty.Plan{Clock: clock}))
		a.startWorker(1)
		a.submit(engine.Request{Delay: 10 * time.Second})
		began := time.Now()
		ahead.Store(int64(time.Hour))
		before := s.commits.Load()
		time.Sleep(9 * time.Second)
		if n := s.commits.Load() - before; n > 9*time.Second.Milliseconds()/store.ClockTolerance.Milliseconds()+9 {
			t.Errorf("in 9 s a process with a wrong clock made %d commits", n)
		}
		time.Sleep(time.Second)
		a.nextJob("delayed")
		if took := time.Since(began); took < 10*time.Second || took > 10*time.Second+pollBound {
			t.Errorf("a job that was delayed for 10 s ran after %s", took)
		}
	})
}
