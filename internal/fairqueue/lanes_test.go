package fairqueue

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// claimed returns, of the next n claims, those of a key.
func (s *fakeStore) claimed(n int, key string) (of []int) {
	for i := range n {
		if w, _ := s.claim(); w.Key == key {
			of = append(of, i)
		}
	}
	return of
}

// A key whose jobs had no room while others were served is next once there is room. After that it
// takes turns: it does not get all the turns that it could not use.
func TestLaneWithoutRoomSavesOneTurn(t *testing.T) {
	t.Parallel()
	for _, waits := range []int{1, 10, 300} {
		s := newFakeStore()
		for range 200 {
			s.submitNeeding("slow", "", "held", 5)
		}
		for range 400 {
			s.submitNeeding("fast", "", "a", 5)
			s.submit("", "b", 5)
		}
		s.room = Room{"slow": 0}
		if got := s.claimed(waits, "held"); len(got) > 0 {
			t.Fatalf("claims without room got %d jobs", len(got))
		}
		s.submitNeeding("slow", "", "new", 5)
		s.room = nil
		if got := s.claimed(30, "held"); got[0] != 0 || len(got) < 9 || len(got) > 11 {
			t.Errorf("after %d claims without its jobs, of 30 claims of three keys %v were of the one that had no room", waits, got)
		}
		if got := s.claimed(10, "new"); len(got) > 0 {
			t.Errorf("the only job of a key, submitted while its lane was held, was claimed after 30 others")
		}
	}
}

// A resource that has room for one job at a time, again and again, saves no turn each time.
func TestLaneThatIsHeldAgainAndAgainTakesTurns(t *testing.T) {
	t.Parallel()
	s := newFakeStore()
	for range 200 {
		s.submitNeeding("slow", "", "held", 5)
	}
	for i := range 2000 {
		s.submit("", fmt.Sprint(i%9), 5)
	}
	n := 0
	for range 100 {
		s.room = Room{"slow": 0}
		s.claim()
		s.room = nil
		n += len(s.claimed(1, "held"))
	}
	if n < 19 || n > 22 {
		t.Errorf("of 200 claims of ten keys, one that often had no room got %d", n)
	}
}

// The jobs of a key for one resource do not wait for its jobs for another one, whether these are
// held or not.
func TestKeysTakeTurnsInEachLane(t *testing.T) {
	t.Parallel()
	for _, room := range []Room{nil, {"slow": 0}} {
		s := newFakeStore()
		for range 1000 {
			s.submitNeeding("slow", "", "a", 5)
			s.submitNeeding("fast", "", "b", 5)
		}
		s.room = room
		s.claimed(10, "a")
		s.submitNeeding("fast", "", "a", 5)
		last := s.n
		for i := 0; ; i++ {
			w, ok := s.claim()
			if w.n == last {
				break
			}
			if !ok || i == 4 {
				t.Fatalf("with the room %v, the only job of a key for a resource waits for more than four claims", room)
			}
		}
	}
}

// A key whose jobs need several resources gets as many turns as one whose jobs need one.
func TestKeyWithSeveralLanesGetsOneShare(t *testing.T) {
	t.Parallel()
	s := newFakeStore()
	for range 300 {
		for _, resource := range []string{"", "x", "y"} {
			s.submitNeeding(resource, "", "three", 5)
		}
		s.submitNeeding("y", "", "one", 5)
	}
	if n := len(s.claimed(200, "three")); n < 98 || n > 103 {
		t.Errorf("of 200 claims of two keys, the one with three resources got %d", n)
	}
}

// After an opening, the backlog of a lane that was held does not go before the jobs of others.
func TestLanesStartTogetherAfterOpening(t *testing.T) {
	t.Parallel()
	s := newFakeStore()
	for range 200 {
		s.submitNeeding("slow", "", "held", 5)
	}
	for range 400 {
		s.submit("", "a", 5)
	}
	s.room = Room{"slow": 0}
	s.claimed(200, "a")
	opened := &fakeStore{Queue: New(), jobs: s.jobs, n: s.n}
	for _, w := range s.jobs[""] {
		opened.Restore(nil, []byte(w.Key), w.Resource, w.State, w.Priority, w.turn, w.RunAt)
		opened.Counts.Move(0, w.State, 0)
	}
	if n := len(opened.claimed(40, "held")); n < 19 || n > 21 {
		t.Errorf("of 40 claims of two keys, the one that had no room got %d", n)
	}
}

// A lane without jobs is forgotten.
func TestLanesWithoutJobsAreForgotten(t *testing.T) {
	t.Parallel()
	s := newFakeStore()
	s.room = Room{}
	for i := range 1000 {
		resource := fmt.Sprint(i)
		s.submitNeeding(resource, "", "k", 5)
		s.submit("", "l", 5)
		s.room[resource] = 0
		s.claim()
		s.room = Room{}
		s.claim()
	}
	if n := len(s.tenant("").lanes); n > 0 {
		t.Errorf("%d lanes without jobs are remembered", n)
	}
}

// Over a long random run, in which resources get and lose room, no key that waits for a resource with
// room is overtaken by more than a bounded number of jobs of another key.
func TestNoKeyIsOvertakenWithoutBound(t *testing.T) {
	t.Parallel()
	seeds, claims := uint64(8), 4000
	if testing.Short() {
		seeds, claims = 2, 1500
	}
	most := 0
	for seed := range seeds {
		most = max(most, overtaken(t, seed, claims))
	}
	t.Logf("a job was overtaken by at most %d jobs of another key", most)
}

// maxOvertaken is for four lanes: a job is at most five turns after the others in its lane, and
// another key has at most six turns in each lane meanwhile, and one that the lane saved.
const maxOvertaken = 4 * 7

// flow is a key in a lane.
type flow struct{ key, resource string }

func overtaken(t *testing.T, seed uint64, claims int) (most int) {
	random := rand.New(rand.NewPCG(seed, 9))
	s := newFakeStore()
	resources := []string{"", "x", "y", "z"}
	s.room = Room{}
	by := map[flow]map[string]int{} // by how many jobs of each key the next job of a flow was overtaken
	queued := map[flow]int{}
	for range claims {
		for len(s.jobs[""]) < 50 || random.IntN(3) == 0 {
			f := flow{fmt.Sprint(random.IntN(6)), resources[random.IntN(4)]}
			burst := 1
			if random.IntN(30) == 0 {
				burst = random.IntN(60)
			}
			if len(s.jobs[""]) > 600 {
				break
			}
			for range burst {
				s.submitNeeding(f.resource, "", f.key, 5)
				queued[f]++
			}
		}
		// A resource is without room for a while, or between two claims.
		for _, r := range resources[1:] {
			switch n := random.IntN(100); {
			case n < 3:
				s.room[r] = 0
			case n < 6:
				delete(s.room, r)
			case n < 30 && r == "z":
				s.room[r] = n % 2
			}
		}
		w, ok := s.claim()
		if !ok {
			continue
		}
		own := flow{w.Key, w.Resource}
		queued[own]--
		delete(by, own)
		for f, n := range queued {
			if n == 0 || f.key == w.Key || !s.room.Has(f.resource) {
				continue
			}
			if by[f] == nil {
				by[f] = map[string]int{}
			}
			by[f][w.Key]++
			if most = max(most, by[f][w.Key]); most > maxOvertaken {
				t.Fatalf("seed %d: a job of %v, which has room, was overtaken by %d jobs of the key %s", seed, f, most, w.Key)
			}
		}
	}
	return most
}
