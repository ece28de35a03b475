package runner

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestStopping(t *testing.T) {
	hold(t, []rule{
		{"the worker is what the configuration says", servesAsConfigured},
		{"a runner without work stops at once", stopsIdle},
		{"running work may finish within the grace, and keeps its lease meanwhile", finishesInGrace},
		{"after the grace what is left is asked to stop, and handed back", handsBack},
		{"work that ignores being asked is handed back all the same, and Run says so", handsBackDeaf},
		{"a job that comes while the runner stops is handed back without having begun", handsBackLateJob},
		{"a job that comes after the end is left to its lease", leavesJobAfterEnd},
		{"a store that is gone does not keep the runner from stopping", stopsWithoutStore},
		{"a cancelled job is cancelled, not handed back", cancelsWhileStopping},
	})
}

func servesAsConfigured(t *testing.T) {
	h := open(t, nothing)
	want(t, "the name", h.worker.Name, "runner")
	want(t, "the queue", h.worker.Queue, "test")
	want(t, "the slots", h.worker.Slots, 8)
}

func stopsIdle(t *testing.T) {
	h := open(t, nothing)
	h.deliver(1)
	synctest.Wait()
	start := time.Now()
	wantErr(t, h.close(), nil)
	want(t, "the time it took", time.Since(start), 0)
	want(t, "serving", h.serves(), false)
}

func finishesInGrace(t *testing.T) {
	gate := make(chan struct{})
	h := open(t, deaf(gate))
	rec := h.deliver(1)
	pass(8 * time.Second)
	h.end()
	pass(24 * time.Second)
	want(t, "serving", h.serves(), false)
	want(t, "running in the grace", rec.open(), true)
	want(t, "the number of renewals", len(h.renewals()), 3)
	close(gate)
	wantErr(t, h.close(), nil)
	want(t, "handed back", h.ended(rec).HandedBack, false)
}

func handsBack(t *testing.T) {
	var why error
	h := open(t, untilStopped(&why))
	rec := h.deliver(1)
	synctest.Wait()
	h.end()
	pass(25*time.Second - 1)
	want(t, "running in the grace", rec.open(), true)
	wantErr(t, h.close(), nil)
	wantErr(t, why, exec.ErrStopping)
	o := h.ended(rec)
	want(t, "handed back", o.HandedBack, true)
	want(t, "a fault", o.Fault != nil, false)
}

func handsBackDeaf(t *testing.T) {
	letGo := make(chan struct{})
	h := open(t, deaf(letGo), func(c *Config) { c.Grace = time.Second })
	rec := h.deliver(1)
	synctest.Wait()
	start := time.Now()
	want(t, "an error", h.close() != nil, true)
	want(t, "the time it took", time.Since(start), time.Second+stopWait+2*writeWait)
	want(t, "handed back", h.ended(rec).HandedBack, true)
	close(letGo)
}

func handsBackLateJob(t *testing.T) {
	began := 0
	gate := make(chan struct{})
	h := open(t, func(context.Context, exec.Task, exec.Sink) error {
		began++
		<-gate
		return nil
	})
	h.deliver(1)
	synctest.Wait()
	h.end()
	synctest.Wait()
	late := h.deliver(2, func(c *job.Claimed) { c.Job.Attempt = 2 })
	synctest.Wait()
	want(t, "handed back", h.ended(late).HandedBack, true)
	want(t, "what it said", late.told(), "")
	want(t, "attempts that began", began, 1)
	close(gate)
}

func leavesJobAfterEnd(t *testing.T) {
	h := open(t, nothing)
	wantErr(t, h.close(), nil)
	rec := h.deliver(1)
	h.order(1, job.OrderCancel)
	synctest.Wait()
	want(t, "left alone", rec.open(), true)
}

func stopsWithoutStore(t *testing.T) {
	h := open(t, nothing)
	h.onFinish = func(job.Outcome) error { return errOutage }
	rec := h.deliver(1)
	pass(time.Second)
	wantErr(t, h.close(), nil)
	want(t, "left to its lease", rec.open(), true)
}

func cancelsWhileStopping(t *testing.T) {
	letGo := make(chan struct{})
	h := open(t, deaf(letGo), func(c *Config) { c.Grace = time.Second })
	rec := h.deliver(1)
	synctest.Wait()
	h.end()
	pass(time.Second)
	h.order(1, job.OrderCancel)
	pass(stopWait)
	want(t, "cancelled", h.ended(rec).Cancelled, true)
	want(t, "handed back", h.ended(rec).HandedBack, false)
	close(letGo)
	wantErr(t, h.close(), nil)
}
