package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Owners take turns: one with many callers delays another by one turn.
func TestListTurnsPassFromOwnerToOwner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := newListTurns()
		turns.free = 1
		busy, other := job.Owner{User: "busy"}, job.Owner{User: "other"}
		if err := turns.take(t.Context(), busy); err != nil {
			t.Fatal(err)
		}
		var order []string
		arrive := func(o job.Owner) {
			go func() {
				if err := turns.take(t.Context(), o); err != nil {
					t.Error(err)
				}
				order = append(order, o.User) // one at a time
				turns.done()
			}()
			synctest.Wait()
		}
		for range 5 {
			arrive(busy)
		}
		arrive(other)
		turns.done()
		synctest.Wait()
		if i := slices.Index(order, "other"); len(order) != 6 || i > 1 {
			t.Errorf("the turns were %v", order)
		}
		if turns.free != 1 || len(turns.waiting)+len(turns.order) != 0 {
			t.Errorf("at the end %d turns are free, and the line is %v", turns.free, turns.order)
		}
	})
}

// A caller that leaves the line frees its place, and its turn if that has just come.
func TestListTurnsForgetCallersThatLeave(t *testing.T) {
	t.Parallel()
	turns := newListTurns()
	turns.free = 0
	owner := job.Owner{User: "u"}
	for range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		go func() { left <- turns.take(ctx, owner) }()
		go turns.done()
		go cancel()
		if err := <-left; err == nil {
			turns.done()
		} else if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		cancel()
		// The turn of this round is free again, or will be.
		if err := turns.take(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
	}
	turns.mu.Lock() // the last pass of a turn may still be running
	defer turns.mu.Unlock()
	if turns.free != 0 || len(turns.waiting)+len(turns.order) != 0 {
		t.Errorf("at the end %d turns are free, and the line is %v", turns.free, turns.order)
	}
}

// The line of an owner is bounded.
func TestListTurnsRefuseLongLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := newListTurns()
		turns.free = 0
		owner := job.Owner{User: "u"}
		ctx, cancel := context.WithCancel(t.Context())
		for range maxOwnerLists {
			go func() { _ = turns.take(ctx, owner) }()
		}
		synctest.Wait()
		if err := turns.take(ctx, owner); job.CodeOf(err) != job.Overloaded {
			t.Errorf("one more is answered %v", err)
		}
		cancel()
		synctest.Wait()
		if len(turns.waiting)+len(turns.order) != 0 {
			t.Errorf("the line is still %v", turns.order)
		}
	})
}

// piecewise is a store whose lists come in short pieces, of which each takes a while.
type piecewise struct {
	store.Store
	pieces int
	takes  time.Duration
	asked  []string // the cursors and limits
}

func (s *piecewise) List(_ context.Context, f job.Filter) (page []job.Job, next job.ID, err error) {
	time.Sleep(s.takes)
	s.asked = append(s.asked, fmt.Sprint(f.After[0], " ", f.Limit))
	if n := f.After[0] + 1; int(n) < s.pieces {
		next[0] = n
	}
	return []job.Job{{}}, next, nil
}

// A list joins pieces until its page is full, the list ends, or its time is over.
func TestListJoinsPieces(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		store piecewise
		limit int
		want  string // what the store was asked
		more  bool
	}{
		"full page":    {piecewise{pieces: 9}, 3, "[0 3 1 2 2 1]", true},
		"end":          {piecewise{pieces: 2}, 3, "[0 3 1 2]", false},
		"slow pieces":  {piecewise{pieces: 9, takes: 20 * time.Millisecond}, 9, "[0 9 1 8 2 7]", true},
		"slower piece": {piecewise{pieces: 9, takes: time.Second}, 9, "[0 9]", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e := &Engine{store: &c.store, listTurns: newListTurns()}
				page, next, err := e.List(t.Context(), job.Filter{Limit: c.limit})
				if asked := fmt.Sprint(c.store.asked); asked != c.want || err != nil || len(page) != len(c.store.asked) || next != (job.ID{}) != c.more {
					t.Errorf("%d jobs, next %s, %v; asked for %s, want %s", len(page), next, err, asked, c.want)
				}
			})
		})
	}
}

// In any order of calls, ends and callers that leave, no turn is lost and none is given twice.
func TestListTurnsLeakNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := newListTurns()
		turns.free = 2
		var all sync.WaitGroup
		var working, left atomic.Int64
		ms := func() time.Duration { return time.Duration(rand.IntN(30)) * time.Millisecond }
		for i := range 400 {
			all.Go(func() {
				time.Sleep(10 * ms())
				ctx, cancel := context.WithTimeout(t.Context(), ms())
				defer cancel()
				if turns.take(ctx, job.Owner{User: fmt.Sprint(i % 5)}) != nil {
					left.Add(1)
					return
				}
				if n := working.Add(1); n > 2 {
					t.Errorf("%d callers work", n)
				}
				time.Sleep(ms() / 10)
				working.Add(-1)
				turns.done()
			})
		}
		all.Wait()
		if turns.free != 2 || len(turns.waiting) > 0 || len(turns.order) > 0 || left.Load() == 0 {
			t.Errorf("at the end %d turns are free, %d owners wait, %d are in order; %d callers left", turns.free, len(turns.waiting), len(turns.order), left.Load())
		}
	})
}
