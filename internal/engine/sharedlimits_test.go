package engine_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// limitsBound is how long another process's limits may take to hold: a read of them, and a commit.
const limitsBound = pollBound

// limited are processes on one store and one bus, with different limits.
type limited struct {
	t *testing.T
	*cluster
	bus bus.Local
}

func withLimited(t *testing.T, test func(l *limited)) {
	t.Parallel()
	withCluster(t, func(t *testing.T, p *cluster) { test(&limited{t: t, cluster: p}) })
}

// start starts a process whose queue sim has these limits. The log gets its warnings.
func (l *limited) start(name string, log *bytes.Buffer, change func(q *engine.Queue)) *process {
	l.t.Helper()
	q := queues()
	q[0].MaxDepth = 100
	change(&q[0])
	c := engine.Config{Queues: q, Bus: &l.bus, ProcessName: name}
	if log != nil {
		c.Log = slog.New(slog.NewTextHandler(log, nil))
	}
	p := l.startProcess(l.t, c)
	p.jobs, p.orders = make(chan job.Claimed, 100), make(chan job.Order, 100)
	return p
}

// leave stops a process in good order.
func (p *process) leave() {
	if err := p.WithdrawLimits(context.Background()); err != nil {
		p.t.Error(err)
	}
	p.Engine.StopSubmits()
	p.stop()
}

