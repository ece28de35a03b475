package storetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func clockRules() []rule {
	return []rule{
		{"an attempt has overrun when it reaches its hard run timeout", clockOverrun},
		{"an attempt is silent when its first or its next output is late", clockSilent},
		{"text, json and log entries reset the idle clock; progress and attempt entries do not", clockResets},
		{"an attempt without these clocks neither overruns nor is silent", clockOff},
		{"each attempt has clocks of its own, and half as long again to begin after a failure", clockAttempts},
		{"a sweep before its clock has run out is refused", clockTooEarly},
		{"output before the sweep, also in the same batch, keeps the job", clockKept},
		{"repeated output does not reset the idle clock", clockAgain},
		{"after an opening every clock runs out, and none too early", long(clockReopened)},
	}
}

// withClocks sets a run timeout of 10 s, and output timeouts of 3 s.
func withClocks(s *store.Submit) {
	t := &s.Job.Policy.Timeouts
	t.RunHard, t.FirstOutput, t.IdleOutput = 10*time.Second, 2*time.Second, 3*time.Second
}

// wantOverdue checks that the filter lists exactly these leases.
func (w *harness) wantOverdue(when string, which store.RunningFilter, want ...job.Lease) {
	w.Helper()
	var got []job.Lease
	for _, r := range w.listRunning(which) {
		got = append(got, job.Lease{Job: r.Job.ID, Token: r.Token})
	}
	wantEqual(w, fmt.Sprintf("%s the list %d", when, which), fmt.Sprint(got), fmt.Sprint(want))
}

func clockOverrun(w *harness) {
	c := w.running(withClocks)
	leased := w.newSubmit(withClocks, leasedAs(w.token()))
	w.do(leased)
	other := job.Lease{Job: leased.Job.ID, Token: leased.Token}
	for seq := range int64(3) {
		w.advance(3 * time.Second)
		w.do(newAppend(c.Lease(), 1, seq, "a"), newRenew(c.Lease(), leaseFor))
	}
	w.advance(time.Second - time.Microsecond)
	w.wantOverdue("before its time", store.OverrunOnly)
	w.advance(time.Microsecond)
	w.wantOverdue("at its time", store.OverrunOnly, c.Lease(), other)
	f := newSweep(c.Lease(), job.Failed, store.OverrunOnly)
	w.do(f)
	wantEqual(w, "the state", f.State, job.Failed)
	w.wantOverdue("then", store.OverrunOnly, other)
}

func clockSilent(w *harness) {
	c := w.running(withClocks)
	r := w.lease(c.Lease())
	w.wantTime("the beginning", r.AttemptStartedAt, w.now())
	w.wantTime("the last output", r.LastOutputAt, time.Time{})
	w.advance(2*time.Second - time.Microsecond)
	w.wantOverdue("before its first output is late", store.SilentOnly)
	w.advance(time.Microsecond)
	w.wantOverdue("when it is late", store.SilentOnly, c.Lease())
	for seq, text := range []string{"a", strings.Repeat("long ", 1000)} {
		w.do(newAppend(c.Lease(), 1, int64(seq), text))
		w.wantTime("the last output", w.lease(c.Lease()).LastOutputAt, w.now())
		w.advance(3*time.Second - time.Microsecond)
		w.wantOverdue("before its next output is late", store.SilentOnly)
		w.advance(time.Microsecond)
		w.wantOverdue("when that is late", store.SilentOnly, c.Lease())
	}
	w.do(newSweep(c.Lease(), job.Scheduled, store.SilentOnly))
	w.wantOverdue("then", store.SilentOnly)
}

func clockResets(w *harness) {
	for kind, breaks := range map[job.Kind]bool{job.KindText: true, job.KindJSON: true, job.KindLog: true, job.KindProgress: false, job.KindAttempt: false} {
		c := w.running(withClocks)
		w.advance(time.Second)
		w.do(&store.Append{
			Lease: c.Lease(), Progress: &job.Progress{Percent: 1},
			Entries: []job.Entry{{Seq: 1, Attempt: 1, Kind: kind, Events: 1, Data: []byte("1")}},
		})
		w.advance(time.Second)
		silent := len(w.listRunning(store.SilentOnly)) == 1
		wantEqual(w, "silent after an entry of kind "+kind.String(), silent, !breaks)
		w.do(newFinish(c.Lease(), job.Succeeded))
	}
}

