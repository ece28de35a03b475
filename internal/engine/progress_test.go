package engine_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// noticeBound is the maximum time within which a process reacts when no notice is lost.
const noticeBound = 100 * time.Millisecond

// Under all faults of a queue's processes, a runnable job starts within a second while a slot is
// free. It starts at once if no notice is lost and no process dies.
func TestRunnableJobStartsWithinASecond(t *testing.T) {
	t.Parallel()
	for _, seed := range engine.Seeds(t, 8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			withCluster(t, func(t *testing.T, p *cluster) {
				h := newHistory(t, p, seed)
				defer h.close()
				for range 2 + seed%4/3 {
					h.startProcess()
				}
				for range 60 {
					bound := time.Second
					if h.bus.lossPercent.Load() == 0 {
						bound = noticeBound
					}
					h.roomUnreported = false
					if !h.round() || h.roomUnreported {
						bound = time.Second
					}
					h.pending.Wait()
					p.waitForDisk()
					synctest.Wait()
					h.expectProgress(bound)
					h.failOnViolations()
				}
			})
		})
	}
}

// An attempt that ends through another process frees its slot for the next job at once.
func TestSlotFreedByOtherProcessIsFilled(t *testing.T) {
	t.Parallel()
	withCluster(t, func(t *testing.T, p *cluster) {
		between := &bus.Local{}
		a := p.startProcess(t, engine.Config{Queues: queues(), Bus: between})
		b := p.startProcess(t, engine.Config{Queues: queues(), Bus: between})
		defer a.kill()
		defer b.kill()
		jobs := make(chan job.Claimed, 2)
		a.Consume(job.Worker{Name: "w", Queue: "sim", Slots: 1, Deliver: func(c job.Claimed) { jobs <- c }})
		for range 10 { // ten times, so that the periodic poll cannot be the cause
			a.submit(engine.Request{})
			a.submit(engine.Request{})
			for range 2 {
				select {
				case c := <-jobs:
					b.finish(c, job.Outcome{})
				case <-time.After(noticeBound):
					t.Fatalf("%s after the slot was free, it is not filled", noticeBound)
				}
			}
		}
	})
}

// round makes a few random calls at the same time. It returns whether every process kept
// running.
func (h *history) round() (whole bool) {
	whole = true
	for range 1 + h.intn(5) {
		switch n := h.intn(40); {
		case n == 0:
			h.changeLimits()
			whole = false
		case n <= 2:
			whole = !h.restartProcess() && whole
		case n <= 5:
			h.failCommits(h.anyProcess())
		case n == 6:
			h.cluster.stallDisk(time.Duration(h.intn(3000)) * time.Millisecond)
		case n == 7:
			h.toggleWorker(h.anyProcess())
		default:
			h.step()
		}
		if h.intn(3) == 0 {
			time.Sleep(time.Duration(h.intn(300)) * time.Millisecond)
		}
	}
	h.endCancelled()
	if h.intn(10) == 0 {
		time.Sleep(time.Duration(h.intn(10)) * time.Second)
	}
	return whole
}

// toggleWorker makes a worker stop consuming, or start again.
func (h *history) toggleWorker(w *worker) {
	h.mu.Lock()
	serving := w.consuming
	w.consuming = false
	h.mu.Unlock()
	if serving {
		w.stopConsuming()
		return
	}
	h.startWorker(w)
}

// expectProgress reports a violation for each job that is runnable during the whole time bound
// and does not start.
func (h *history) expectProgress(bound time.Duration) {
	h.t.Helper()
	const checks = 5
	runnable := h.runnableJobs()
	for i := 0; i < checks && len(runnable) > 0; i++ {
		time.Sleep(bound/checks + time.Millisecond)
		synctest.Wait()
		now := h.runnableJobs()
		for id := range runnable {
			if now[id] == "" {
				delete(runnable, id)
			}
		}
	}
	for id, why := range runnable {
		h.violation("%s is runnable for %s and does not start: %s", id, bound, why)
	}
}

// runnableJobs returns the jobs that may start now, each with a description of the situation.
func (h *history) runnableJobs() map[job.ID]string {
	ctx := h.t.Context()
	counts, err := h.cluster.Counts(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	c := counts["sim"]
	list := h.unfinishedJobs()
	h.mu.Lock()
	defer h.mu.Unlock()
	free := 0
	maxRunning, keyRunning := h.limitsThatHoldLocked()
	room := map[string]bool{} // whether a process with a free slot has room for a resource
	for _, w := range h.processes {
		if !w.consuming || w.slots <= w.usedSlots {
			continue
		}
		free += w.slots - w.usedSlots
		limits := h.resourceLimits()
		for _, x := range h.attempts {
			if x.w == w {
				limits[x.claim.Job.Resource]--
			}
		}
		for resource, limit := range limits {
			room[resource] = room[resource] || limit > 0
		}
		room[""], room["c"] = true, true
	}
	runnable := map[job.ID]string{}
	if free <= 0 || c.Paused || maxRunning > 0 && int(c.Running) >= maxRunning {
		return runnable
	}
	running, runningSuspects := map[string]int{}, 0
	for _, j := range list.running {
		running[j.Owner.Tenant+"/"+j.Key]++
		if j.Suspect() {
			runningSuspects++
		}
	}
	for _, j := range list.waiting {
		if j.State == job.Queued && !room[j.Resource] {
			running[j.Owner.Tenant+"/"+j.Key]++ // it keeps its place of the key
		}
	}
	now := h.cluster.Now()
	for _, j := range list.waiting {
		switch {
		case !room[j.Resource]:
		case j.RunAt.After(now):
		case j.Suspect() && runningSuspects > 0:
		case j.Key != "" && keyRunning > 0 && running[j.Owner.Tenant+"/"+j.Key] >= keyRunning:
		default:
			runnable[j.ID] = fmt.Sprintf("it is %s, of key %q, needs %q, lost %d times; %d run of %d, %d slots are free, %+v", j.State, j.Key, j.Resource, j.Losses, c.Running, maxRunning, free, c)
		}
	}
	return runnable
}

type unfinished struct{ running, waiting []job.Job }

// unfinishedJobs reads all jobs that have not ended. A job that was deleted while running is
// among the running ones.
func (h *history) unfinishedJobs() (u unfinished) {
	for _, tenant := range []string{"", "a", "b"} {
		for _, state := range []job.State{job.Scheduled, job.Queued, job.Parked} {
			page, _, err := h.cluster.List(h.t.Context(), job.Filter{Owner: job.Owner{Tenant: tenant, User: "u"}, Status: state, Limit: 100})
			if err != nil {
				h.t.Fatal(err)
			}
			u.waiting = append(u.waiting, page...)
		}
	}
	list, err := h.cluster.Running(h.t.Context(), 0, job.ID{}, 500)
	if err != nil {
		h.t.Fatal(err)
	}
	for i := range list {
		u.running = append(u.running, list[i].Job)
	}
	return u
}
