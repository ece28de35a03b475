package engine_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
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

// limits are the limits of resources, which a test changes.
type limits struct {
	asked atomic.Int64 // how often the engine has asked for them

	mu sync.Mutex
	of map[string]int // guarded by mu
}

func (l *limits) get() map[string]int {
	l.asked.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.of)
}

func (l *limits) set(resource string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of[resource] = n
}

// withResources runs a test in a bubble. The input of a job names its resource.
func withResources(t *testing.T, of map[string]int, slots int, test func(h *harness, l *limits)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		q := queues()
		for i := range q {
			q[i].MaxDepth = 10_000
			q[i].Resource = func(input []byte) string { return string(input) }
		}
		l := &limits{of: of}
		h := startWithConfig(t, engine.Config{Store: newStore(t), Queues: q, ResourceLimits: l.get})
		h.startWorker(slots)
		test(h, l)
		h.stop()
	})
}

func (h *harness) submitNeeding(resource string, n int) (last engine.Snapshot) {
	h.t.Helper()
	for range n {
		last = h.submit(engine.Request{Input: []byte(resource)})
	}
	return last
}

// delivered returns the resources of the jobs that the worker has received, sorted.
func (h *harness) delivered() (list []string, claimed []job.Claimed) {
	synctest.Wait()
	for len(h.jobs) > 0 {
		c := <-h.jobs
		list, claimed = append(list, c.Job.Resource), append(claimed, c)
	}
	slices.Sort(list)
	return list, claimed
}

func (h *harness) wantDelivered(when string, want ...string) []job.Claimed {
	h.t.Helper()
	got, claimed := h.delivered()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		h.t.Fatalf("%s: jobs of %v were delivered, want %v", when, got, want)
	}
	return claimed
}

// Jobs whose resource has no room hold no slot: a job of an idle resource starts at once behind
// hundreds of them. The end of a job lets the next one of its resource start.
func TestIdleResourceStartsBehindBusyOne(t *testing.T) {
	t.Parallel()
	withResources(t, map[string]int{"slow": 2}, 8, func(h *harness, _ *limits) {
		h.submitNeeding("slow", 300)
		slow := h.wantDelivered("at first", "slow", "slow")
		began := time.Now()
		h.submitNeeding("fast", 1)
		h.wantDelivered("behind 298 others", "fast")
		if waited := time.Since(began); waited != 0 {
			t.Errorf("the fast job waited for %s", waited)
		}
		for range 5 {
			h.finish(slow[0], job.Outcome{})
			slow = append(slow[1:], h.wantDelivered("after an end", "slow")...)
		}
		h.finish(slow[0], job.Outcome{Fault: &job.Fault{Code: "x", Class: job.Retryable}})
		h.wantDelivered("after a failure", "slow")
	})
}

// A held job says why it waits. It is cancelled like any job that waits, and no attempt counts.
func TestHeldJobReportsResource(t *testing.T) {
	t.Parallel()
	withResources(t, map[string]int{"slow": 0}, 8, func(h *harness, l *limits) {
		held := h.submitNeeding("slow", 1)
		h.wantDelivered("without room")
		h.expectHeldBackBy("without room", held.ID, job.HeldBackByResource)
		h.expectQueueHeldBackBy("without room", job.HeldBackByResource)
		snap, err := h.Cancel(context.Background(), local, held.ID)
		if err != nil || snap.State != job.Cancelled || snap.Attempt != 0 {
			t.Fatalf("the cancelled job is %s after %d attempts: %v", snap.State, snap.Attempt, err)
		}
		h.submitNeeding("slow", 1)
		l.set("slow", 1)
		h.RoomChanged()
		c := h.wantDelivered("with room", "slow")
		h.expectHeldBackBy("it runs", c[0].Job.ID, "")
		if c[0].Job.Attempt != 1 {
			t.Errorf("the first attempt is %d", c[0].Job.Attempt)
		}
	})
}

