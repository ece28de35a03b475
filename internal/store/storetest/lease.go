package storetest

import (
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func leaseRules() []rule {
	return []rule{
		{"a lease of an earlier attempt changes nothing", fenceStale},
		{"a zero lease changes nothing, whatever state the job is in", long(fenceZero)},
		{"a lease of another job changes nothing", fenceForeign},
		{"a finished lease changes nothing", fenceEnded},
		{"a lease of a job that does not exist changes nothing", fenceUnknown},
		{"a made-up token changes nothing", long(fenceMadeUp)},
		{"the lease of a deleted and ended job changes nothing", fenceDeleted},
		{"a refused op of one worker does not affect others in the batch", fenceOtherOps},
		{"every answer to a worker has the cancel request", workerAnswers},
		{"running jobs are listed by id with their leases, page by page", runningPages},
		{"HasOutput is true once text or json was appended under the lease, and false before, regardless of earlier attempts", long(leaseHasOutput)},
	}
}

// wantLeaseRefused checks that every op with the lease is refused.
func (w *harness) wantLeaseRefused(l job.Lease) {
	w.Helper()
	w.mustRefuse(job.LeaseLost, newRenew(l, leaseFor), newAppend(l, 1, 0, "late"), newAppend(l, 2, 1, "late"))
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Cancelled, job.Scheduled, job.Queued} {
		w.mustRefuse(job.LeaseLost, newFinish(l, to), newLapse(l, to))
	}
}

func fenceStale(w *harness) {
	first := w.running()
	w.do(newAppend(first.Lease(), 1, 0, "one"), newFinish(first.Lease(), job.Queued))
	w.wantLeaseRefused(first.Lease())
	second := w.claimOne(queue)
	w.wantLeaseRefused(first.Lease())
	w.advance(2 * leaseFor)
	w.wantLeaseRefused(first.Lease())
	w.do(newFinish(second.Lease(), job.Scheduled))
	w.wantLeaseRefused(first.Lease())
	w.wantLeaseRefused(second.Lease())
}

func fenceZero(w *harness) {
	for _, state := range reachable() {
		id, _ := w.inState(state)
		w.wantLeaseRefused(job.Lease{Job: id})
	}
}

func fenceForeign(w *harness) {
	mine, other := w.running(), w.running()
	waiting := w.submit()
	w.wantLeaseRefused(job.Lease{Job: mine.Job.ID, Token: other.Token})
	w.wantLeaseRefused(job.Lease{Job: waiting, Token: other.Token})
	w.advance(2 * leaseFor)
	w.wantLeaseRefused(job.Lease{Job: mine.Job.ID, Token: other.Token})
}

func fenceEnded(w *harness) {
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Cancelled} {
		c := w.running()
		w.do(newFinish(c.Lease(), to))
		w.wantLeaseRefused(c.Lease())
	}
	failed := w.running()
	w.do(newFinish(failed.Lease(), job.Failed), newRetry(failed.Job.ID))
	w.wantLeaseRefused(failed.Lease())
}

func fenceUnknown(w *harness) {
	w.running()
	w.wantLeaseRefused(job.Lease{Job: w.id(), Token: w.token()})
	w.wantLeaseRefused(job.Lease{})
}

func fenceMadeUp(w *harness) {
	for _, state := range reachable() {
		id, _ := w.inState(state)
		w.wantLeaseRefused(job.Lease{Job: id, Token: w.token()})
	}
}

func fenceDeleted(w *harness) {
	c := w.running()
	w.do(newDelete(c.Job.ID))
	w.do(newFinish(c.Lease(), job.Cancelled))
	w.wantLeaseRefused(c.Lease())
}

func fenceOtherOps(w *harness) {
	good, lost := w.running(), w.running()
	w.do(newFinish(lost.Lease(), job.Queued))
	bad := []any{newRenew(lost.Lease(), leaseFor), newAppend(lost.Lease(), 1, 0, "x"), newFinish(lost.Lease(), job.Failed)}
	fine := []any{newRenew(good.Lease(), leaseFor), newAppend(good.Lease(), 1, 0, "text"), newFinish(good.Lease(), job.Succeeded)}
	w.try(append(bad, fine...)...)
	for i := range bad {
		w.wantCode(job.LeaseLost, errOf(bad[i]))
		if err := errOf(fine[i]); err != nil {
			w.Errorf("%T was refused in a batch with a lost lease: %v", fine[i], err)
		}
	}
	wantEqual(w, "the state", w.job(good.Job.ID).State, job.Succeeded)
	wantEqual(w, "the state of the other", w.job(lost.Job.ID).State, job.Queued)
}