func (p *process) view() engine.QueueView {
	p.t.Helper()
	all, err := p.Queues(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	return all[0]
}

func (p *process) expectMaxRunning(what string, want int) {
	p.t.Helper()
	if v := p.view(); v.MaxRunning != want {
		p.t.Errorf("%s: max_running is %d, want %d", what, v.MaxRunning, want)
	}
}

// The smaller limit of two processes holds in both, from the start of the one that comes later and
// within seconds in the other, until its process has left.
func TestSmallestMaxRunningHolds(t *testing.T) {
	withLimited(t, func(l *limited) {
		a := l.start("a", nil, func(q *engine.Queue) { q.MaxRunning = 3 })
		a.expectMaxRunning("alone", 3)
		b := l.start("b", nil, func(q *engine.Queue) { q.MaxRunning = 1 })
		time.Sleep(limitsBound)
		a.expectMaxRunning("beside a process with 1", 1)
		c := l.start("c", nil, func(q *engine.Queue) { q.MaxRunning = 0 })
		c.expectMaxRunning("at its start beside 1 and 3, without a limit of its own", 1)

		a.startWorker(3)
		for range 3 {
			a.submit(engine.Request{})
		}
		first := a.nextJob("the first")
		a.expectNoJob("a second one beside max_running 1")
		b.leave()
		time.Sleep(limitsBound)
		a.expectMaxRunning("after b has left", 3)
		c.expectMaxRunning("after b has left", 3)
		a.finish(first, job.Outcome{})
		a.finish(a.nextJob("the second"), job.Outcome{})
		a.finish(a.nextJob("the third"), job.Outcome{})
		a.leave()
		c.leave()
	})
}

// The limits of a killed process hold for a minute and a half. Then they are forgotten, and its row
// is removed.
func TestLimitsOfKilledProcessEnd(t *testing.T) {
	withLimited(t, func(l *limited) {
		a := l.start("a", nil, func(q *engine.Queue) { q.MaxRunning = 3 })
		b := l.start("b", nil, func(q *engine.Queue) { q.MaxRunning = 1 })
		time.Sleep(limitsBound)
		b.kill()
		time.Sleep(50 * time.Second)
		a.expectMaxRunning("50 s after the kill", 1)
		time.Sleep(90 * time.Second)
		a.expectMaxRunning("140 s after the kill", 3)
		if n := engine.Announcements(t, a.Engine); n != 2 {
			t.Errorf("%d rows after 140 s, want 2", n)
		}
		time.Sleep(10 * time.Minute)
		if n := engine.Announcements(t, a.Engine); n != 1 {
			t.Errorf("%d rows after 12 minutes, want 1", n)
		}
		a.leave()
	})
}

// After an outage all announcements are old. No limit rises because of that.
func TestLimitsOutliveOutage(t *testing.T) {
	withLimited(t, func(l *limited) {
		a := l.start("a", nil, func(q *engine.Queue) { q.MaxRunning = 3 })
		b := l.start("b", nil, func(q *engine.Queue) { q.MaxRunning = 1 })
		time.Sleep(limitsBound)
		l.stallDisk(5 * time.Minute)
		time.Sleep(5 * time.Minute)
		for range 600 {
			a.expectMaxRunning("after the outage", 1)
			time.Sleep(100 * time.Millisecond)
		}
		b.leave()
		a.leave()
	})
}

// Every limit is followed, each by itself, and jobs that are parked for one start when it rises.
func TestEachLimitIsShared(t *testing.T) {
	withLimited(t, func(l *limited) {
		a := l.start("a", nil, func(q *engine.Queue) { q.MaxDepth, q.MaxBytes, q.KeyRunning, q.KeyWaiting = 50, 0, 2, 9 })
		b := l.start("b", nil, func(q *engine.Queue) { q.MaxDepth, q.MaxBytes, q.KeyRunning, q.KeyWaiting = 60, 1<<20, 1, 3 })
		time.Sleep(limitsBound)
		for _, p := range []*process{a, b} {
			if v := p.view(); v.MaxDepth != 50 || v.MaxBytes != 1<<20 || v.KeyRunning != 1 || v.KeyWaiting != 3 {
				t.Errorf("the limits are %d, %d, %d, %d", v.MaxDepth, v.MaxBytes, v.KeyRunning, v.KeyWaiting)
			}
		}
		a.startWorker(4)
		a.submit(engine.Request{Key: "k"})
		a.submit(engine.Request{Key: "k"})
		a.nextJob("the first of the key")
		a.expectNoJob("the second of the key")
		b.leave()
		time.Sleep(limitsBound)
		a.nextJob("the second of the key, after the smaller limit has left")
		a.leave()
	})
}

// The smaller limit on waiting jobs holds for submits.
func TestSmallestMaxDepthHolds(t *testing.T) {
	withLimited(t, func(l *limited) {
		a := l.start("a", nil, func(q *engine.Queue) { q.MaxDepth = 9 })
		b := l.start("b", nil, func(q *engine.Queue) { q.MaxDepth = 2 })
		time.Sleep(limitsBound)
		a.submit(engine.Request{})
		a.submit(engine.Request{})
		_, _, err := a.Submit(context.Background(), engine.Request{Owner: local, Queue: "sim"})
		if job.CodeOf(err) != job.QueueFull {
			t.Errorf("the third job: %v", err)
		}
		b.leave()
		a.leave()
	})
}

// The log names each difference once, with both values and the process.
func TestDifferentLimitsAreLogged(t *testing.T) {
	withLimited(t, func(l *limited) {
		var log bytes.Buffer
		a := l.start("host-a/1", &log, func(q *engine.Queue) { q.MaxRunning = 3 })
		b := l.start("host-b/2", nil, func(q *engine.Queue) { q.MaxRunning, q.MaxDepth = 1, 0 })
		c := l.start("host-c/3", nil, func(q *engine.Queue) { q.Name, q.MaxRunning = "other", 3 })
		time.Sleep(time.Minute)
		for _, p := range []*process{b, c, a} {
			p.leave()
			synctest.Wait()
		}
		for want, times := range map[string]int{
			"limit=max_running here=3 there=1 process=\"host-b/2 ": 1,
			"limit=max_depth here=100 there=0 process=\"host-b/2 ": 1,
			"lacks a queue":                 1,
			"queue=sim process=\"host-c/3 ": 1,
			"another limit":                 2,
		} {
			if n := strings.Count(log.String(), want); n != times {
				t.Errorf("%d lines with %s, want %d:\n%s", n, want, times, log.String())
			}
		}
	})
}
