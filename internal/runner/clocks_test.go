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
	runRules(t, []rule{
		{"at the soft limit the executor is asked to stop, and the attempt fails with a timeout", softLimit},
		{"at the hard limit the attempt is finished, even if its executor goes on", hardLimit},
		{"a hard limit alone ends the context and the attempt at once", hardLimitAlone},
		{"a soft limit alone gives the executor the grace of a cancel", softLimitAlone},
		{"a cancel between the limits ends the attempt as cancelled, after its own grace", cancelBetweenLimits},
		{"no output in time is a fault to retry later", firstOutputLimit},
		{"an attempt after a failure may be silent for half as long again", firstOutputGrows},
		{"a silence between two pieces is a fault to retry later", idleOutputLimit},
		{"a sign of life counts as output for the clocks, and is not stored", aliveMovesClocks},
		{"a sign of life after the attempt was asked to stop does nothing", aliveAfterStopDoesNothing},
		{"progress is not output", ignoresProgress},
		{"after the first output the idle limit replaces the first-output limit", idleLimitAfterFirstOutput},
		{"an executor that waits for the disk is not silent", ignoresWaitForDisk},
		{"ResetTimeouts restarts the clocks", resetRestartsClocks},
		{"after ResetTimeouts the next piece is the first output", resetAwaitsFirstOutput},
		{"ResetTimeouts does nothing once the attempt was asked to stop", resetAfterStopDoesNothing},
		{"only the first cause to stop counts", keepsFirstStopCause},
		{"a silent executor that does not stop is abandoned at the hard limit if that comes before its grace", hardLimitBeforeGrace},
		{"a job without clocks has no timer", setsNoTimerWithoutClocks},
	})
}

func softLimit(t *testing.T) {
	var why error
	h := newHarness(t, untilStopped(&why))
	rec := h.deliver(1, withTimeouts(job.Timeouts{RunSoft: 290 * time.Second, RunHard: 300 * time.Second}))
	advance(290*time.Second - 1)
	want(t, "running before its limit", rec.running(), true)
	advance(1)
	wantErr(t, why, exec.ErrTimeout)
	h.wantFault(rec, job.Timeout, "timeout")
	if m := h.outcome(rec).Fault.Message; !strings.Contains(m, " 290 s") {
		t.Fatalf("the message lacks the limit: %s", m)
	}
}

func firstOutputGrows(t *testing.T) {
	var seen time.Duration
	h := newHarness(t, func(ctx context.Context, task exec.Task, _ exec.Sink) error {
		seen = task.Job.Policy.Timeouts.FirstOutput
		<-ctx.Done()
		return context.Cause(ctx)
	})
	rec := h.deliver(1, withTimeouts(job.Timeouts{FirstOutput: 10 * time.Second}), func(c *job.Claimed) { c.Job.Attempt = 2 })
	advance(15*time.Second - 1)
	want(t, "running before its limit", rec.running(), true)
	advance(1)
	h.wantFault(rec, job.Retryable, "first_output_timeout")
	want(t, "the executor's clock", seen, 15*time.Second)
}

func hardLimit(t *testing.T) {
	release := make(chan struct{})
	h := newHarness(t, ignoreStop(release))
	rec := h.deliver(1, withTimeouts(job.Timeouts{RunSoft: time.Minute, RunHard: 3 * time.Minute}))
	advance(3*time.Minute - 1)
	want(t, "running before its limit", rec.running(), true)
	advance(1)
	h.wantFault(rec, job.Timeout, "timeout")
	close(release)
	synctest.Wait()
	want(t, "the number of finishes", rec.snapshot().finishes, 1)
}

func hardLimitAlone(t *testing.T) {
	var why error
	release := make(chan struct{})
	h := newHarness(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		<-release
		return untilStopped(&why)(ctx, task, out)
	})
	rec := h.deliver(1, withTimeouts(job.Timeouts{RunHard: time.Minute}))
	advance(time.Minute)
	h.wantFault(rec, job.Timeout, "timeout")
	close(release)
	synctest.Wait()
	wantErr(t, why, exec.ErrTimeout)
}

func softLimitAlone(t *testing.T) {
	release := make(chan struct{})
	h := newHarness(t, ignoreStop(release))
	rec := h.deliver(1, withTimeouts(job.Timeouts{RunSoft: time.Minute}))
	advance(time.Minute + 10*time.Second - 1)
	want(t, "running within its grace", rec.running(), true)
	advance(1)
	h.wantFault(rec, job.Timeout, "timeout")
	close(release)
}