// Without a call of RoomChanged a risen limit is noticed within a second.
func TestRoomIsNoticedWithinASecond(t *testing.T) {
	t.Parallel()
	withResources(t, map[string]int{"slow": 0}, 8, func(h *harness, l *limits) {
		h.submitNeeding("slow", 1)
		h.wantDelivered("without room")
		l.set("slow", 1)
		time.Sleep(time.Second)
		h.wantDelivered("a second later", "slow")
	})
}

// The room of a resource is shared by all queues, and by submits that are leased at once.
func TestQueuesShareRoom(t *testing.T) {
	t.Parallel()
	withResources(t, map[string]int{"m": 3}, 8, func(h *harness, _ *limits) {
		defer h.Consume(job.Worker{Name: "local", Queue: "wide", Slots: 8, Deliver: func(c job.Claimed) { h.jobs <- c }})()
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				_, _, err := h.Submit(context.Background(), engine.Request{Owner: local, Queue: []string{"sim", "wide"}[i%2], Input: []byte("m")})
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		running := h.wantDelivered("at first", "m", "m", "m")
		for range 17 {
			h.finish(running[0], job.Outcome{})
			running = append(running[1:], h.wantDelivered("after an end", "m")...)
		}
	})
}

// Held jobs cause no busy loop: while nothing changes, only the periodic reads look for room, a
// few times a second.
func TestHeldJobsCauseNoBusyLoop(t *testing.T) {
	t.Parallel()
	withResources(t, map[string]int{"slow": 0}, 8, func(h *harness, l *limits) {
		h.submitNeeding("slow", 50)
		before := l.asked.Load()
		time.Sleep(20 * time.Second)
		if n := l.asked.Load() - before; n > 100 {
			t.Errorf("in 20 s the engine made %d batches", n)
		}
		h.wantDelivered("without room")
	})
}

// Under any order of ends, failures, releases, cancels and changed limits, the held jobs never
// exceed a limit, and every job runs in the end.
func TestRandomHistoryRespectsRoom(t *testing.T) {
	t.Parallel()
	for _, seed := range engine.Seeds(t, 20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			withResources(t, map[string]int{"a": 1, "b": 3}, 6, func(h *harness, l *limits) { runRoomHistory(h, l, seed) })
		})
	}
}

func runRoomHistory(h *harness, l *limits, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	running := map[string][]job.Claimed{}
	receive := func() {
		_, claimed := h.delivered()
		for _, c := range claimed {
			running[c.Job.Resource] = append(running[c.Job.Resource], c)
		}
		for resource, limit := range l.get() {
			// A limit that falls stops no running job, so only a risen or equal limit is exact.
			if len(claimed) > 0 && len(running[resource]) > limit && slices.ContainsFunc(claimed, func(c job.Claimed) bool { return c.Job.Resource == resource }) {
				h.t.Fatalf("%d jobs of %s run, and the limit is %d", len(running[resource]), resource, limit)
			}
		}
	}
	end := func(resource string) {
		all := running[resource]
		if len(all) == 0 {
			return
		}
		c := all[0]
		running[resource] = all[1:]
		outcomes := []job.Outcome{{}, {Released: true}, {Fault: &job.Fault{Code: "x", Class: job.Wait}}}
		h.finish(c, outcomes[rng.IntN(len(outcomes))])
	}
	var waiting []job.ID
	for range 200 {
		switch resource := []string{"a", "b", "free", ""}[rng.IntN(4)]; rng.IntN(6) {
		case 0, 1:
			waiting = append(waiting, h.submitNeeding(resource, 1+rng.IntN(3)).ID)
		case 2, 3:
			end(resource)
		case 4:
			l.set([]string{"a", "b"}[rng.IntN(2)], rng.IntN(4))
			h.RoomChanged()
		case 5:
			if len(waiting) > 0 && rng.IntN(3) == 0 {
				id := waiting[len(waiting)-1]
				if snap, err := h.Get(context.Background(), local, id); err == nil && snap.State.Waiting() {
					_, _ = h.Cancel(context.Background(), local, id)
				}
			}
			time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond)
		}
		receive()
	}
	l.set("a", 1)
	l.set("b", 1)
	h.RoomChanged()
	for range 2000 {
		for _, resource := range []string{"a", "b", "free", ""} {
			for len(running[resource]) > 0 {
				c := running[resource][0]
				running[resource] = running[resource][1:]
				h.finish(c, job.Outcome{})
			}
		}
		time.Sleep(50 * time.Millisecond)
		receive()
	}
	queues, err := h.Queues(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, q := range queues {
		if n := q.Counts.Unfinished(); n > 0 {
			h.t.Errorf("%d jobs of %s never ran: %+v", n, q.Name, q.Counts)
		}
	}
}

