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

// The promises hold in every history: of restarts, of commits that fail or whose answers
// are lost, of a disk that stands still or cannot be read, of a clock that jumps.
func TestPromisesHoldInEveryHistory(t *testing.T) {
	t.Parallel()
	for _, seed := range engine.Seeds(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			inPlace(t, func(t *testing.T, p *place) {
				a := &audited{history: newHistory(t, p, seed), kill: seed%2 == 0}
				defer a.close()
				for range 2 + seed%4/3 {
					a.join()
				}
				for range 40 {
					a.hardRound()
					a.verdict()
				}
				a.drain()
				a.verdict()
				a.audit()
				a.verdict()
			})
		})
	}
}

// audited is a history whose promises are looked at in the end.
type audited struct {
	*history
	kill    bool // processes end
	viewers []*seen
}

// seen is what a watcher saw of a job. It is the watcher's until over is closed.
type seen struct {
	w    *worker
	x    *known
	said map[int64]string
	last job.State
	end  error
	over chan struct{}
}

// hardRound is a few things that happen together, to a disk and a clock that are worse
// than those of a history.
func (a *audited) hardRound() {
	for range 1 + a.one(6) {
		w := a.member()
		switch n := a.one(60); {
		case n <= 2 && a.kill:
			a.restart()
		case n <= 6:
			a.fault(w)
		case n == 7:
			d := time.Duration(a.one(15_000)) * time.Millisecond
			a.note("the disk stands still for %s", d)
			a.p.stall(d)
		case n == 8: // less than a healthy worker's lease can bear
			d := time.Duration(a.one(1900)) * time.Millisecond
			a.breakNext(w, fmt.Sprint("the sync takes ", d), faulty.Fault{After: func() { time.Sleep(d) }})
		case n == 9:
			a.note("%x cannot read", w.id[:2])
			w.link.unread.Store(time.Now().Add(time.Duration(a.one(10_000)) * time.Millisecond).UnixNano())
		case n <= 11:
			a.note("%x: its clock jumps", w.id[:2])
			w.link.ahead.Store(int64(a.one(40_000)-20_000) * int64(time.Millisecond))
		case n == 12 && a.kill: // the sync fails: the process ends, and its data is there or not
			a.breakNext(w, "the sync fails", faulty.Fault{Step: faulty.BadSync})
		case n <= 20:
			if x := a.aJob(); x != nil {
				a.watch(w, x)
			}
		case n <= 23:
			a.stale(w)
		default:
			a.step()
		}
		if a.one(3) == 0 {
			time.Sleep(time.Duration(a.one(300)) * time.Millisecond)
		}
	}
	a.obey()
	time.Sleep(time.Duration(a.one(3)*a.one(1500)) * time.Millisecond)
	a.replace()
}

// replace starts a process for each that has ended by itself.
func (a *audited) replace() {
	for i := 0; i < len(a.members); i++ {
		select {
		case <-a.members[i].gone:
			a.leave(i, true)
			a.join()
			i = -1
		default:
		}
	}
}

// watch follows a job to its end.
func (a *audited) watch(w *worker, x *known) {
	v := &seen{w: w, x: x, said: map[int64]string{}, over: make(chan struct{})}
	a.viewers = append(a.viewers, v)
	go func() {
		defer close(v.over)
		var at *engine.Watch
		if at, v.end = w.Watch(a.ctx, x.owner, x.id, 0); v.end != nil {
			return
		}
		defer at.Close()
		ctx, stop := context.WithCancel(a.ctx)
		defer stop()
		go func() {
			select {
			case <-w.gone:
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
				if _, again := v.said[e.Seq]; again {
					a.breaks("a watcher saw entry %d of %s twice", e.Seq, x.id)
				}
				v.said[e.Seq] = string(e.Data)
			}
		}
	}()
}

// stale uses a lease that holds nothing any more.
func (a *audited) stale(w *worker) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.past) == 0 {
		return
	}
	l := a.past[a.one(len(a.past))]
	how := a.one(3)
	a.ask(func() {
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
			a.breaks("a lease on %s that is over was taken", l.Job)
		}
	})
}