func cancelBetweenLimits(t *testing.T) {
	release := make(chan struct{})
	h := newHarness(t, ignoreStop(release))
	rec := h.deliver(1, withTimeouts(job.Timeouts{RunSoft: time.Minute, RunHard: time.Hour}))
	advance(2 * time.Minute)
	h.order(1, job.OrderCancel)
	advance(10*time.Second - 1)
	want(t, "running within its grace", rec.running(), true)
	advance(1)
	want(t, "cancelled", h.outcome(rec).Cancelled, true)
	want(t, "a fault", h.outcome(rec).Fault != nil, false)
	close(release)
}

func firstOutputLimit(t *testing.T) {
	var why error
	h := newHarness(t, untilStopped(&why))
	rec := h.deliver(1, withTimeouts(job.Timeouts{FirstOutput: 2 * time.Minute, IdleOutput: time.Minute}))
	advance(2*time.Minute - 1)
	want(t, "running before its limit", rec.running(), true)
	advance(1)
	wantErr(t, why, exec.ErrTimeout)
	h.wantFault(rec, job.Retryable, "first_output_timeout")
	if m := h.outcome(rec).Fault.Message; !strings.Contains(m, " 120 s") {
		t.Fatalf("the message lacks the limit: %s", m)
	}
}

func idleOutputLimit(t *testing.T) {
	for name, write := range map[string]func(exec.Sink) error{
		"text":  func(out exec.Sink) error { return out.Text("a") },
		"event": func(out exec.Sink) error { return out.Event([]byte("1")) },
		"log":   func(out exec.Sink) error { return out.Log("a") },
	} {
		var why error
		h := newHarness(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
			for range 10 {
				sleep(29 * time.Second)
				_ = write(out)
			}
			return untilStopped(&why)(ctx, task, out)
		})
		rec := h.deliver(1, withTimeouts(job.Timeouts{FirstOutput: 30 * time.Second, IdleOutput: 30 * time.Second}))
		advance(290*time.Second + 30*time.Second - 1)
		want(t, "running before its limit with "+name, rec.running(), true)
		advance(1)
		wantErr(t, why, exec.ErrTimeout)
		h.wantFault(rec, job.Retryable, "idle_output_timeout")
		_ = h.close()
	}
}

func aliveMovesClocks(t *testing.T) {
	var why error
	h := newHarness(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		for range 10 {
			sleep(29 * time.Second)
			out.Alive()
		}
		return untilStopped(&why)(ctx, task, out)
	})
	rec := h.deliver(1, withTimeouts(job.Timeouts{FirstOutput: 30 * time.Second, IdleOutput: 30 * time.Second}))
	advance(290*time.Second + 30*time.Second - 1)
	want(t, "running before its limit", rec.running(), true)
	want(t, "the output", rec.log(), "")
	advance(1)
	wantErr(t, why, exec.ErrTimeout)
	h.wantFault(rec, job.Retryable, "idle_output_timeout")
}

func aliveAfterStopDoesNothing(t *testing.T) {
	release := make(chan struct{})
	h := newHarness(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		<-ctx.Done()
		out.Alive()
		return ignoreStop(release)(ctx, task, out)
	})
	rec := h.deliver(1, withTimeouts(job.Timeouts{RunSoft: time.Minute, RunHard: 90 * time.Second, IdleOutput: time.Hour}))
	advance(90 * time.Second)
	h.wantFault(rec, job.Timeout, "timeout")
	close(release)
}

func ignoresProgress(t *testing.T) {
	h := newHarness(t, func(ctx context.Context, _ exec.Task, out exec.Sink) error {
		for n := 0; ctx.Err() == nil; n++ {
			sleep(time.Second)
			_ = out.Progress(job.Progress{Percent: float64(n)})
		}
		return context.Cause(ctx)
	})
	rec := h.deliver(1, withTimeouts(job.Timeouts{FirstOutput: 30 * time.Second}))
	advance(31 * time.Second)
	h.wantFault(rec, job.Retryable, "first_output_timeout")
}

