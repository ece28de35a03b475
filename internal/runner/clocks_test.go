package runner

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestClocks(t *testing.T) {
	hold(t, []rule{
		{"at the soft limit the executor is asked to stop, and the attempt fails of its time", softLimit},
		{"at the hard limit the attempt is finished, whatever its executor does", hardLimit},
		{"a hard limit alone ends the context and the attempt at once", hardLimitAlone},
		{"a soft limit alone gives the executor the grace of a cancel", softLimitAlone},
		{"a cancel between the limits ends the attempt as cancelled, after its own grace", cancelBetweenLimits},
		{"nothing said in time is a fault that may go away", firstOutputLimit},
		{"a silence between two pieces is a fault that may go away", idleOutputLimit},
		{"progress is not output", progressIsNotOutput},
		{"the clock of the next piece takes over from that of the first", idleAfterFirst},
		{"an executor that waits for the disk is not silent", diskIsNotSilence},
		{"begin starts the clocks again", beginRestarts},
		{"after begin the next piece is the first", beginAwaitsFirst},
		{"who was asked to stop gains nothing by begin", beginTooLate},
		{"the first reason to stop stands", firstReasonStands},
		{"a silent executor that does not stop is let go at the hard limit if that comes first", silenceAndHardLimit},
		{"a job without clocks has no timer", noClockNoTimer},
	})
}

func softLimit(t *testing.T) {
	var why error
	h := open(t, untilStopped(&why))
	rec := h.deliver(1, clocked(job.Timeouts{RunSoft: 290 * time.Second, RunHard: 300 * time.Second}))
	pass(290*time.Second - 1)
	want(t, "running before its limit", rec.open(), true)
	pass(1)
	wantErr(t, why, exec.ErrTimeout)
	h.wantFault(rec, job.Timeout, "timeout")
	if m := h.ended(rec).Fault.Message; !strings.Contains(m, " 290 s") {
		t.Fatalf("the message does not say how long: %s", m)
	}
}

func hardLimit(t *testing.T) {
	letGo := make(chan struct{})
	h := open(t, deaf(letGo))
	rec := h.deliver(1, clocked(job.Timeouts{RunSoft: time.Minute, RunHard: 3 * time.Minute}))
	pass(3*time.Minute - 1)
	want(t, "running before its limit", rec.open(), true)
	pass(1)
	h.wantFault(rec, job.Timeout, "timeout")
	close(letGo)
	synctest.Wait()
	want(t, "the number of finishes", rec.now().tries, 1)
}

func hardLimitAlone(t *testing.T) {
	var why error
	letGo := make(chan struct{})
	h := open(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		<-letGo
		return untilStopped(&why)(ctx, task, out)
	})
	rec := h.deliver(1, clocked(job.Timeouts{RunHard: time.Minute}))
	pass(time.Minute)
	h.wantFault(rec, job.Timeout, "timeout")
	close(letGo)
	synctest.Wait()
	wantErr(t, why, exec.ErrTimeout)
}

func softLimitAlone(t *testing.T) {
	letGo := make(chan struct{})
	h := open(t, deaf(letGo))
	rec := h.deliver(1, clocked(job.Timeouts{RunSoft: time.Minute}))
	pass(time.Minute + 10*time.Second - 1)
	want(t, "running within its grace", rec.open(), true)
	pass(1)
	h.wantFault(rec, job.Timeout, "timeout")
	close(letGo)
}

func cancelBetweenLimits(t *testing.T) {
	letGo := make(chan struct{})
	h := open(t, deaf(letGo))
	rec := h.deliver(1, clocked(job.Timeouts{RunSoft: time.Minute, RunHard: time.Hour}))
	pass(2 * time.Minute)
	h.order(1, job.OrderCancel)
	pass(10*time.Second - 1)
	want(t, "running within its grace", rec.open(), true)
	pass(1)
	want(t, "cancelled", h.ended(rec).Cancelled, true)
	want(t, "a fault", h.ended(rec).Fault != nil, false)
	close(letGo)
}

func firstOutputLimit(t *testing.T) {
	var why error
	h := open(t, untilStopped(&why))
	rec := h.deliver(1, clocked(job.Timeouts{FirstOutput: 2 * time.Minute, IdleOutput: time.Minute}))
	pass(2*time.Minute - 1)
	want(t, "running before its limit", rec.open(), true)
	pass(1)
	wantErr(t, why, exec.ErrTimeout)
	h.wantFault(rec, job.Later, "first_output_timeout")
	if m := h.ended(rec).Fault.Message; !strings.Contains(m, " 120 s") {
		t.Fatalf("the message does not say how long: %s", m)
	}
}

func idleOutputLimit(t *testing.T) {
	for name, speak := range map[string]func(exec.Sink) error{
		"text":  func(out exec.Sink) error { return out.Text("a") },
		"event": func(out exec.Sink) error { return out.Event([]byte("1")) },
		"log":   func(out exec.Sink) error { return out.Log("a") },
	} {
		var why error
		h := open(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
			for range 10 {
				elapse(29 * time.Second)
				_ = speak(out)
			}
			return untilStopped(&why)(ctx, task, out)
		})
		rec := h.deliver(1, clocked(job.Timeouts{FirstOutput: 30 * time.Second, IdleOutput: 30 * time.Second}))
		pass(290*time.Second + 30*time.Second - 1)
		want(t, "running before its limit with "+name, rec.open(), true)
		pass(1)
		wantErr(t, why, exec.ErrTimeout)
		h.wantFault(rec, job.Later, "idle_output_timeout")
		_ = h.close()
	}
}

