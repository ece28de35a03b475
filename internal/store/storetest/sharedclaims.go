package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func sharedClaimRules() []rule {
	return []rule{
		{"claims of one queue at several stores never get the same job", sharedClaimsOnce},
		{"as many jobs of a queue run as its limit allows, never more", sharedRunning},
		{"as many jobs of a key run as its limit allows, never more", sharedKeyRunning},
		{"the limit of a key holds over stores with room for different resources", sharedKeyRoom},
		{"a key whose jobs had no room saves one turn, whichever stores claim", sharedRoomTurns},
		{"one suspect at a time runs, over all stores", sharedSuspects},
		{"no key is overtaken by more jobs than the stores claim in a second", long(sharedTurns)},
		{"each store overshoots the limit of waiting jobs of a key by at most one batch", sharedKeyWaiting},
		{"a claim repeated at another store answers the leases of its tokens", sharedClaimAgain},
		{"a submit with a token at every store makes one job", sharedSubmitAgain},
		{"no store claims from a paused queue", sharedPause},
	}
}

// drainState counts the running jobs while all stores claim and finish.
type drainState struct {
	mu           sync.Mutex
	running      map[string]int // by group
	times        map[job.ID]int // how often each job was claimed
	ended, tries int
}

// drain claims two jobs at a time at every store and finishes them, until all jobs have ended. It
// fails when more jobs of a group run at once than the limit allows, or when a job runs twice.
func (w *harness) drain(jobs, most int, group func(j *job.Job) string, queues ...string) {
	w.Helper()
	d := &drainState{running: map[string]int{}, times: map[job.ID]int{}}
	w.atEveryStore(func(n int) error {
		for d.hasMore(jobs) {
			var claims []any
			for _, q := range queues {
				claims = append(claims, w.newClaim(q, 2))
			}
			b, err := w.tryAt(n, claims...)
			if err != nil {
				return err
			}
			var ends []any
			for _, op := range b.Claims {
				for _, c := range op.Claimed {
					if err := d.begin(group(&c.Job), c.Job.ID, most); err != nil {
						return err
					}
					ends = append(ends, newFinish(c.Lease(), job.Succeeded))
				}
			}
			d.end(b, group)
			b, err = w.tryAt(n, ends...)
			for _, f := range b.Finishes {
				err = errors.Join(err, f.Err)
			}
			if err != nil {
				return err
			}
			d.ends(len(ends))
		}
		return nil
	})
	wantEqual(w, "the jobs that ended", d.ended, jobs)
}

// hasMore reports whether jobs are left to claim. It gives up after a bound, in case the store
// lost a job.
func (d *drainState) hasMore(jobs int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tries++
	return d.ended < jobs && d.tries < 20_000
}

func (d *drainState) begin(group string, id job.ID, most int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.times[id]++
	d.running[group]++
	switch {
	case d.times[id] > 1:
		return fmt.Errorf("a job was claimed twice: %s", id)
	case most > 0 && d.running[group] > most:
		return fmt.Errorf("%d jobs of %q run at once, the limit is %d", d.running[group], group, most)
	}
	return nil
}

// end no longer counts jobs as running. It is called before their ends are committed.
func (d *drainState) end(claimed *store.Batch, group func(j *job.Job) string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, op := range claimed.Claims {
		for _, c := range op.Claimed {
			d.running[group(&c.Job)]--
		}
	}
}

func (d *drainState) ends(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended += n
}

func byQueue(j *job.Job) string  { return j.Queue }
func byKey(j *job.Job) string    { return j.Key }
func inOneGroup(*job.Job) string { return "all" }

func sharedClaimsOnce(w *harness) {
	for k := range 8 {
		w.submitMany(10, withKey(fmt.Sprint(k)))
	}
	w.drain(80, 0, byQueue, queue)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Succeeded: 80})
}