func idleLimitAfterFirstOutput(t *testing.T) {
	var why error
	h := newHarness(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		sleep(time.Second)
		_ = out.Text("and then")
		return untilStopped(&why)(ctx, task, out)
	})
	rec := h.deliver(1, withTimeouts(job.Timeouts{FirstOutput: time.Hour, IdleOutput: 30 * time.Second}))
	advance(31 * time.Second)
	wantErr(t, why, exec.ErrTimeout)
	h.wantFault(rec, job.Retryable, "idle_output_timeout")
}

func ignoresWaitForDisk(t *testing.T) {
	disk := make(chan struct{})
	h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		for range 2 { // the second must wait
			if err := out.Event(make([]byte, maxUnsaved)); err != nil {
				return err
			}
		}
		sleep(9 * time.Second)
		return nil
	})
	h.onAppend = func([]job.Entry) error { <-disk; return nil }
	rec := h.deliver(1, withTimeouts(job.Timeouts{FirstOutput: 10 * time.Second, IdleOutput: 10 * time.Second}))
	advance(time.Hour + 5*time.Second)
	want(t, "running while the disk is behind", rec.running(), true)
	close(disk)
	advance(10 * time.Second)
	want(t, "a fault", h.outcome(rec).Fault != nil, false)
}

func resetRestartsClocks(t *testing.T) {
	var why error
	h := newHarness(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		sleep(50 * time.Second)
		out.ResetTimeouts()
		return untilStopped(&why)(ctx, task, out)
	})
	limits := withTimeouts(job.Timeouts{RunSoft: time.Minute, RunHard: time.Minute, FirstOutput: time.Minute})
	rec := h.deliver(1, limits)
	advance(110*time.Second - 1)
	want(t, "running before its limit", rec.running(), true)
	advance(1)
	wantErr(t, why, exec.ErrTimeout)
	h.wantFault(rec, job.Timeout, "timeout")
}

func resetAwaitsFirstOutput(t *testing.T) {
	var why error
	h := newHarness(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		_ = out.Text("waiting for a model")
		sleep(9 * time.Second)
		out.ResetTimeouts()
		return untilStopped(&why)(ctx, task, out)
	})
	rec := h.deliver(1, withTimeouts(job.Timeouts{FirstOutput: time.Minute, IdleOutput: 10 * time.Second}))
	advance(69*time.Second - 1)
	want(t, "running before its limit", rec.running(), true)
	advance(1)
	wantErr(t, why, exec.ErrTimeout)
	h.wantFault(rec, job.Retryable, "first_output_timeout")
}

func resetAfterStopDoesNothing(t *testing.T) {
	release := make(chan struct{})
	h := newHarness(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		<-ctx.Done()
		out.ResetTimeouts()
		return ignoreStop(release)(ctx, task, out)
	})
	rec := h.deliver(1, withTimeouts(job.Timeouts{RunSoft: time.Minute, RunHard: 90 * time.Second}))
	advance(90 * time.Second)
	h.wantFault(rec, job.Timeout, "timeout")
	close(release)
}

func keepsFirstStopCause(t *testing.T) {
	release := make(chan struct{})
	h := newHarness(t, ignoreStop(release), func(c *Config) { c.Grace = time.Second })
	rec := h.deliver(1, withTimeouts(job.Timeouts{RunSoft: time.Minute, RunHard: time.Hour}))
	advance(time.Minute)
	h.stop()
	advance(time.Second + stopTimeout)
	h.wantFault(rec, job.Timeout, "timeout")
	want(t, "released", h.outcome(rec).Released, false)
	close(release)
}

func hardLimitBeforeGrace(t *testing.T) {
	release := make(chan struct{})
	h := newHarness(t, ignoreStop(release))
	rec := h.deliver(1, withTimeouts(job.Timeouts{RunHard: time.Minute, FirstOutput: 55 * time.Second}))
	advance(time.Minute - 1)
	want(t, "running before its limit", rec.running(), true)
	advance(1)
	h.wantFault(rec, job.Retryable, "first_output_timeout")
	close(release)
}

func setsNoTimerWithoutClocks(t *testing.T) {
	timers := 0
	h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		if out.(*attempt).timer != nil {
			timers++
		}
		return nil
	})
	h.deliver(1)
	synctest.Wait()
	want(t, "timers without a clock", timers, 0)
	h.deliver(2, withTimeouts(job.Timeouts{RunHard: time.Hour}))
	synctest.Wait()
	want(t, "timers with a clock", timers, 1)
}