func progressIsNotOutput(t *testing.T) {
	h := open(t, func(ctx context.Context, _ exec.Task, out exec.Sink) error {
		for n := 0; ctx.Err() == nil; n++ {
			elapse(time.Second)
			_ = out.Progress(job.Progress{Percent: float64(n)})
		}
		return context.Cause(ctx)
	})
	rec := h.deliver(1, clocked(job.Timeouts{FirstOutput: 30 * time.Second}))
	pass(31 * time.Second)
	h.wantFault(rec, job.Later, "first_output_timeout")
}

func idleAfterFirst(t *testing.T) {
	var why error
	h := open(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		elapse(time.Second)
		_ = out.Text("and then")
		return untilStopped(&why)(ctx, task, out)
	})
	rec := h.deliver(1, clocked(job.Timeouts{FirstOutput: time.Hour, IdleOutput: 30 * time.Second}))
	pass(31 * time.Second)
	wantErr(t, why, exec.ErrTimeout)
	h.wantFault(rec, job.Later, "idle_output_timeout")
}

func diskIsNotSilence(t *testing.T) {
	disk := make(chan struct{})
	h := open(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		for range 2 { // the second must wait
			if err := out.Event(make([]byte, mostHeld)); err != nil {
				return err
			}
		}
		elapse(9 * time.Second)
		return nil
	})
	h.onAppend = func([]job.Entry) error { <-disk; return nil }
	rec := h.deliver(1, clocked(job.Timeouts{FirstOutput: 10 * time.Second, IdleOutput: 10 * time.Second}))
	pass(time.Hour + 5*time.Second)
	want(t, "running while the disk is behind", rec.open(), true)
	close(disk)
	pass(10 * time.Second)
	want(t, "a fault", h.ended(rec).Fault != nil, false)
}

func beginRestarts(t *testing.T) {
	var why error
	h := open(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		elapse(50 * time.Second)
		out.ResetTimeouts()
		return untilStopped(&why)(ctx, task, out)
	})
	limits := clocked(job.Timeouts{RunSoft: time.Minute, RunHard: time.Minute, FirstOutput: time.Minute})
	rec := h.deliver(1, limits)
	pass(110*time.Second - 1)
	want(t, "running before its limit", rec.open(), true)
	pass(1)
	wantErr(t, why, exec.ErrTimeout)
	h.wantFault(rec, job.Timeout, "timeout")
}

func beginAwaitsFirst(t *testing.T) {
	var why error
	h := open(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		_ = out.Text("waiting for a model")
		elapse(9 * time.Second)
		out.ResetTimeouts()
		return untilStopped(&why)(ctx, task, out)
	})
	rec := h.deliver(1, clocked(job.Timeouts{FirstOutput: time.Minute, IdleOutput: 10 * time.Second}))
	pass(69*time.Second - 1)
	want(t, "running before its limit", rec.open(), true)
	pass(1)
	wantErr(t, why, exec.ErrTimeout)
	h.wantFault(rec, job.Later, "first_output_timeout")
}

func beginTooLate(t *testing.T) {
	letGo := make(chan struct{})
	h := open(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		<-ctx.Done()
		out.ResetTimeouts()
		return deaf(letGo)(ctx, task, out)
	})
	rec := h.deliver(1, clocked(job.Timeouts{RunSoft: time.Minute, RunHard: 90 * time.Second}))
	pass(90 * time.Second)
	h.wantFault(rec, job.Timeout, "timeout")
	close(letGo)
}

func firstReasonStands(t *testing.T) {
	letGo := make(chan struct{})
	h := open(t, deaf(letGo), func(c *Config) { c.Grace = time.Second })
	rec := h.deliver(1, clocked(job.Timeouts{RunSoft: time.Minute, RunHard: time.Hour}))
	pass(time.Minute)
	h.end()
	pass(time.Second + stopWait)
	h.wantFault(rec, job.Timeout, "timeout")
	want(t, "handed back", h.ended(rec).HandedBack, false)
	close(letGo)
}

func silenceAndHardLimit(t *testing.T) {
	letGo := make(chan struct{})
	h := open(t, deaf(letGo))
	rec := h.deliver(1, clocked(job.Timeouts{RunHard: time.Minute, FirstOutput: 55 * time.Second}))
	pass(time.Minute - 1)
	want(t, "running before its limit", rec.open(), true)
	pass(1)
	h.wantFault(rec, job.Later, "first_output_timeout")
	close(letGo)
}

func noClockNoTimer(t *testing.T) {
	timers := 0
	h := open(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		if out.(*attempt).timer != nil {
			timers++
		}
		return nil
	})
	h.deliver(1)
	synctest.Wait()
	want(t, "timers without a clock", timers, 0)
	h.deliver(2, clocked(job.Timeouts{RunHard: time.Hour}))
	synctest.Wait()
	want(t, "timers with a clock", timers, 1)
}
