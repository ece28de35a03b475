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
	hold(t, []rule{
		{"a cancel ends the context, and the attempt ends as cancelled with what it had said", cancels},
		{"a cancelled attempt is cancelled whatever its executor returns", cancelsWhateverIsReturned},
		{"work that ignores a cancel is finished as cancelled after its grace", cancelsWhoIgnoresIt},
		{"a job without a grace gives its work ten seconds", cancelsWithUsualGrace},
		{"a second cancel does not lengthen the grace", cancelsTwice},
		{"a lost lease ends the context, and nothing more is written", losesLease},
		{"a lost lease is not renewed, whatever its executor does", forgetsLostLease},
		{"a lease that an append finds lost ends the context likewise", losesLeaseAtAppend},
		{"a finish that comes too late is not made again", losesLeaseAtFinish},
		{"an order for a job that is not held is ignored", ignoresStrangers},
	})
}

func cancels(t *testing.T) {
	var why error
	h := open(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		_ = out.Text("so far")
		elapse(time.Millisecond)
		_ = out.Text(" so good")
		return untilStopped(&why)(ctx, task, out)
	})
	rec := h.deliver(1)
	pass(time.Millisecond)
	h.order(1, job.OrderCancel)
	synctest.Wait()
	wantErr(t, why, exec.ErrCancelled)
	o := h.ended(rec)
	want(t, "cancelled", o.Cancelled, true)
	want(t, "a fault", o.Fault != nil, false)
	want(t, "the last words", show(o.Entries), "text  so good")
	want(t, "all words", rec.told(), "text so far; text  so good")
}

func cancelsWhateverIsReturned(t *testing.T) {
	h := open(t, func(ctx context.Context, _ exec.Task, out exec.Sink) error {
		<-ctx.Done()
		out.Result(job.Result{Body: []byte("done after all")})
		return nil
	})
	rec := h.deliver(1)
	h.order(1, job.OrderCancel)
	synctest.Wait()
	want(t, "cancelled", h.ended(rec).Cancelled, true)
	want(t, "a result", h.ended(rec).Result != nil, false)
}

func cancelsWhoIgnoresIt(t *testing.T) {
	letGo := make(chan struct{})
	var late error
	h := open(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		<-letGo
		late = out.Text("I was not listening")
		out.Result(job.Result{Body: []byte("ready")})
		return nil
	})
	rec := h.deliver(1)
	synctest.Wait()
	h.order(1, job.OrderCancel)
	pass(10*time.Second - 1)
	want(t, "running within its grace", rec.open(), true)
	pass(1)
	want(t, "cancelled", h.ended(rec).Cancelled, true)
	close(letGo)
	synctest.Wait()
	wantErr(t, late, exec.ErrCancelled)
	want(t, "the number of finishes", rec.now().tries, 1)
	want(t, "what was said", rec.told(), "")
}

func cancelsWithUsualGrace(t *testing.T) {
	letGo := make(chan struct{})
	h := open(t, deaf(letGo))
	rec := h.deliver(1, func(c *job.Claimed) { c.Job.Policy.Timeouts.CancelGrace = 0 })
	synctest.Wait()
	h.order(1, job.OrderCancel)
	pass(defaultGrace - 1)
	want(t, "running within its grace", rec.open(), true)
	pass(1)
	want(t, "cancelled", h.ended(rec).Cancelled, true)
	close(letGo)
}

func cancelsTwice(t *testing.T) {
	letGo := make(chan struct{})
	h := open(t, deaf(letGo))
	rec := h.deliver(1)
	synctest.Wait()
	h.order(1, job.OrderCancel)
	pass(9 * time.Second)
	h.order(1, job.OrderCancel)
	pass(time.Second)
	want(t, "cancelled", h.ended(rec).Cancelled, true)
	close(letGo)
}

func losesLease(t *testing.T) {
	var why error
	h := open(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		_ = out.Text("stored")
		elapse(time.Millisecond)
		_ = out.Text("never stored")
		return untilStopped(&why)(ctx, task, out)
	})
	rec := h.deliver(1)
	pass(time.Millisecond)
	h.order(1, job.OrderLost)
	pass(time.Minute)
	wantErr(t, why, exec.ErrLost)
	want(t, "the number of finishes", rec.now().tries, 0)
	want(t, "what was said", rec.told(), "text stored")
	want(t, "the number of renewals", len(h.renewals()), 0)
}

func forgetsLostLease(t *testing.T) {
	letGo := make(chan struct{})
	h := open(t, deaf(letGo))
	rec := h.deliver(1, clocked(job.Timeouts{RunHard: 30 * time.Second}))
	pass(time.Second)
	h.order(1, job.OrderLost)
	pass(time.Minute)
	want(t, "the number of renewals", len(h.renewals()), 0)
	close(letGo)
	synctest.Wait()
	want(t, "the number of finishes", rec.now().tries, 0)
}

func losesLeaseAtAppend(t *testing.T) {
	var why error
	h := open(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		_ = out.Text("too late")
		return untilStopped(&why)(ctx, task, out)
	})
	h.onAppend = func([]job.Entry) error { return job.Errorf(job.LeaseLost, "another has it") }
	rec := h.deliver(1)
	pass(time.Minute)
	wantErr(t, why, exec.ErrLost)
	want(t, "the number of finishes", rec.now().tries, 0)
}

func losesLeaseAtFinish(t *testing.T) {
	h := open(t, func(context.Context, exec.Task, exec.Sink) error { return nil })
	h.onFinish = func(job.Outcome) error { return job.Errorf(job.LeaseLost, "another has it") }
	rec := h.deliver(1)
	pass(time.Minute)
	want(t, "the number of finishes", rec.now().tries, 1)
	want(t, "the number of renewals", len(h.renewals()), 0)
}

func ignoresStrangers(t *testing.T) {
	gate := make(chan struct{})
	h := open(t, deaf(gate))
	rec := h.deliver(1)
	h.order(2, job.OrderCancel)
	h.order(2, job.OrderLost)
	close(gate)
	synctest.Wait()
	want(t, "cancelled", h.ended(rec).Cancelled, false)
	h.order(1, job.OrderCancel)
}