func clockOff(w *harness) {
	w.running()
	idle := w.running(func(s *store.Submit) { s.Job.Policy.Timeouts.IdleOutput = time.Second }, inQueue("idle"))
	w.advance(time.Hour)
	w.wantOverdue("without a clock", store.OverrunOnly)
	w.wantOverdue("without a clock", store.SilentOnly)
	w.do(newAppend(idle.Lease(), 1, 0, "a"))
	w.advance(time.Second)
	w.wantOverdue("after its first output", store.SilentOnly, idle.Lease())
}

func clockAttempts(w *harness) {
	c := w.running(withClocks)
	w.do(newAppend(c.Lease(), 1, 0, "a"))
	w.advance(time.Hour)
	w.do(newFinish(c.Lease(), job.Queued))
	w.advance(time.Hour)
	w.wantOverdue("while it waits", store.OverrunOnly)
	w.wantOverdue("while it waits", store.SilentOnly)
	c = w.claimOne(queue)
	w.wantOverdue("when it begins again", store.OverrunOnly)
	w.wantOverdue("when it begins again", store.SilentOnly)
	w.advance(3*time.Second - time.Microsecond)
	w.wantOverdue("while a second attempt may still begin", store.SilentOnly)
	w.advance(time.Microsecond)
	w.wantOverdue("when its first output is late again", store.SilentOnly, c.Lease())
	w.advance(7 * time.Second)
	w.wantOverdue("when it has run for as long as it may", store.OverrunOnly, c.Lease())
}

func clockTooEarly(w *harness) {
	c := w.running(withClocks)
	w.advance(2*time.Second - time.Microsecond)
	for _, to := range []job.State{job.Failed, job.Scheduled, job.Queued, job.Cancelled} {
		w.mustRefuse(job.LeaseLost, newSweep(c.Lease(), to, store.OverrunOnly), newSweep(c.Lease(), to, store.SilentOnly),
			newSweep(c.Lease(), to, store.LapsedOnly), newSweep(c.Lease(), to, store.CancelOnly))
	}
	w.do(newFinish(c.Lease(), job.Succeeded))
}

func clockKept(w *harness) {
	c := w.running(withClocks)
	w.advance(5 * time.Second)
	late, sweep := newAppend(c.Lease(), 1, 0, "late"), newSweep(c.Lease(), job.Failed, store.SilentOnly)
	w.try(sweep, late)
	if late.Err != nil {
		w.Errorf("the output was refused: %v", late.Err)
	}
	w.wantCode(job.LeaseLost, sweep.Err)
	wantEqual(w, "the state", w.job(c.Job.ID).State, job.Running)
	w.advance(3 * time.Second)
	w.do(newSweep(c.Lease(), job.Failed, store.SilentOnly))
}

func clockAgain(w *harness) {
	c := w.running(withClocks)
	w.do(newAppend(c.Lease(), 1, 0, "a"))
	w.advance(2 * time.Second)
	w.do(newAppend(c.Lease(), 1, 0, "a"))
	w.advance(time.Second)
	w.wantOverdue("3 s after output that was sent once", store.SilentOnly, c.Lease())
}

func clockReopened(w *harness) {
	nothing, withText, logged := w.running(withClocks), w.running(withClocks), w.running(withClocks)
	output := newAppend(logged.Lease(), 1, 0, "a line")
	output.Entries[0].Kind = job.KindLog
	w.advance(time.Second)
	w.do(newAppend(withText.Lease(), 1, 0, "a"), output)
	w.advance(time.Second)
	w.reopen()
	began := w.lease(nothing.Lease()).AttemptStartedAt
	if began.Before(nothing.Job.StartedAt) || began.After(w.now()) {
		w.Errorf("an attempt that began at %v has the start %v", nothing.Job.StartedAt, began)
	}
	w.advance(2*time.Second - time.Microsecond)
	for _, r := range w.listRunning(store.SilentOnly) {
		if r.Job.ID != nothing.Job.ID {
			w.Errorf("a job with output 3 s ago is silent: %s", text(r.Job))
		}
	}
	w.wantOverdue("before its time", store.OverrunOnly)
	w.advance(time.Second + time.Microsecond)
	w.wantOverdue("3 s after the opening", store.SilentOnly, nothing.Lease(), withText.Lease(), logged.Lease())
	w.advance(7 * time.Second)
	w.wantOverdue("10 s after the opening", store.OverrunOnly, nothing.Lease(), withText.Lease(), logged.Lease())
}
