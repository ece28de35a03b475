package runner

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestFollow(t *testing.T) {
	hold(t, []rule{
		{"the executor works in the context, and sees the trace, of whoever follows the attempt", followsIn},
		{"whoever follows an attempt is told its end once, when that is stored", tellsTheEnd},
		{"an attempt whose lease was lost ends without an outcome", tellsTheLoss},
		{"an attempt that never begins is not followed", followsNoneThatNeverBegins},
		{"where nobody follows, the executor sees the trace of the job", passesTheTraceOn},
	})
}

type contextKey struct{}

// follower follows attempts, and remembers.
type follower struct {
	began int
	ended []*job.Outcome
}

func (f *follower) follow(ctx context.Context, j *job.Job) (context.Context, string, func(*job.Outcome)) {
	f.began++
	return context.WithValue(ctx, contextKey{}, "followed"), j.Trace + " and on", func(o *job.Outcome) { f.ended = append(f.ended, o) }
}

func followed(f *follower) func(*Config) { return func(c *Config) { c.OnAttempt = f.follow } }

func traced(c *job.Claimed) { c.Job.Trace = "here" }

func followsIn(t *testing.T) {
	var trace string
	var value any
	h := open(t, func(ctx context.Context, task exec.Task, _ exec.Sink) error {
		trace, value = task.Job.Trace, ctx.Value(contextKey{})
		return nil
	}, followed(&follower{}))
	h.deliver(1, traced)
	synctest.Wait()
	want(t, "the trace", trace, "here and on")
	want(t, "the value of the context", value, "followed")
}

func tellsTheEnd(t *testing.T) {
	f := &follower{}
	h := open(t, func(context.Context, exec.Task, exec.Sink) error {
		return &job.Fault{Code: "broken"}
	}, followed(f))
	told := -1
	h.onFinish = func(job.Outcome) error { told = len(f.ended); return nil }
	h.deliver(1)
	synctest.Wait()
	want(t, "the ends told before the end was stored", told, 0)
	want(t, "the ends told", len(f.ended), 1)
	want(t, "the fault", f.ended[0].Fault.Code, "broken")
}

func tellsTheLoss(t *testing.T) {
	f := &follower{}
	h := open(t, busy, followed(f))
	h.deliver(1)
	synctest.Wait()
	h.order(1, job.OrderLost)
	synctest.Wait()
	want(t, "the ends told", len(f.ended), 1)
	want(t, "an outcome", f.ended[0] != nil, false)
}

func followsNoneThatNeverBegins(t *testing.T) {
	f := &follower{}
	letGo := make(chan struct{})
	h := open(t, deaf(letGo), followed(f))
	h.deliver(1)
	synctest.Wait()
	h.end()
	synctest.Wait()
	late := h.deliver(2)
	synctest.Wait()
	want(t, "handed back", h.ended(late).HandedBack, true)
	want(t, "the attempts followed", f.began, 1)
	close(letGo)
	synctest.Wait()
	want(t, "the ends told", len(f.ended), 1)
}

func passesTheTraceOn(t *testing.T) {
	var trace string
	h := open(t, func(_ context.Context, task exec.Task, _ exec.Sink) error {
		trace = task.Job.Trace
		return nil
	})
	h.deliver(1, traced)
	synctest.Wait()
	want(t, "the trace", trace, "here")
}
