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
		{"text, json and log entries reset the idle clock; progress and attempt entries do not", clockBreaks},
		{"an attempt without these clocks neither overruns nor is silent", clockOff},
		{"each attempt has clocks of its own", clockAttempts},
		{"a sweep before its clock has run out is refused", clockTooEarly},
		{"output before the sweep, also in the same batch, keeps the job", clockKept},
		{"repeated output does not reset the idle clock", clockAgain},
		{"after an opening every clock runs out, and none too early", long(clockReopened)},
	}
}

// clocked is a job with a run time of 10 s and 3 s for each output.
func clocked(s *store.Submit) {
	t := &s.Job.Policy.Timeouts
	t.RunHard, t.FirstOutput, t.IdleOutput = 10*time.Second, 2*time.Second, 3*time.Second
}

// ranOut checks by which clocks jobs have run out, and that others are refused.
func (w *harness) ranOut(when string, which store.RunningFilter, want ...job.Lease) {
	w.Helper()
	var got []job.Lease
	for _, r := range w.listRunning(which) {
		got = append(got, job.Lease{Job: r.Job.ID, Token: r.Token})
	}
	equal(w, fmt.Sprintf("%s the list %d", when, which), fmt.Sprint(got), fmt.Sprint(want))
}

func clockOverrun(w *harness) {
	c := w.running(clocked)
	leased := w.newSubmit(clocked, leasedAs(w.token()))
	w.do(leased)
	other := job.Lease{Job: leased.Job.ID, Token: leased.Token}
	for seq := range int64(3) {
		w.pass(3 * time.Second)
		w.do(newAppend(c.Lease(), 1, seq, "a"), newRenew(c.Lease(), leaseFor))
	}
	w.pass(time.Second - time.Microsecond)
	w.ranOut("before its time", store.OverrunOnly)
	w.pass(time.Microsecond)
	w.ranOut("at its time", store.OverrunOnly, c.Lease(), other)
	f := newSweep(c.Lease(), job.Failed, store.OverrunOnly)
	w.do(f)
	equal(w, "the state", f.State, job.Failed)
	w.ranOut("then", store.OverrunOnly, other)
}

func clockSilent(w *harness) {
	c := w.running(clocked)
	r := w.lease(c.Lease())
	w.at("the beginning", r.AttemptStartedAt, w.now())
	w.at("the last output", r.LastOutputAt, time.Time{})
	w.pass(2*time.Second - time.Microsecond)
	w.ranOut("before its first output is late", store.SilentOnly)
	w.pass(time.Microsecond)
	w.ranOut("when it is late", store.SilentOnly, c.Lease())
	for seq, said := range []string{"a", strings.Repeat("long ", 1000)} {
		w.do(newAppend(c.Lease(), 1, int64(seq), said))
		w.at("the last output", w.lease(c.Lease()).LastOutputAt, w.now())
		w.pass(3*time.Second - time.Microsecond)
		w.ranOut("before its next output is late", store.SilentOnly)
		w.pass(time.Microsecond)
		w.ranOut("when that is late", store.SilentOnly, c.Lease())
	}
	w.do(newSweep(c.Lease(), job.Scheduled, store.SilentOnly))
	w.ranOut("then", store.SilentOnly)
}

func clockBreaks(w *harness) {
	for kind, breaks := range map[job.Kind]bool{job.KindText: true, job.KindJSON: true, job.KindLog: true, job.KindProgress: false, job.KindAttempt: false} {
		c := w.running(clocked)
		w.pass(time.Second)
		w.do(&store.Append{
			Lease: c.Lease(), Progress: &job.Progress{Percent: 1},
			Entries: []job.Entry{{Seq: 1, Attempt: 1, Kind: kind, Events: 1, Data: []byte("1")}},
		})
		w.pass(time.Second)
		silent := len(w.listRunning(store.SilentOnly)) == 1
		equal(w, "silent although it said "+kind.String(), silent, !breaks)
		w.do(newFinish(c.Lease(), job.Succeeded))
	}
}

