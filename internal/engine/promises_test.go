package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
)

// The promises hold in random histories with restarts, failed commits, lost answers, a
// disk that stalls or cannot be read, and clocks that jump.
func TestPromisesHoldInEveryHistory(t *testing.T) {
	t.Parallel()
	for _, seed := range engine.Seeds(t, 8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			withCluster(t, func(t *testing.T, p *cluster) {
				a := &promiseRun{history: newHistory(t, p, seed), killProcesses: seed%2 == 0}
				defer a.close()
				for range 2 + seed%4/3 {
					a.startProcess()
				}
				for range 40 {
					a.faultyRound()
					a.failOnViolations()
				}
				a.finishAll()
				a.failOnViolations()
				a.audit()
				a.failOnViolations()
			})
		})
	}
}

// promiseRun is a history whose promises are checked at the end.
type promiseRun struct {
	*history
	killProcesses bool // whether processes are killed
	watchers      []*jobView
}

// jobView is the view that one watcher has of a job. The watcher's goroutine owns it until done
// is closed.
type jobView struct {
	w       *worker
	job     *knownJob
	content map[int64]string
	last    job.State
	end     error
	done    chan struct{}
}

// faultyRound makes a few random calls at the same time, with more faults of disk and clock than
// history.round.
func (a *promiseRun) faultyRound() {
	for range 1 + a.intn(6) {
		w := a.anyProcess()
		switch n := a.intn(60); {
		case n <= 2 && a.killProcesses:
			a.restartProcess()
		case n <= 6:
			a.failCommits(w)
		case n == 7:
			d := time.Duration(a.intn(15_000)) * time.Millisecond
			a.note("the disk stalls for %s", d)
			a.cluster.stallDisk(d)
		case n == 8: // so short that healthy workers can still renew
			d := time.Duration(a.intn(1900)) * time.Millisecond
			a.failNextCommits(w, fmt.Sprint("a sync takes ", d), faulty.Fault{After: func() { time.Sleep(d) }})
		case n == 9:
			a.note("%x cannot read", w.id[:2])
			w.link.unreadableUntil.Store(time.Now().Add(time.Duration(a.intn(10_000)) * time.Millisecond).UnixNano())
		case n <= 11:
			a.note("%x: its clock jumps", w.id[:2])
			w.link.clockAhead.Store(int64(a.intn(40_000)-20_000) * int64(time.Millisecond))
		case n == 12 && a.killProcesses: // a failed sync ends the process; its data may be on disk or not
			a.failNextCommits(w, "the sync fails", faulty.Fault{Step: faulty.BadSync})
		case n <= 20:
			if x := a.anyJob(); x != nil {
				a.watchJob(w, x)
			}
		case n <= 23:
			a.useVoidLease(w)
		default:
			a.step()
		}
		if a.intn(3) == 0 {
			time.Sleep(time.Duration(a.intn(300)) * time.Millisecond)
		}
	}
	a.endCancelled()
	time.Sleep(time.Duration(a.intn(3)*a.intn(1500)) * time.Millisecond)
	a.replaceEnded()
}

// replaceEnded starts a new process for each one that ended by itself.
func (a *promiseRun) replaceEnded() {
	for i := 0; i < len(a.processes); i++ {
		select {
		case <-a.processes[i].ended:
			a.endProcess(i, true)
			a.startProcess()
			i = -1
		default:
		}
	}
}

// watchJob watches a job to its end.
func (a *promiseRun) watchJob(w *worker, x *knownJob) {
	v := &jobView{w: w, job: x, content: map[int64]string{}, done: make(chan struct{})}
	a.watchers = append(a.watchers, v)
	go func() {
		defer close(v.done)
		var at *engine.Watch
		if at, v.end = w.Watch(a.ctx, x.owner, x.id, 0); v.end != nil {
			return
		}
		defer at.Close()
		ctx, stop := context.WithCancel(a.ctx)
		defer stop()
		go func() {
			select {
			case <-w.ended:
				stop()
			case <-ctx.Done():
			}
		}()
		for {
			u, err := at.Next(ctx)
			if v.end = err; err != nil {
				return
			}
			v.last = u.Job.State
			for _, e := range u.Entries {
				if _, again := v.content[e.Seq]; again {
					a.violation("a watcher saw entry %d of %s twice", e.Seq, x.id)
				}
				v.content[e.Seq] = string(e.Data)
			}
		}
	}()
}

// useVoidLease makes a call with a void lease.
func (a *promiseRun) useVoidLease(w *worker) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.voidLeases) == 0 {
		return
	}
	l := a.voidLeases[a.intn(len(a.voidLeases))]
	how := a.intn(3)
	a.async(func() {
		var err error
		switch how {
		case 0:
			err = w.Renew(a.ctx, []job.Lease{l})[0]
		case 1:
			err = w.Append(a.ctx, l, []job.Entry{{Seq: 1, Attempt: 1, Kind: job.KindText, Data: []byte("stale")}}, nil)
		default:
			_, err = w.Finish(a.ctx, l, job.Outcome{})
		}
		if err == nil {
			a.violation("a void lease on %s was accepted", l.Job)
		}
	})
}

