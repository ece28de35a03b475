package runner

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestOrders(t *testing.T) {
	runRules(t, []rule{
		{"a cancel ends the context, and the attempt ends as cancelled with its output", cancels},
		{"a cancelled attempt is cancelled even if its executor returns a result", cancelsDespiteResult},
		{"work that ignores a cancel is finished as cancelled after its grace", cancelsUnresponsiveWork},
		{"a job without a grace gives its work ten seconds", cancelsWithDefaultGrace},
		{"a second cancel does not lengthen the grace", cancelsTwice},
		{"a lost lease ends the context, and nothing more is written", losesLease},
		{"a lost lease is not renewed while its executor goes on", forgetsLostLease},
		{"an append that is refused as lost ends the context", losesLeaseAtAppend},
		{"a finish that is refused as lost is not repeated", losesLeaseAtFinish},
		{"an order for an unknown lease is ignored", ignoresUnknownLease},
	})
}

func cancels(t *testing.T) {
	var why error
	h := newHarness(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		_ = out.Text("so far")
		sleep(time.Millisecond)
		_ = out.Text(" so good")
		return untilStopped(&why)(ctx, task, out)
	})
	rec := h.deliver(1)
	advance(time.Millisecond)
	h.order(1, job.OrderCancel)
	synctest.Wait()
	wantErr(t, why, exec.ErrCancelled)
	o := h.outcome(rec)
	want(t, "cancelled", o.Cancelled, true)
	want(t, "a fault", o.Fault != nil, false)
	want(t, "the output stored with the outcome", formatEntries(o.Entries), "text  so good")
	want(t, "the log", rec.log(), "text so far; text  so good")
}

func cancelsDespiteResult(t *testing.T) {
	h := newHarness(t, func(ctx context.Context, _ exec.Task, out exec.Sink) error {
		<-ctx.Done()
		out.Result(job.Result{Body: []byte("done after all")})
		return nil
	})
	rec := h.deliver(1)
	h.order(1, job.OrderCancel)
	synctest.Wait()
	want(t, "cancelled", h.outcome(rec).Cancelled, true)
	want(t, "a result", h.outcome(rec).Result != nil, false)
}

func cancelsUnresponsiveWork(t *testing.T) {
	release := make(chan struct{})
	var late error
	h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		<-release
		late = out.Text("I was not listening")
		out.Result(job.Result{Body: []byte("ready")})
		return nil
	})
	rec := h.deliver(1)
	synctest.Wait()
	h.order(1, job.OrderCancel)
	advance(10*time.Second - 1)
	want(t, "running within its grace", rec.running(), true)
	advance(1)
	want(t, "cancelled", h.outcome(rec).Cancelled, true)
	close(release)
	synctest.Wait()
	wantErr(t, late, exec.ErrCancelled)
	want(t, "the number of finishes", rec.snapshot().finishes, 1)
	want(t, "the log", rec.log(), "")
}

func cancelsWithDefaultGrace(t *testing.T) {
	release := make(chan struct{})
	h := newHarness(t, ignoreStop(release))
	rec := h.deliver(1, func(c *job.Claimed) { c.Job.Policy.Timeouts.CancelGrace = 0 })
	synctest.Wait()
	h.order(1, job.OrderCancel)
	advance(defaultGrace - 1)
	want(t, "running within its grace", rec.running(), true)
	advance(1)
	want(t, "cancelled", h.outcome(rec).Cancelled, true)
	close(release)
}

func cancelsTwice(t *testing.T) {
	release := make(chan struct{})
	h := newHarness(t, ignoreStop(release))
	rec := h.deliver(1)
	synctest.Wait()
	h.order(1, job.OrderCancel)
	advance(9 * time.Second)
	h.order(1, job.OrderCancel)
	advance(time.Second)
	want(t, "cancelled", h.outcome(rec).Cancelled, true)
	close(release)
}

func losesLease(t *testing.T) {
	var why error
	h := newHarness(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		_ = out.Text("stored")
		sleep(time.Millisecond)
		_ = out.Text("never stored")
		return untilStopped(&why)(ctx, task, out)
	})
	rec := h.deliver(1)
	advance(time.Millisecond)
	h.order(1, job.OrderLost)
	advance(time.Minute)
	wantErr(t, why, exec.ErrLost)
	want(t, "the number of finishes", rec.snapshot().finishes, 0)
	want(t, "the log", rec.log(), "text stored")
	want(t, "the number of renewals", len(h.renewals()), 0)
}

func forgetsLostLease(t *testing.T) {
	release := make(chan struct{})
	h := newHarness(t, ignoreStop(release))
	rec := h.deliver(1, withTimeouts(job.Timeouts{RunHard: 30 * time.Second}))
	advance(time.Second)
	h.order(1, job.OrderLost)
	advance(time.Minute)
	want(t, "the number of renewals", len(h.renewals()), 0)
	close(release)
	synctest.Wait()
	want(t, "the number of finishes", rec.snapshot().finishes, 0)
}

func losesLeaseAtAppend(t *testing.T) {
	var why error
	h := newHarness(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		_ = out.Text("too late")
		return untilStopped(&why)(ctx, task, out)
	})
	h.onAppend = func([]job.Entry) error { return job.Errorf(job.LeaseLost, "another has it") }
	rec := h.deliver(1)
	advance(time.Minute)
	wantErr(t, why, exec.ErrLost)
	want(t, "the number of finishes", rec.snapshot().finishes, 0)
}

func losesLeaseAtFinish(t *testing.T) {
	h := newHarness(t, func(context.Context, exec.Task, exec.Sink) error { return nil })
	h.onFinish = func(job.Outcome) error { return job.Errorf(job.LeaseLost, "another has it") }
	rec := h.deliver(1)
	advance(time.Minute)
	want(t, "the number of finishes", rec.snapshot().finishes, 1)
	want(t, "the number of renewals", len(h.renewals()), 0)
}

func ignoresUnknownLease(t *testing.T) {
	gate := make(chan struct{})
	h := newHarness(t, ignoreStop(gate))
	rec := h.deliver(1)
	h.order(2, job.OrderCancel)
	h.order(2, job.OrderLost)
	close(gate)
	synctest.Wait()
	want(t, "cancelled", h.outcome(rec).Cancelled, false)
	h.order(1, job.OrderCancel)
}