// drain ends all faults, and works until no job is left that has not ended.
func (a *audited) drain() {
	a.asking.Wait()
	time.Sleep(time.Second)
	a.replace()
	for _, w := range a.members {
		w.link.ahead.Store(0)
		w.link.unread.Store(0)
	}
	for range 600 {
		_, _ = a.members[0].SetPaused(a.ctx, "sim", false)
		for _, x := range a.holdings(nil) {
			a.mu.Lock()
			silent := x.silent
			a.mu.Unlock()
			if !silent {
				a.end(x, x.w, job.Outcome{})
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		a.replace()
		if u := a.waiting(); len(u.waiting)+len(u.running) == 0 {
			time.Sleep(time.Second) // the watchers have so long
			return
		}
	}
	u := a.waiting()
	a.t.Fatalf("ten minutes later %d jobs wait and %d run", len(u.waiting), len(u.running))
}

// audit compares what was told with what the store holds when it is opened anew.
func (a *audited) audit() {
	synctest.Wait()
	for _, v := range a.viewers {
		a.auditViewer(v)
	}
	left := a.left
	for len(a.members) > 0 {
		a.leave(0, true)
	}
	a.left = left
	if err := a.p.Store.Close(); err != nil {
		a.t.Fatal(err)
	}
	a.p.Store = openUnsynced(a.t, a.p.path)
	for _, id := range a.order {
		a.auditJob(a.jobs[id])
	}
	for _, v := range a.viewers {
		select {
		case <-v.over:
			a.auditLog(v)
		default:
		}
	}
	counts, err := a.p.Counts(a.t.Context())
	if c := counts["sim"]; err != nil || c.Waiting() != 0 || c.Running != 0 || c.WaitingBytes != 0 {
		a.breaks("nothing waits or runs, and the counts are %+v, %v", c, err)
	}
}

// auditViewer says whether a watcher in a process that lives has learned of the end.
func (a *audited) auditViewer(v *seen) {
	select {
	case <-v.w.gone:
		return
	default:
	}
	select {
	case <-v.over:
	default:
		a.breaks("a watcher of %s saw %s and waits", v.x.id, v.last)
		return
	}
	switch {
	case errors.Is(v.end, io.EOF) && v.last.Ended():
	case job.CodeOf(v.end) == job.NotFound:
	case errors.Is(v.end, errUnread) || errors.Is(v.end, context.Canceled):
	default:
		a.breaks("a watcher of %s saw %s, and then %v", v.x.id, v.last, v.end)
	}
}

// auditLog says whether all that a watcher saw is in the log.
func (a *audited) auditLog(v *seen) {
	_, log, err := a.p.Output(a.t.Context(), v.x.owner, v.x.id, 0, 1<<20)
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
	for seq, said := range v.said {
		if there[seq] != said || said != word(v.x.id, seq) {
			a.breaks("a watcher of %s saw entry %d as %q, and it is %q", v.x.id, seq, said, there[seq])
		}
	}
}

func (a *audited) auditJob(x *known) {
	j, err := a.p.Job(a.t.Context(), x.owner, x.id)
	switch code := job.CodeOf(err); {
	case code == job.NotFound && !x.asked:
		a.breaks("%s was acknowledged and is gone", x.id)
	case code == job.NotFound:
		if x.files && a.left == 0 && a.files[x.id] != 1 {
			a.breaks("the files of %s, which was deleted, were removed %d times", x.id, a.files[x.id])
		}
	case err != nil:
		a.t.Fatal(err)
	case x.deleted:
		a.breaks("%s was deleted and is %s", x.id, j.State)
	case x.cancelled && !x.retried && j.State != job.Cancelled:
		a.breaks("the cancel of %s was acknowledged, and it is %s", x.id, j.State)
	case x.files && a.files[x.id] > 0:
		a.breaks("%s is there and its files are not", x.id)
	}
}