func workerAnswers(w *harness) {
	c := w.running()
	renew, output := newRenew(c.Lease(), leaseFor), newAppend(c.Lease(), 1, 0, "a")
	w.do(renew, output)
	wantEqual(w, "a cancel request before the cancel", renew.CancelRequested || output.CancelRequested, false)
	w.do(newCancel(c.Job.ID))
	for seq := range int64(2) {
		renew, output = newRenew(c.Lease(), leaseFor), newAppend(c.Lease(), 1, 1+seq, "b")
		w.do(renew, output)
		wantEqual(w, "the cancel request in a renewal", renew.CancelRequested, true)
		wantEqual(w, "the cancel request in an append", output.CancelRequested, true)
	}
}

func leaseHasOutput(w *harness) {
	c := w.running()
	seq := int64(0)
	output := func(kind job.Kind, data string) {
		w.Helper()
		seq++
		w.do(&store.Append{Lease: c.Lease(), Entries: []job.Entry{{Seq: seq, Attempt: 1, Kind: kind, Events: 1, Data: []byte(data)}}})
	}
	has := func(when string, want bool) {
		w.Helper()
		for _, opened := range []string{"", ", opened again"} {
			if opened != "" {
				w.reopen()
			}
			r := w.listRunning(store.AllRunning)
			if len(r) != 1 || r[0].HasOutput != want {
				w.Errorf("%s%s: the lease has output: %v, want %v", when, opened, !want, want)
			}
		}
	}
	long := strings.Repeat("long ", 200) // long enough for a row of its own in some stores
	for _, kind := range []job.Kind{job.KindText, job.KindJSON} {
		for _, data := range []string{"1", long} {
			has("at first", false)
			for _, other := range []job.Kind{job.KindAttempt, job.KindLog, job.KindProgress} {
				output(other, data)
			}
			has("after log, progress and restart", false)
			output(kind, data)
			has("after "+kind.String(), true)
			output(job.KindLog, data)
			has("after a log behind "+kind.String(), true)
			w.do(newFinish(c.Lease(), job.Queued))
			c = w.claimOne(queue)
		}
	}
}

func runningPages(w *harness) {
	w.submitMany(25)
	claimed := w.claim(queue, 20)
	w.do(newFinish(claimed[3].Lease(), job.Succeeded), newFinish(claimed[7].Lease(), job.Queued))
	want := map[job.ID]job.Token{}
	for _, c := range claimed {
		want[c.Job.ID] = c.Token
	}
	delete(want, claimed[3].Job.ID)
	delete(want, claimed[7].Job.ID)

	var after job.ID
	for len(want) > 0 {
		page, err := w.store.Running(w.ctx, store.AllRunning, after, 4)
		if err != nil || len(page) == 0 || len(page) > 4 {
			w.Fatalf("a page of 4 has %d running jobs, %v; %d were not listed", len(page), err, len(want))
		}
		for _, r := range page {
			if string(r.Job.ID[:]) <= string(after[:]) || want[r.Job.ID] != r.Token {
				w.Fatalf("%s is listed out of order, twice, or with another lease", r.Job.ID)
			}
			wantEqual(w, "the listed job", text(r.Job), text(w.job(r.Job.ID)))
			delete(want, r.Job.ID)
			after = r.Job.ID
		}
	}
	page, err := w.store.Running(w.ctx, store.AllRunning, after, 4)
	if err != nil || len(page) != 0 {
		w.Errorf("after the last running job there are %d more, %v", len(page), err)
	}
}

func lapseRules() []rule {
	return []rule{
		{"a sweep ends a lease that has run out", lapseEnds},
		{"a sweep is refused while the lease lasts", lapseTooEarly},
		{"a renewal before the sweep keeps the job", lapseAfterRenewal},
		{"a late finish before the sweep applies", lapseAfterFinish},
		{"an append does not renew the lease", lapseAfterAppend},
		{"in one batch a late renewal or finish applies before the sweep", lapseInOneBatch},
		{"only leases that have run out are listed as lapsed", lapseListed},
		{"a renewal may also shorten a lease", lapseShortened},
		{"after a sweep the worker's lease is refused", lapseFences},
	}
}

