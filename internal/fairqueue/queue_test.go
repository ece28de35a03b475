package fairqueue

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// waiting is a queued job with its turn, as a store keeps it.
type waiting struct {
	job.Job
	turn int64
	n    int
}

// fakeStore is a queue with a minimal store.
type fakeStore struct {
	*Queue
	jobs map[string][]waiting
	n    int
	room Room
}

func newFakeStore() *fakeStore { return &fakeStore{Queue: New(), jobs: map[string][]waiting{}} }

func (s *fakeStore) submit(tenant, key string, priority int) {
	s.submitNeeding("", tenant, key, priority)
}

func (s *fakeStore) submitNeeding(resource, tenant, key string, priority int) {
	s.n++
	w := waiting{Job: job.Job{Owner: job.Owner{Tenant: tenant}, Key: key, Resource: resource, Priority: priority, RunAt: time.Unix(int64(s.n), 0)}, n: s.n}
	w.State = job.Queued
	w.turn, _ = s.Move(&w.Job, 0)
	jobs := append(s.jobs[tenant], w)
	slices.SortFunc(jobs, func(a, b waiting) int {
		if a.turn != b.turn {
			return int(a.turn - b.turn)
		}
		return a.n - b.n
	})
	s.jobs[tenant] = jobs
}

func (s *fakeStore) claim() (w waiting, ok bool) {
	tenant, share := s.NextTenant(nil, 1, s.room)
	if share == 0 {
		return w, false
	}
	i, shifts := -1, map[string]int64{}
	for _, c := range s.Claimables(tenant, s.room) {
		shifts[c.Resource] = c.Shift
	}
	for k, next := range s.jobs[tenant] {
		shift, has := shifts[next.Resource]
		if !has {
			continue
		}
		// Among equal turns, the earlier submit is first.
		if next.turn += shift; i < 0 || next.turn < w.turn || next.turn == w.turn && next.n < w.n {
			i, w = k, next
		}
	}
	w = s.jobs[tenant][i]
	s.jobs[tenant] = slices.Delete(s.jobs[tenant], i, i+1)
	s.AdvanceTurn(tenant, w.Resource, w.Priority, w.turn, s.room)
	w.State = job.Running
	s.Move(&w.Job, job.Queued)
	w.State = job.Succeeded
	s.Move(&w.Job, job.Running)
	return w, true
}

// For random tenants, keys and claims, a job's position is the number of claims before it.
func TestPositionCountsEarlierClaims(t *testing.T) {
	t.Parallel()
	seeds := uint64(50)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		random := rand.New(rand.NewPCG(seed, 1))
		s := newFakeStore()
		for range 200 {
			s.submit(fmt.Sprint(random.IntN(5)), fmt.Sprint(random.IntN(4)), 4+random.IntN(3))
			if random.IntN(3) == 0 {
				s.claim()
			}
		}
		all := s.TenantTurns(nil)
		positions := map[int]int{}
		for tenant, jobs := range s.jobs {
			for rank := range jobs {
				positions[jobs[rank].n] = Position(all, tenant, rank)
			}
		}
		for want := 0; ; want++ {
			w, ok := s.claim()
			if !ok {
				break
			}
			if got := positions[w.n]; got != want {
				t.Fatalf("seed %d: the job claimed after %d others has the position %d", seed, want, got)
			}
		}
	}
}

// Two tenants that always have queued jobs get equal shares, regardless of how many keys each
// has.
func TestWaitingTenantsGetEqualShares(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	s := newFakeStore()
	got := map[string]int{}
	s.submit("one key", "k", 5)
	claims := 5000
	if testing.Short() {
		claims = 1000
	}
	for i := range claims {
		for range random.IntN(4) {
			s.submit("many keys", fmt.Sprint(i, random.IntN(10_000)), 5)
		}
		for len(s.jobs["one key"]) < 2 {
			s.submit("one key", "k", 5)
		}
		for len(s.jobs["many keys"]) < 2 {
			s.submit("many keys", fmt.Sprint(i), 5)
		}
		w, _ := s.claim()
		got[w.Owner.Tenant]++
		if off := got["one key"] - got["many keys"]; off > 1 || off < -1 {
			t.Fatalf("after %d claims one tenant got %d, the other %d", i+1, got["one key"], got["many keys"])
		}
	}
}

