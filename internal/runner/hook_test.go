package runner

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestHook(t *testing.T) {
	runRules(t, []rule{
		{"the executor gets the context and the trace that the hook returns", usesHookContext},
		{"onEnd is called once, after the outcome is stored", callsOnEndOnce},
		{"onEnd gets no outcome when the lease was lost", reportsLostLease},
		{"the hook is not called for an attempt that never starts", skipsAttemptThatNeverStarts},
		{"without a hook, the executor gets the trace of the job", keepsJobTrace},
	})
}

type contextKey struct{}

// hookRecorder records the calls of its hook.
type hookRecorder struct {
	started  int
	outcomes []*job.Outcome
}

func (f *hookRecorder) hook(ctx context.Context, j *job.Job) (context.Context, string, func(*job.Outcome)) {
	f.started++
	return context.WithValue(ctx, contextKey{}, "from the hook"), j.Trace + " and on", func(o *job.Outcome) { f.outcomes = append(f.outcomes, o) }
}

func withHook(f *hookRecorder) func(*Config) { return func(c *Config) { c.OnAttempt = f.hook } }

func withTrace(c *job.Claimed) { c.Job.Trace = "here" }

func usesHookContext(t *testing.T) {
	var trace string
	var value any
	h := newHarness(t, func(ctx context.Context, task exec.Task, _ exec.Sink) error {
		trace, value = task.Job.Trace, ctx.Value(contextKey{})
		return nil
	}, withHook(&hookRecorder{}))
	h.deliver(1, withTrace)
	synctest.Wait()
	want(t, "the trace", trace, "here and on")
	want(t, "the value of the context", value, "from the hook")
}

func callsOnEndOnce(t *testing.T) {
	f := &hookRecorder{}
	h := newHarness(t, func(context.Context, exec.Task, exec.Sink) error {
		return &job.Fault{Code: "broken"}
	}, withHook(f))
	before := -1
	h.onFinish = func(job.Outcome) error { before = len(f.outcomes); return nil }
	h.deliver(1)
	synctest.Wait()
	want(t, "calls of onEnd before the outcome was stored", before, 0)
	want(t, "calls of onEnd", len(f.outcomes), 1)
	want(t, "the fault", f.outcomes[0].Fault.Code, "broken")
}

func reportsLostLease(t *testing.T) {
	f := &hookRecorder{}
	h := newHarness(t, blockUntilStopped, withHook(f))
	h.deliver(1)
	synctest.Wait()
	h.order(1, job.OrderLost)
	synctest.Wait()
	want(t, "calls of onEnd", len(f.outcomes), 1)
	want(t, "an outcome", f.outcomes[0] != nil, false)
}

func skipsAttemptThatNeverStarts(t *testing.T) {
	f := &hookRecorder{}
	release := make(chan struct{})
	h := newHarness(t, ignoreStop(release), withHook(f))
	h.deliver(1)
	synctest.Wait()
	h.stop()
	synctest.Wait()
	late := h.deliver(2)
	synctest.Wait()
	want(t, "released", h.outcome(late).Released, true)
	want(t, "calls of the hook", f.started, 1)
	close(release)
	synctest.Wait()
	want(t, "calls of onEnd", len(f.outcomes), 1)
}

func keepsJobTrace(t *testing.T) {
	var trace string
	h := newHarness(t, func(_ context.Context, task exec.Task, _ exec.Sink) error {
		trace = task.Job.Trace
		return nil
	})
	h.deliver(1, withTrace)
	synctest.Wait()
	want(t, "the trace", trace, "here")
}