func sharedRoomTurns(w *harness) {
	w.holdBacklog()
	w.wantTurnsOfHeld(func(n int) []job.Claimed {
		claim := w.newClaim(queue, 1)
		if err := w.commitAt(n%2, batchOf(claim)); err != nil {
			w.Fatalf("%v", err)
		}
		return claim.Claimed
	})
}

func sharedRunning(w *harness) {
	const most = 3
	w.setLimits(queue, job.Limits{Running: most})
	w.submitMany(40)
	w.drain(40, most, byQueue, queue)
	for round := range rounds {
		w.submitMany(5)
		ops := w.forEach(func() any {
			return []any{w.newClaim(queue, 2), w.newSubmit(leasedAs(w.token()))}
		})
		w.race(round, ops...)
		running := w.listRunning(store.AllRunning)
		wantEqual(w, "the running jobs", len(running), most)
		wantEqual(w, "the jobs counted as running", w.counts(queue).Running, most)
		var ends []any
		for _, r := range running {
			ends = append(ends, newFinish(job.Lease{Job: r.Job.ID, Token: r.Token}, job.Succeeded))
		}
		w.do(ends...)
	}
}

// forEach makes an op, or a list of them, for each store.
func (w *harness) forEach(op func() any) (ops []any) {
	for range w.stores {
		ops = append(ops, op())
	}
	return ops
}

func sharedKeyRunning(w *harness) {
	const most = 2
	w.setLimits(queue, job.Limits{KeyRunning: most})
	for range 10 {
		w.submitMany(2, withKey("k"))
		w.submitMany(2, withKey("l"))
	}
	w.drain(40, most, byKey, queue)
	for round := range rounds {
		w.race(round, w.forEach(func() any {
			return []any{w.newSubmit(leasedAs(w.token())), w.newSubmit(), w.newClaim(queue, 3)}
		})...)
		running := w.listRunning(store.AllRunning)
		wantEqual(w, "the running jobs of a key", len(running), most)
		var ends []any
		for _, j := range w.listAll(job.Filter{Owner: mine, Queue: queue}) {
			if !j.State.Ended() {
				ends = append(ends, newCancel(j.ID))
			}
		}
		for _, r := range running {
			ends = append(ends, newFinish(job.Lease{Job: r.Job.ID, Token: r.Token}, job.Cancelled))
		}
		w.do(ends...) // the ends apply first; the jobs that they unpark are cancelled too
		wantEqual(w, "the jobs left", w.counts(queue).Unfinished(), 0)
	}
}

func sharedSuspects(w *harness) {
	w.newSuspects("a", 4)
	w.newSuspects("b", 3)
	w.drain(7, 1, inOneGroup, "a", "b")
}

func sharedTurns(w *harness) {
	const keys, each, claims = 5, 12, 2
	for k := range keys {
		w.submitMany(each, withKey(fmt.Sprint(k)))
	}
	claimed := map[string]int{}
	for round := 0; len(claimed) == 0 || slices.Max(values(claimed)) < each; round++ {
		var ops []any
		for range w.stores {
			ops = append(ops, w.newClaim(queue, claims))
		}
		for _, b := range w.race(round, ops...) {
			for _, c := range b.Claims[0].Claimed {
				claimed[c.Job.Key]++
			}
		}
		if len(claimed) < keys && round > keys*len(w.stores)*claims {
			w.Fatalf("of %d keys only %v were claimed from", keys, claimed)
		}
		for k := range keys {
			ahead := slices.Max(values(claimed)) - claimed[fmt.Sprint(k)]
			if bound := 1 + len(w.stores)*claims; ahead > bound {
				w.Fatalf("a waiting key was overtaken %d times, more than the %d claims of a second", ahead, bound-1)
			}
		}
		w.advance(time.Second)
	}
}