// Tenants and keys without jobs are removed.
func TestTidyForgetsTenantsWithoutJobs(t *testing.T) {
	t.Parallel()
	s := newFakeStore()
	n := 100_000
	if testing.Short() {
		n = 10_000
	}
	for i := range n {
		s.submit(fmt.Sprint("tenant", i), fmt.Sprint("key", i), 5)
		delete(s.jobs, fmt.Sprint("tenant", i-1))
		s.claim()
	}
	if left := len(s.tenants); left > 1000 {
		t.Errorf("of %d tenants without jobs %d are remembered", n, left)
	}
	if left := len(s.ready.seconds); left != 0 {
		t.Errorf("no job waits, and %d seconds are remembered", left)
	}
}

// Jobs come and go in random order. OldestReady finds the oldest one, to the second.
func TestOldestReadyFindsLongestWaiting(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	q := New()
	var all []job.Job
	for i := range 3000 {
		if len(all) > 0 && random.IntN(2) == 0 {
			k := random.IntN(len(all))
			all[k].State = job.Cancelled
			q.Move(&all[k], job.Queued)
			all = slices.Delete(all, k, k+1)
		} else {
			j := job.Job{RunAt: time.UnixMicro(int64(i)*300_000 + random.Int64N(5_000_000))}
			j.State = job.Queued
			q.Move(&j, 0)
			all = append(all, j)
		}
		if len(all) == 0 {
			if !q.OldestReady().IsZero() {
				t.Fatal("an empty queue has an oldest job")
			}
			continue
		}
		want := slices.MinFunc(all, func(a, b job.Job) int { return a.RunAt.Compare(b.RunAt) }).RunAt
		if got := q.OldestReady(); got.After(want) || want.Sub(got) > 1100*time.Millisecond {
			t.Fatalf("the oldest is of %v, want %v", got, want)
		}
	}
}

// While one job waits for days, the passing seconds use no memory.
func TestReadyTimesForgetsEmptySeconds(t *testing.T) {
	t.Parallel()
	q := New()
	waits := func(at int64) *job.Job { return &job.Job{RunAt: time.Unix(at, 0), State: job.Parked} }
	q.Move(waits(0), 0)
	for at := int64(1); at < 10_000; at++ {
		j := waits(at)
		q.Move(j, 0)
		j.State = job.Cancelled
		q.Move(j, job.Parked)
		if n := len(q.ready.seconds); n > 200 || n != len(q.ready.order) {
			t.Fatalf("%d seconds are remembered, %d in order, after %d", n, len(q.ready.order), at)
		}
	}
	if got := q.OldestReady(); !got.Equal(time.Unix(0, 0)) {
		t.Fatalf("the oldest is of %v", got)
	}
}

// A tenant whose jobs had no room while others were served is next once there is room. After that
// it takes turns: it does not get all the turns that it could not use.
func TestTenantWithoutRoomSavesOneTurn(t *testing.T) {
	t.Parallel()
	s := newFakeStore()
	for range 200 {
		s.submitNeeding("slow", "held", "", 5)
	}
	for _, tenant := range []string{"a", "b"} {
		for range 400 {
			s.submit(tenant, "", 5)
		}
	}
	s.room = Room{"slow": 0}
	for range 300 {
		if w, ok := s.claim(); !ok || w.Resource != "" {
			t.Fatalf("a claim without room got %q, %t", w.Resource, ok)
		}
	}
	s.room = nil
	var held []int
	for i := range 30 {
		if w, _ := s.claim(); w.Resource == "slow" {
			held = append(held, i)
		}
	}
	if len(held) < 9 || len(held) > 12 || held[0] != 0 {
		t.Errorf("of 30 claims of three tenants, %v were of the one that had no room", held)
	}
}
