package runner

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestShutdown(t *testing.T) {
	runRules(t, []rule{
		{"the worker has the configured name, queue and slots", servesAsConfigured},
		{"a runner without work stops at once", stopsIdle},
		{"running work may finish within the grace, and its lease is renewed meanwhile", finishesInGrace},
		{"work that is left after the grace is asked to stop, and released", releasesAfterGrace},
		{"work that ignores the request is released too, and Run returns an error", releasesWorkThatIgnoresStop},
		{"a job delivered while the runner stops is released without having started", releasesLateJob},
		{"a job delivered after the end is left to its lease", ignoresJobAfterEnd},
		{"an unreachable store does not keep the runner from stopping", stopsWithoutStore},
		{"a cancelled job is cancelled, not released", cancelsWhileStopping},
	})
}

func servesAsConfigured(t *testing.T) {
	h := newHarness(t, returnNil)
	want(t, "the name", h.worker.Name, "runner")
	want(t, "the queue", h.worker.Queue, "test")
	want(t, "the slots", h.worker.Slots, 8)
}

func stopsIdle(t *testing.T) {
	h := newHarness(t, returnNil)
	h.deliver(1)
	synctest.Wait()
	start := time.Now()
	wantErr(t, h.close(), nil)
	want(t, "the time it took", time.Since(start), 0)
	want(t, "subscribed", h.subscribed(), false)
}

func finishesInGrace(t *testing.T) {
	gate := make(chan struct{})
	h := newHarness(t, ignoreStop(gate))
	rec := h.deliver(1)
	advance(8 * time.Second)
	h.stop()
	advance(24 * time.Second)
	want(t, "subscribed", h.subscribed(), false)
	want(t, "running in the grace", rec.running(), true)
	want(t, "the number of renewals", len(h.renewals()), 3)
	close(gate)
	wantErr(t, h.close(), nil)
	want(t, "released", h.outcome(rec).Released, false)
}

func releasesAfterGrace(t *testing.T) {
	var why error
	h := newHarness(t, untilStopped(&why))
	rec := h.deliver(1)
	synctest.Wait()
	h.stop()
	advance(25*time.Second - 1)
	want(t, "running in the grace", rec.running(), true)
	wantErr(t, h.close(), nil)
	wantErr(t, why, exec.ErrStopping)
	o := h.outcome(rec)
	want(t, "released", o.Released, true)
	want(t, "a fault", o.Fault != nil, false)
}

func releasesWorkThatIgnoresStop(t *testing.T) {
	release := make(chan struct{})
	h := newHarness(t, ignoreStop(release), func(c *Config) { c.Grace = time.Second })
	rec := h.deliver(1)
	synctest.Wait()
	start := time.Now()
	want(t, "an error", h.close() != nil, true)
	want(t, "the time it took", time.Since(start), time.Second+stopTimeout+2*writeTimeout)
	want(t, "released", h.outcome(rec).Released, true)
	close(release)
}

func releasesLateJob(t *testing.T) {
	started := 0
	gate := make(chan struct{})
	h := newHarness(t, func(context.Context, exec.Task, exec.Sink) error {
		started++
		<-gate
		return nil
	})
	h.deliver(1)
	synctest.Wait()
	h.stop()
	synctest.Wait()
	late := h.deliver(2, func(c *job.Claimed) { c.Job.Attempt = 2 })
	synctest.Wait()
	want(t, "released", h.outcome(late).Released, true)
	want(t, "its log", late.log(), "")
	want(t, "attempts that started", started, 1)
	close(gate)
}

func ignoresJobAfterEnd(t *testing.T) {
	h := newHarness(t, returnNil)
	wantErr(t, h.close(), nil)
	rec := h.deliver(1)
	h.order(1, job.OrderCancel)
	synctest.Wait()
	want(t, "left alone", rec.running(), true)
}

func stopsWithoutStore(t *testing.T) {
	h := newHarness(t, returnNil)
	h.onFinish = func(job.Outcome) error { return errOutage }
	rec := h.deliver(1)
	advance(time.Second)
	wantErr(t, h.close(), nil)
	want(t, "left to its lease", rec.running(), true)
}

func cancelsWhileStopping(t *testing.T) {
	release := make(chan struct{})
	h := newHarness(t, ignoreStop(release), func(c *Config) { c.Grace = time.Second })
	rec := h.deliver(1)
	synctest.Wait()
	h.stop()
	advance(time.Second)
	h.order(1, job.OrderCancel)
	advance(stopTimeout)
	want(t, "cancelled", h.outcome(rec).Cancelled, true)
	want(t, "released", h.outcome(rec).Released, false)
	close(release)
	wantErr(t, h.close(), nil)
}
