package fairqueue

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// waiting is a job in the line of its tenant, as a store would keep it.
type waiting struct {
	job.Job
	turn int64
	n    int
}

// sim is a queue and the plainest store for it.
type sim struct {
	*Queue
	line map[string][]waiting
	n    int
}

func newSim() *sim { return &sim{Queue: New(), line: map[string][]waiting{}} }

func (s *sim) submit(tenant, key string, priority int) {
	s.n++
	w := waiting{Job: job.Job{Owner: job.Owner{Tenant: tenant}, Key: key, Priority: priority, RunAt: time.Unix(int64(s.n), 0)}, n: s.n}
	w.State = job.Queued
	w.turn, _ = s.Move(&w.Job, 0)
	line := append(s.line[tenant], w)
	slices.SortFunc(line, func(a, b waiting) int {
		if a.turn != b.turn {
			return int(a.turn - b.turn)
		}
		return a.n - b.n
	})
	s.line[tenant] = line
}

func (s *sim) claim() (w waiting, ok bool) {
	tenant, share := s.NextTenant(nil, 1)
	if share == 0 {
		return w, false
	}
	w = s.line[tenant][0]
	s.line[tenant] = s.line[tenant][1:]
	s.AdvanceTurn(tenant, w.Priority, w.turn)
	w.State = job.Running
	s.Move(&w.Job, job.Queued)
	w.State = job.Succeeded
	s.Move(&w.Job, job.Running)
	return w, true
}

// However tenants, keys and claims mix, a position is the number of claims before.
func TestPositionIsTheNumberOfClaimsBefore(t *testing.T) {
	for seed := range uint64(50) {
		dice := rand.New(rand.NewPCG(seed, 1))
		s := newSim()
		for range 200 {
			s.submit(fmt.Sprint(dice.IntN(5)), fmt.Sprint(dice.IntN(4)), 4+dice.IntN(3))
			if dice.IntN(3) == 0 {
				s.claim()
			}
		}
		all := s.TenantTurns(nil)
		positions := map[int]int{}
		for tenant, line := range s.line {
			for rank := range line {
				positions[line[rank].n] = Position(all, tenant, rank)
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

// Two tenants that always have jobs get the same, whatever number of keys each has and
// however they come.
func TestTenantsThatWaitGetTheSame(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	s := newSim()
	got := map[string]int{}
	s.submit("few", "k", 5)
	for i := range 5000 {
		for range dice.IntN(4) {
			s.submit("many", fmt.Sprint(i, dice.IntN(10_000)), 5)
		}
		for len(s.line["few"]) < 2 {
			s.submit("few", "k", 5)
		}
		for len(s.line["many"]) < 2 {
			s.submit("many", fmt.Sprint(i), 5)
		}
		w, _ := s.claim()
		got[w.Owner.Tenant]++
		if off := got["few"] - got["many"]; off > 1 || off < -1 {
			t.Fatalf("after %d claims one tenant got %d, the other %d", i+1, got["few"], got["many"])
		}
	}
}

// Tenants and keys that have no job any more are forgotten.
func TestTenantsWithoutJobsAreForgotten(t *testing.T) {
	s := newSim()
	for i := range 100_000 {
		s.submit(fmt.Sprint("tenant", i), fmt.Sprint("key", i), 5)
		delete(s.line, fmt.Sprint("tenant", i-1))
		s.claim()
	}
	if n := len(s.tenants); n > 1000 {
		t.Errorf("of 100,000 tenants without jobs %d are remembered", n)
	}
	if n := len(s.ready.seconds); n != 0 {
		t.Errorf("of no waiting job %d seconds are remembered", n)
	}
}

// Of many jobs that come and go in any order the oldest is known to the second.
func TestOldestIsTheLongestWaiting(t *testing.T) {
	dice := rand.New(rand.NewPCG(3, 4))
	q := New()
	var all []job.Job
	for i := range 3000 {
		if len(all) > 0 && dice.IntN(2) == 0 {
			k := dice.IntN(len(all))
			all[k].State = job.Cancelled
			q.Move(&all[k], job.Queued)
			all = slices.Delete(all, k, k+1)
		} else {
			j := job.Job{RunAt: time.UnixMicro(int64(i)*300_000 + dice.Int64N(5_000_000))}
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

// A job that waits for days costs no memory for the seconds that pass meanwhile.
func TestSecondsOfNoJobAreForgotten(t *testing.T) {
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
