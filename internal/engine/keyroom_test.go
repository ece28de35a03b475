package engine_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// withKeyLimit runs a test in a bubble with a limit of running jobs of a key. The input of a job
// names its resource.
func withKeyLimit(t *testing.T, limit int, of map[string]int, test func(h *harness, l *limits)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		q := queues()
		q[0].MaxDepth, q[0].KeyRunning = 10_000, limit
		q[0].Resource = func(input []byte) string { return string(input) }
		l := &limits{of: of}
		h := startWithConfig(t, engine.Config{Store: newStore(t), Queues: q, ResourceLimits: l.get})
		h.startWorker(8)
		test(h, l)
		h.stop()
	})
}

func (h *harness) submitKeyed(key, resource string) engine.Snapshot {
	h.t.Helper()
	return h.submit(engine.Request{Key: key, Input: []byte(resource)})
}

// With a limit of one running job of a key, the user's jobs for a busy resource do not hold back
// the user's jobs for an idle one. Each job says what it waits for.
func TestBusyResourceTakesNoPlaceOfKey(t *testing.T) {
	t.Parallel()
	withKeyLimit(t, 1, map[string]int{"slow": 0}, func(h *harness, l *limits) {
		slow, behind := h.submitKeyed("user", "slow"), h.submitKeyed("user", "slow")
		h.wantDelivered("without room")
		h.expectHeldBackBy("without room", slow.ID, job.HeldBackByResource)
		h.expectHeldBackBy("parked behind it", behind.ID, job.HeldBackByResource)
		h.submitKeyed("user", "fast")
		fast := h.wantDelivered("beside the held jobs", "fast")
		plain := h.submitKeyed("user", "")
		h.expectHeldBackBy("while one of the key runs", plain.ID, job.HeldBackByKey)
		l.set("slow", 2)
		h.RoomChanged()
		h.wantDelivered("with room, while one of the key runs")
		h.expectHeldBackBy("with room, while one of the key runs", slow.ID, job.HeldBackByKey)
		h.finish(fast[0], job.Outcome{})
		running := h.wantDelivered("after the end", "slow")
		if running[0].Job.ID != slow.ID {
			t.Errorf("a later job of the key went first")
		}
		h.finish(running[0], job.Outcome{})
		running = h.wantDelivered("after the next end", "slow")
		h.finish(running[0], job.Outcome{})
		h.wantDelivered("at last", "")
	})
}

// Under any order of submits, ends and changed limits, no more jobs of a key run than its limit
// allows, a key with no running job is not held back by a resource that its job does not need, and
// every job runs in the end.
func TestRandomHistoryRespectsKeysAndRoom(t *testing.T) {
	t.Parallel()
	for _, seed := range engine.Seeds(t, 10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			limit := 1 + int(seed%2)
			withKeyLimit(t, limit, map[string]int{"a": 1, "b": 0}, func(h *harness, l *limits) { runKeyRoomHistory(h, l, limit, seed) })
		})
	}
}

func runKeyRoomHistory(h *harness, l *limits, limit int, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 5))
	var running []job.Claimed
	ofKey := func(key string) (n int) {
		for _, c := range running {
			if c.Job.Key == key {
				n++
			}
		}
		return n
	}
	submitted := 0
	end := func() {
		if len(running) > 0 {
			i := rng.IntN(len(running))
			c := running[i]
			running = append(running[:i:i], running[i+1:]...)
			h.finish(c, job.Outcome{Released: rng.IntN(4) == 0 && submitted < 150})
		}
	}
	for step := range 2000 {
		switch {
		case submitted < 150 && rng.IntN(2) == 0:
			h.submitKeyed([]string{"k", "l"}[rng.IntN(2)], []string{"a", "b", "free"}[rng.IntN(3)])
			submitted++
		case submitted < 150 && rng.IntN(5) == 0:
			l.set([]string{"a", "b"}[rng.IntN(2)], rng.IntN(3))
			h.RoomChanged()
		default:
			end()
		}
		if submitted == 150 {
			l.set("a", 2)
			l.set("b", 2)
			h.RoomChanged()
		}
		_, claimed := h.delivered()
		running = append(running, claimed...)
		for _, key := range []string{"k", "l"} {
			if n := ofKey(key); n > limit {
				h.t.Fatalf("step %d: %d jobs of the key %s run, and the limit is %d", step, n, key, limit)
			}
		}
	}
	queues, err := h.Queues(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	ended := int(queues[0].Counts.Succeeded)
	if left := queues[0].Counts.Unfinished(); ended != 150 || left != 0 {
		h.t.Errorf("%d jobs of 150 have ended, %d are left: %+v", ended, left, queues[0].Counts)
	}
}