// finishAll stops all faults and runs workers until every job has ended.
func (a *promiseRun) finishAll() {
	a.pending.Wait()
	time.Sleep(time.Second)
	a.replaceEnded()
	a.room.Store(1)
	for _, w := range a.processes {
		w.link.clockAhead.Store(0)
		w.link.unreadableUntil.Store(0)
	}
	for range 600 {
		_, _ = a.processes[0].SetPaused(a.ctx, "sim", false)
		for _, x := range a.attemptsOf(nil) {
			a.mu.Lock()
			silent := x.silent
			a.mu.Unlock()
			if !silent {
				a.end(x, x.w, job.Outcome{})
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		a.replaceEnded()
		if u := a.unfinishedJobs(); len(u.waiting)+len(u.running) == 0 {
			time.Sleep(time.Second) // for the watchers
			return
		}
	}
	u := a.unfinishedJobs()
	a.t.Fatalf("ten minutes later %d jobs wait and %d run", len(u.waiting), len(u.running))
}

// audit compares all answers with the store, which it opens again.
func (a *promiseRun) audit() {
	synctest.Wait()
	for _, v := range a.watchers {
		a.auditWatcher(v)
	}
	for _, w := range a.processes {
		if held := w.HeldResources(); len(held) > 0 {
			a.violation("no job runs, and a process counts jobs of the resources %v", held)
		}
	}
	left := a.endedProcesses
	for len(a.processes) > 0 {
		a.endProcess(0, true)
	}
	a.endedProcesses = left
	if err := a.cluster.Store.Close(); err != nil {
		a.t.Fatal(err)
	}
	a.cluster.Store = openUnsynced(a.t, a.cluster.path)
	for _, id := range a.order {
		a.auditJob(a.jobs[id])
	}
	for _, v := range a.watchers {
		select {
		case <-v.done:
			a.auditLog(v)
		default:
		}
	}
	counts, err := a.cluster.Counts(a.t.Context())
	if c := counts["sim"]; err != nil || c.Waiting() != 0 || c.Running != 0 || c.WaitingBytes != 0 {
		a.violation("nothing waits or runs, and the counts are %+v, %v", c, err)
	}
}

// auditWatcher checks that a watcher in a running process got the end of its job.
func (a *promiseRun) auditWatcher(v *jobView) {
	select {
	case <-v.w.ended:
		return
	default:
	}
	select {
	case <-v.done:
	default:
		a.violation("a watcher of %s saw %s and waits", v.job.id, v.last)
		return
	}
	switch {
	case errors.Is(v.end, io.EOF) && v.last.Ended():
	case job.CodeOf(v.end) == job.NotFound:
	case errors.Is(v.end, errUnreadable) || errors.Is(v.end, context.Canceled):
	default:
		a.violation("a watcher of %s saw %s, and then %v", v.job.id, v.last, v.end)
	}
}

// auditLog checks that the log contains all output that a watcher got.
func (a *promiseRun) auditLog(v *jobView) {
	_, log, err := a.cluster.Output(a.t.Context(), v.job.owner, v.job.id, 0, 1<<20)
	if job.CodeOf(err) == job.NotFound {
		return
	}
	if err != nil {
		a.t.Fatal(err)
	}
	there := map[int64]string{}
	for _, e := range log {
		there[e.Seq] = string(e.Data)
	}
	for seq, content := range v.content {
		if there[seq] != content || content != entryText(v.job.id, seq) {
			a.violation("a watcher of %s saw entry %d as %q, and it is %q", v.job.id, seq, content, there[seq])
		}
	}
}

// auditJob checks that the stored job agrees with the acknowledged ops.
func (a *promiseRun) auditJob(x *knownJob) {
	j, err := a.cluster.Job(a.t.Context(), x.owner, x.id)
	switch code := job.CodeOf(err); {
	case code == job.NotFound && !x.deleteRequested:
		a.violation("%s was acknowledged and is gone", x.id)
	case code == job.NotFound:
		if x.files && a.endedProcesses == 0 && a.files[x.id] != 1 {
			a.violation("the files of %s, which was deleted, were removed %d times", x.id, a.files[x.id])
		}
	case err != nil:
		a.t.Fatal(err)
	case x.deleted:
		a.violation("%s was deleted and is %s", x.id, j.State)
	case x.cancelled && !x.retryRequested && j.State != job.Cancelled:
		a.violation("the cancel of %s was acknowledged, and it is %s", x.id, j.State)
	case x.files && a.files[x.id] > 0:
		a.violation("%s is there and its files are not", x.id)
	}
}