func lapseEnds(w *harness) {
	c := w.running()
	w.advance(leaseFor + time.Second)
	f := newLapse(c.Lease(), job.Queued)
	w.do(f)
	wantEqual(w, "the state of the job", f.State, job.Queued)
	wantEqual(w, "the state", w.job(c.Job.ID).State, job.Queued)
	wantEqual(w, "the next attempt", w.claimOne(queue).Job.Attempt, 2)
}

func lapseTooEarly(w *harness) {
	c := w.running()
	w.advance(leaseFor - time.Second)
	w.mustRefuse(job.LeaseLost, newLapse(c.Lease(), job.Queued), newLapse(c.Lease(), job.Failed))
	w.do(newFinish(c.Lease(), job.Succeeded))
}

func lapseAfterRenewal(w *harness) {
	c := w.running()
	w.advance(leaseFor + time.Hour)
	w.do(newRenew(c.Lease(), time.Minute))
	w.mustRefuse(job.LeaseLost, newLapse(c.Lease(), job.Queued))
	w.advance(time.Minute - time.Second)
	w.mustRefuse(job.LeaseLost, newLapse(c.Lease(), job.Queued))
	w.advance(2 * time.Second)
	w.do(newLapse(c.Lease(), job.Queued))
}

func lapseAfterFinish(w *harness) {
	c := w.running()
	w.advance(leaseFor + time.Hour)
	w.do(newAppend(c.Lease(), 1, 0, "late"), newFinish(c.Lease(), job.Succeeded))
	w.mustRefuse(job.LeaseLost, newLapse(c.Lease(), job.Queued))
	wantEqual(w, "the state", w.job(c.Job.ID).State, job.Succeeded)
}

func lapseAfterAppend(w *harness) {
	c := w.running()
	w.advance(leaseFor - time.Second)
	w.do(newAppend(c.Lease(), 1, 0, "still here"))
	w.advance(2 * time.Second)
	w.do(newLapse(c.Lease(), job.Queued))
}

func lapseInOneBatch(w *harness) {
	renewed, finished := w.running(), w.running()
	w.advance(leaseFor + time.Second)
	sweeps := []*store.Finish{newLapse(renewed.Lease(), job.Queued), newLapse(finished.Lease(), job.Queued)}
	late := newFinish(finished.Lease(), job.Succeeded)
	renew := newRenew(renewed.Lease(), leaseFor)
	w.try(late, sweeps[0], sweeps[1], renew)
	if late.Err != nil || renew.Err != nil {
		w.Errorf("the late finish got %v, the late renewal %v", late.Err, renew.Err)
	}
	w.wantCode(job.LeaseLost, sweeps[0].Err)
	w.wantCode(job.LeaseLost, sweeps[1].Err)
	wantEqual(w, "the state of the renewed", w.job(renewed.Job.ID).State, job.Running)
	wantEqual(w, "the state of the finished", w.job(finished.Job.ID).State, job.Succeeded)
}

func lapseListed(w *harness) {
	w.submitMany(3)
	claimed := w.claim(queue, 3)
	w.advance(leaseFor - time.Second)
	wantEqual(w, "the lapsed leases", len(w.listRunning(store.LapsedOnly)), 0)
	w.do(newRenew(claimed[1].Lease(), leaseFor))
	w.advance(2 * time.Second)
	lapsed := w.listRunning(store.LapsedOnly)
	if len(lapsed) != 2 || lapsed[0].Token != claimed[0].Token || lapsed[1].Token != claimed[2].Token {
		w.Errorf("the lapsed leases are %+v", lapsed)
	}
	w.do(newRenew(claimed[0].Lease(), leaseFor), newFinish(claimed[2].Lease(), job.Succeeded))
	wantEqual(w, "the lapsed leases", len(w.listRunning(store.LapsedOnly)), 0)
	wantEqual(w, "the running jobs", len(w.listRunning(store.AllRunning)), 2)
}

func lapseShortened(w *harness) {
	c := w.running()
	w.do(newRenew(c.Lease(), time.Second))
	w.advance(2 * time.Second)
	w.do(newLapse(c.Lease(), job.Queued))
}

func lapseFences(w *harness) {
	c := w.running()
	w.advance(leaseFor + time.Second)
	w.do(newLapse(c.Lease(), job.Queued))
	w.wantLeaseRefused(c.Lease())
	w.claimOne(queue)
	w.wantLeaseRefused(c.Lease())
}