// The halves of a batch with bad data share the room of its resources.
func TestIsolatedBatchRespectsRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := queues()
		q[0].MaxDepth, q[0].Resource = 100, func(input []byte) string { return string(input) }
		l := &limits{of: map[string]int{"m": 0}}
		bad := func(op any) bool {
			s, ok := op.(*store.Submit)
			return ok && string(s.Input) == "bad"
		}
		h := startWithConfig(t, engine.Config{Store: faulty.New(newStore(t), faulty.Plan{Bad: bad}), Queues: q, ResourceLimits: l.get})
		for range 3 { // each makes a claim of its own
			h.startWorker(1)
		}
		h.submitNeeding("m", 3)
		l.set("m", 1)
		if _, _, err := h.Submit(t.Context(), engine.Request{Owner: local, Queue: "sim", Input: []byte("bad")}); job.CodeOf(err) != job.Invalid {
			t.Fatalf("bad data: %v", err)
		}
		h.wantDelivered("with the halves", "m")
		h.stop()
	})
}

// The end of an attempt through another process frees the room of its resource as soon as this
// process learns of it.
func TestLostLeaseFreesRoomAtOnce(t *testing.T) {
	t.Parallel()
	withResources(t, map[string]int{"m": 1}, 8, func(h *harness, _ *limits) {
		h.submitNeeding("m", 2)
		c := h.wantDelivered("at first", "m")[0]
		b := store.NewBatch()
		b.Add(&store.Finish{Lease: c.Lease(), To: job.Succeeded})
		synced, err := h.store.Apply(h.t.Context(), b)
		if err == nil {
			err = synced()
		}
		if err != nil {
			h.t.Fatal(err)
		}
		h.wantDelivered("before the process knows")
		if err := h.Renew(h.t.Context(), []job.Lease{c.Lease()})[0]; job.CodeOf(err) != job.LeaseLost {
			h.t.Fatalf("the renewal: %v", err)
		}
		h.wantDelivered("after the renewal", "m")
	})
}

// Jobs that waited for a resource survive a restart with it. Those whose resource is not limited
// any more, because its model was removed or renamed, run at once: their executor says what is
// wrong with them.
func TestHeldJobsAfterRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jobs.db")
		start := func(of map[string]int) *harness {
			q := queues()
			q[0].MaxDepth, q[0].Resource = 100, func(input []byte) string { return string(input) }
			h := startWithConfig(t, engine.Config{Store: openUnsynced(t, path), Queues: q, ResourceLimits: (&limits{of: of}).get})
			h.startWorker(8)
			return h
		}
		h := start(map[string]int{"kept": 0, "removed": 0})
		h.submitNeeding("kept", 3)
		h.submitNeeding("removed", 2)
		h.wantDelivered("without room")
		h.stop()
		h = start(map[string]int{"kept": 1, "renamed": 0})
		for _, c := range h.wantDelivered("after the restart", "kept", "removed", "removed") {
			h.finish(c, job.Outcome{})
		}
		h.wantDelivered("after an end", "kept")
		h.stop()
	})
}