func clockOff(w *harness) {
	w.running()
	idle := w.running(func(s *store.Submit) { s.Job.Policy.Timeouts.IdleOutput = time.Second }, inQueue("idle"))
	w.pass(time.Hour)
	w.ranOut("without a clock", store.OverrunOnly)
	w.ranOut("without a clock", store.SilentOnly)
	w.do(newAppend(idle.Lease(), 1, 0, "a"))
	w.pass(time.Second)
	w.ranOut("after its first output", store.SilentOnly, idle.Lease())
}

func clockAttempts(w *harness) {
	c := w.running(clocked)
	w.do(newAppend(c.Lease(), 1, 0, "a"))
	w.pass(time.Hour)
	w.do(newFinish(c.Lease(), job.Queued))
	w.pass(time.Hour)
	w.ranOut("while it waits", store.OverrunOnly)
	w.ranOut("while it waits", store.SilentOnly)
	c = w.claimOne(queue)
	w.ranOut("when it begins again", store.OverrunOnly)
	w.ranOut("when it begins again", store.SilentOnly)
	w.pass(2 * time.Second)
	w.ranOut("when its first output is late again", store.SilentOnly, c.Lease())
	w.pass(8 * time.Second)
	w.ranOut("when it has run for as long as it may", store.OverrunOnly, c.Lease())
}

func clockTooEarly(w *harness) {
	c := w.running(clocked)
	w.pass(2*time.Second - time.Microsecond)
	for _, to := range []job.State{job.Failed, job.Scheduled, job.Queued, job.Cancelled} {
		w.refused(job.LeaseLost, newSweep(c.Lease(), to, store.OverrunOnly), newSweep(c.Lease(), to, store.SilentOnly),
			newSweep(c.Lease(), to, store.LapsedOnly), newSweep(c.Lease(), to, store.CancelOnly))
	}
	w.do(newFinish(c.Lease(), job.Succeeded))
}

func clockKept(w *harness) {
	c := w.running(clocked)
	w.pass(5 * time.Second)
	late, sweep := newAppend(c.Lease(), 1, 0, "late"), newSweep(c.Lease(), job.Failed, store.SilentOnly)
	w.try(sweep, late)
	if late.Err != nil {
		w.Errorf("the output was refused: %v", late.Err)
	}
	w.coded(job.LeaseLost, sweep.Err)
	equal(w, "the state", w.job(c.Job.ID).State, job.Running)
	w.pass(3 * time.Second)
	w.do(newSweep(c.Lease(), job.Failed, store.SilentOnly))
}

func clockAgain(w *harness) {
	c := w.running(clocked)
	w.do(newAppend(c.Lease(), 1, 0, "a"))
	w.pass(2 * time.Second)
	w.do(newAppend(c.Lease(), 1, 0, "a"))
	w.pass(time.Second)
	w.ranOut("3 s after what was said once", store.SilentOnly, c.Lease())
}

func clockReopened(w *harness) {
	nothing, spoke, logged := w.running(clocked), w.running(clocked), w.running(clocked)
	say := newAppend(logged.Lease(), 1, 0, "a line")
	say.Entries[0].Kind = job.KindLog
	w.pass(time.Second)
	w.do(newAppend(spoke.Lease(), 1, 0, "a"), say)
	w.pass(time.Second)
	w.reopen()
	began := w.lease(nothing.Lease()).AttemptStartedAt
	if began.Before(nothing.Job.StartedAt) || began.After(w.now()) {
		w.Errorf("an attempt that began at %v is said to have begun at %v", nothing.Job.StartedAt, began)
	}
	w.pass(2*time.Second - time.Microsecond)
	for _, r := range w.listRunning(store.SilentOnly) {
		if r.Job.ID != nothing.Job.ID {
			w.Errorf("a job is silent that has spoken 3 s ago: %s", text(r.Job))
		}
	}
	w.ranOut("before its time", store.OverrunOnly)
	w.pass(time.Second + time.Microsecond)
	w.ranOut("3 s after the opening", store.SilentOnly, nothing.Lease(), spoke.Lease(), logged.Lease())
	w.pass(7 * time.Second)
	w.ranOut("10 s after the opening", store.OverrunOnly, nothing.Lease(), spoke.Lease(), logged.Lease())
}