func values(m map[string]int) (all []int) {
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

func sharedKeyWaiting(w *harness) {
	const most, batch = 3, 2
	w.setLimits(queue, job.Limits{KeyWaiting: most})
	for round := range rounds {
		key := withKey(fmt.Sprint(round))
		for range 3 {
			w.race(round, w.forEach(func() any { return []any{w.newSubmit(key), w.newSubmit(key)} })...)
		}
		waiting := 0
		for _, j := range w.listAll(job.Filter{Owner: mine, Queue: queue}) {
			if j.Key == fmt.Sprint(round) {
				waiting++
			}
		}
		if waiting < most || waiting > most+batch*len(w.stores) {
			w.Errorf("%d jobs of a key wait, the limit is %d", waiting, most)
		}
		w.advance(time.Second)
		w.eachStore(func() { w.mustRefuse(job.KeyFull, w.newSubmit(key)) })
	}
}

// leasesOf is the text of the answers to a claim, in the order of its tokens.
func leasesOf(op *store.Claim) string {
	var all []string
	for _, c := range op.Claimed {
		all = append(all, fmt.Sprintf("%s holds %s %q until %s", c.Token, text(c.Job), c.Input, c.Until.UTC()))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func sharedClaimAgain(w *harness) {
	for round := range rounds {
		ids := w.submitMany(3, withInput("in"))
		first := w.newClaim(queue, 2)
		var ops []any
		for range w.stores {
			ops = append(ops, freshOp(first))
		}
		w.race(round, ops...)
		w.eachStore(func() { // once more after all rounds
			again := freshOp(first).(*store.Claim)
			w.do(again)
			ops = append(ops, again)
		})
		for _, op := range ops {
			claim := op.(*store.Claim)
			wantEqual(w, "the jobs claimed", len(claim.Claimed), 2)
			wantEqual(w, "the leases", leasesOf(claim), leasesOf(ops[0].(*store.Claim)))
		}
		wantEqual(w, "the running jobs", w.counts(queue).Running, 2)
		for _, c := range ops[0].(*store.Claim).Claimed {
			w.do(newFinish(c.Lease(), job.Succeeded))
		}
		w.do(newCancel(ids[0]), newCancel(ids[1]), newCancel(ids[2]))
	}
}

func sharedSubmitAgain(w *harness) {
	for round := range rounds {
		first := w.newSubmit(leasedAs(w.token()))
		var ops []any
		for range w.stores {
			ops = append(ops, freshOp(first))
		}
		w.race(round, ops...)
		for _, op := range ops {
			s := op.(*store.Submit)
			wantEqual(w, "the answer to a repeated submit", s.Err, nil)
			wantEqual(w, "the job that it answers", text(s.Job), text(ops[0].(*store.Submit).Job))
		}
		wantEqual(w, "the counts", w.counts(queue), job.Counts{Running: 1, Succeeded: int64(round)})
		w.do(newFinish(job.Lease{Job: first.Job.ID, Token: first.Token}, job.Succeeded))
	}
}

func sharedPause(w *harness) {
	for round := range rounds {
		ids := w.submitMany(2)
		claim := w.newClaim(queue, 1)
		w.race(round, newPause(queue, true), claim)
		running := w.counts(queue).Running
		wantEqual(w, "the running jobs after a concurrent pause", running, int64(len(claim.Claimed)))
		w.eachStore(func() {
			wantEqual(w, "the jobs claimed of a paused queue", len(w.claim(queue, 2)), 0)
			s := w.newSubmit(leasedAs(w.token()))
			w.do(s)
			wantEqual(w, "the state of a submit to a paused queue", s.Job.State, job.Queued)
			w.do(newCancel(s.Job.ID))
		})
		w.use(len(w.stores) - 1)
		w.do(newPause(queue, false))
		w.use(0)
		for _, c := range append(claim.Claimed, w.claim(queue, 2)...) {
			w.do(newFinish(c.Lease(), job.Succeeded))
		}
		w.wantStates("after the pause", job.Succeeded, ids...)
	}
}
