package storetest

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// endKind is the kind of the rows that rowAtEnd makes.
const endKind = "end"

// ending is the body of a row that an end made: the fields of its [store.End].
type ending struct {
	State  string
	Result string `json:",omitempty"`
	Text   string `json:",omitempty"`
	// Entries is the log, for a parent whose name begins with "entries of".
	Entries string `json:",omitempty"`
	Code    string `json:",omitempty"` // of the failure
}

// atEnd is the store.AtEnd of every store in the suite. The references of a job select the rows
// and jobs that its end makes: "ACTION:PARENT" or "ACTION:PARENT:LIMIT" a row "end" under the
// parent, "job:QUEUE" a job in the queue, "later:QUEUE" a job with a delay. The last end of a
// tally makes a job in the queue "tally of NAME".
func atEnd(e store.End) (f store.FollowUp) {
	for _, ref := range e.Job.Refs {
		switch verb, queue, _ := strings.Cut(ref, ":"); {
		case verb == "job" && e.Job.State.Ended():
			f.Jobs = append(f.Jobs, followUp(&e.Job, queue, 0))
		case verb == "later" && e.Job.State.Ended():
			f.Jobs = append(f.Jobs, followUp(&e.Job, queue, time.Hour))
		case verb == "put" || verb == "update":
			f.Rows = append(f.Rows, rowAtEnd(&e, ref))
		}
	}
	if e.Tally != nil && e.Tally.Unfinished() == 0 && e.Job.Tally != countedOnly {
		f.Jobs = append(f.Jobs, followUp(&e.Job, "tally of "+e.Job.Tally, 0))
	}
	return f
}

// countedOnly is a tally whose last end makes no job.
const countedOnly = "only counted"

func rowAtEnd(e *store.End, ref string) store.Row {
	limit := 1 << 20
	if parts := strings.Split(ref, ":"); len(parts) == 3 {
		fmt.Sscan(parts[2], &limit)
	}
	body := ending{State: e.Job.State.String(), Text: e.Text(limit)}
	if strings.HasPrefix(refParent(ref), "entries of") {
		for _, entry := range e.Entries(limit) {
			body.Entries += fmt.Sprintf("%d.%d %s;", entry.Attempt, entry.Seq, entry.Data)
		}
	}
	if e.Result != nil {
		body.Result = string(e.Result.Body)
	}
	if e.Job.Failure != nil {
		body.Code = e.Job.Failure.Code
	}
	raw, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	action := store.Put
	if strings.HasPrefix(ref, "update:") {
		action = store.Update
	}
	return store.Row{Owner: e.Job.Owner, Kind: endKind, Parent: refParent(ref), ID: "end", Body: raw, Action: action}
}

// followUp is a job that an end makes. The same end always makes the same job.
func followUp(j *job.Job, queue string, delay time.Duration) *store.Submit {
	hash := sha256.Sum256(fmt.Appendf(nil, "%s %d %s", j.ID, j.FinishedAt.UnixMicro(), queue))
	return &store.Submit{
		Job:   job.Job{ID: job.ID(hash[:16]), Owner: j.Owner, Queue: queue, Priority: 5, MaxAttempts: 3, Policy: j.Policy, Metadata: map[string]string{"parent": j.ID.String()}},
		Input: []byte(j.State.String()), Delay: delay,
	}
}

func refParent(ref string) string { return strings.Split(ref+":", ":")[1] }

// wantEnding checks the row that the end of a job with the reference "put:parent" made.
func (w *harness) wantEnding(parent string, want ending) {
	w.Helper()
	raw, err := json.Marshal(want)
	if err != nil {
		w.Fatalf("%v", err)
	}
	rows := w.rows(endKind, parent)
	if len(rows) != 1 || string(rows[0].Body) != string(raw) {
		w.Errorf("the end of %q left %q, want %s", parent, rows, raw)
	}
}

func endRules() []rule {
	return []rule{
		{"every kind of end makes its rows in the same commit", endsMakeRows},
		{"a job that waits again has not ended", endsNotByRequeue},
		{"the end of a job without references makes no rows", endsWithoutRef},
		{"each end of a retried job makes its rows", endsAfterRetry},
		{"a retry makes the rows that undo the end, in the same commit", retryUndoesEnds},
		{"the text of an end is the text of the last attempt", endsText},
		{"the text of an end has text entries only, joined, up to the limit", endsTextOnly},
		{"a job cancelled in its backoff keeps the text of its last attempt", endsTextOfWaiting},
		{"the text does not contain the output of an attempt that was released uncounted", endsTextAfterRefund},
		{"an end may update an existing row, and does not create a missing one", endsUpdate},
		{"an end sees the job as it ended", endsState},
		{"an end with SkipAtEnd makes nothing, and counts in the tally", endsSkipped},
		{"a pruned job does not end again", endsNotByPrune},
		{"each reference of a job makes its own rows", endsOfReferences},
		{"an end reads the log from its beginning", endsEntries},
		{"every kind of end makes its jobs in the same commit, past every limit", endsMakeJobs},
		{"a job that an end makes waits for its delay, is claimed and ends like any other", endsMakeLaterJobs},
		{"a job that two ends make exists once", endsMakeJobsOnce},
	}
}

func endsMakeRows(w *harness) {
	refer := func(parent string) func(*store.Submit) { return withRef("put:" + parent) }
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Cancelled} {
		f := newFinish(w.running(refer(to.String())).Lease(), to)
		f.Entries = textEntries(1, 0, "text")
		w.do(f)
	}
	w.wantEnding("succeeded", ending{State: "succeeded", Result: "result", Text: "text"})
	w.wantEnding("failed", ending{State: "failed", Text: "text", Code: "bad_input"})
	w.wantEnding("cancelled", ending{State: "cancelled", Text: "text"})

	w.do(newCancel(w.submit(refer("cancel queued"))))
	w.do(newCancel(w.submit(refer("cancel scheduled"), delayed(time.Minute))))
	w.do(newDelete(w.submit(refer("delete queued"))))
	c := w.running(refer("delete running"))
	w.do(newDelete(c.Job.ID))
	wantEqual(w, "the rows before the end", len(w.rows(endKind, "delete running")), 0)
	w.do(newFinish(c.Lease(), job.Succeeded))
	c = w.running(refer("cancel running"))
	w.do(newCancel(c.Job.ID))
	wantEqual(w, "the rows before the end", len(w.rows(endKind, "cancel running")), 0)
	w.do(newFinish(c.Lease(), job.Succeeded))
	for _, parent := range []string{"cancel queued", "cancel scheduled", "delete queued", "delete running", "cancel running"} {
		w.wantEnding(parent, ending{State: "cancelled"})
	}
	w.submit(refer("expire"), withQueueTimeout(time.Second))
	w.advance(2 * time.Second)
	w.do(newDue())
	w.wantEnding("expire", ending{State: "expired", Code: "queue_timeout"})
	c = w.running(refer("swept"))
	w.advance(leaseFor + time.Second)
	w.do(newLapse(c.Lease(), job.Failed))
	w.wantEnding("swept", ending{State: "failed", Code: "bad_input"})
}

func endsNotByRequeue(w *harness) {
	c := w.running(withRef("put:p"))
	w.do(newFinish(c.Lease(), job.Queued))
	c = w.claimOne(queue)
	w.do(newCancel(w.submit()), newFinish(c.Lease(), job.Scheduled))
	wantEqual(w, "the rows", len(w.rows(endKind, "p")), 0)
}

func endsWithoutRef(w *harness) {
	for _, state := range reachable() {
		w.inState(state)
	}
	wantEqual(w, "the rows", len(w.rows(endKind, "")), 0)
}

func endsSkipped(w *harness) {
	c := w.running(withRef("put:p"), withRef("job:follow"), func(s *store.Submit) { s.Job.Tally = "bare" })
	f := newFinish(c.Lease(), job.Failed)
	f.SkipAtEnd = true
	w.do(f)
	wantEqual(w, "the state", w.job(c.Job.ID).State, job.Failed)
	wantEqual(w, "the rows", len(w.rows(endKind, "p")), 0)
	wantEqual(w, "the jobs that follow", w.counts("follow").Queued+w.counts("tally of bare").Queued, 0)
	counts, err := w.store.Tally(w.ctx, c.Job.Owner, "bare")
	if err != nil || counts.Failed != 1 || counts.Unfinished() != 0 {
		w.Errorf("the tally is %+v, %v", counts, err)
	}
	w.submit(withRef("put:p"), withQueueTimeout(time.Second))
	w.advance(2 * time.Second)
	due := newDue()
	due.SkipAtEnd = true
	w.do(due)
	wantEqual(w, "the jobs that expired", len(due.Expired), 1)
	wantEqual(w, "the rows", len(w.rows(endKind, "p")), 0)
}

func endsAfterRetry(w *harness) {
	c := w.running(withRef("put:p"))
	w.do(newFinish(c.Lease(), job.Failed))
	w.wantEnding("p", ending{State: "failed", Code: "bad_input"})
	w.do(newRetry(c.Job.ID))
	w.do(newFinish(w.claimOne(queue).Lease(), job.Succeeded))
	w.wantEnding("p", ending{State: "succeeded", Result: "result"})
}

func retryUndoesEnds(w *harness) {
	for _, state := range []job.State{job.Failed, job.Cancelled} {
		parent := state.String()
		c := w.running(withRef("put:" + parent))
		f := newFinish(c.Lease(), state)
		f.Entries = textEntries(1, 0, "text")
		w.do(f)
		w.do(newRetry(c.Job.ID))
		w.wantEnding(parent, ending{State: "queued", Text: "text"})
		w.do(newCancel(c.Job.ID))
		w.wantEnding(parent, ending{State: "cancelled", Text: "text"})
	}
	id := w.submit(withRef("update:absent"))
	w.do(newCancel(id), newRetry(id))
	wantEqual(w, "the rows where none was", len(w.rows(endKind, "absent")), 0)
	w.do(newWrite(store.Row{Owner: mine, Kind: endKind, Parent: "absent", ID: "end", Body: []byte("pending")}))
	w.mustRefuse(job.NotRetryable, newRetry(id))
	wantEqual(w, "the row after a retry that was refused", string(w.rows(endKind, "absent")[0].Body), "pending")
}

// newAttempt starts a later attempt as the engine does: with an attempt entry.
func newAttempt(l job.Lease, attempt int, after int64, texts ...string) *store.Append {
	a := newAppend(l, attempt, after, append([]string{"{}"}, texts...)...)
	a.Entries[0].Kind = job.KindAttempt
	return a
}

func endsText(w *harness) {
	c := w.running(withRef("put:p"))
	w.do(newAppend(c.Lease(), 1, 0, "the first ", "attempt"), newFinish(c.Lease(), job.Queued))
	c = w.claimOne(queue)
	w.do(newAttempt(c.Lease(), 2, 2, "the ", "second "))
	f := newFinish(c.Lease(), job.Succeeded)
	f.Entries = textEntries(2, 5, "attem", "pt")
	w.do(f)
	w.wantEnding("p", ending{State: "succeeded", Result: "result", Text: "the second attempt"})
}

func endsTextOnly(w *harness) {
	kinds := []job.Kind{job.KindText, job.KindLog, job.KindJSON, job.KindText, job.KindProgress, job.KindText}
	appendText := func(ref string) {
		c := w.running(withRef(ref))
		a := newAppend(c.Lease(), 1, 0, "one ", "log", "{}", "two ", "{}", "three")
		for i := range a.Entries {
			a.Entries[i].Kind = kinds[i]
		}
		w.do(a, newFinish(c.Lease(), job.Failed))
	}
	appendText("put:whole")
	w.wantEnding("whole", ending{State: "failed", Text: "one two three", Code: "bad_input"})
	appendText("put:limited:6")
	rows := w.rows(endKind, "limited")
	var body ending
	if len(rows) != 1 || json.Unmarshal(rows[0].Body, &body) != nil {
		w.Fatalf("the rows are %q", rows)
	}
	if len(body.Text) > 6 || !strings.HasPrefix("one two three", body.Text) || body.Text == "" {
		w.Errorf("up to 6 bytes of the text are %q", body.Text)
	}
}

func endsTextOfWaiting(w *harness) {
	c := w.running(withRef("put:p"))
	w.do(newAppend(c.Lease(), 1, 0, "so far"), newFinish(c.Lease(), job.Scheduled))
	w.do(newCancel(c.Job.ID))
	w.wantEnding("p", ending{State: "cancelled", Text: "so far", Code: "upstream_error"})
}

func endsTextAfterRefund(w *harness) {
	c := w.running(withRef("put:p"))
	back := newFinish(c.Lease(), job.Queued)
	back.Refund = true
	w.do(newAppend(c.Lease(), 1, 0, "handed back"), back)
	c = w.claimOne(queue)
	w.do(newAttempt(c.Lease(), 1, 1, "whole"), newFinish(c.Lease(), job.Succeeded))
	w.wantEnding("p", ending{State: "succeeded", Result: "result", Text: "whole"})
}

func endsUpdate(w *harness) {
	w.do(newWrite(store.Row{Owner: mine, Kind: endKind, Parent: "there", ID: "end", Body: []byte("pending")}))
	w.do(newFinish(w.running(withRef("update:there")).Lease(), job.Succeeded))
	w.do(newFinish(w.running(withRef("update:absent")).Lease(), job.Succeeded))
	w.wantEnding("there", ending{State: "succeeded", Result: "result"})
	wantEqual(w, "the rows where none was", len(w.rows(endKind, "absent")), 0)
}

func endsState(w *harness) {
	c := w.running(withRef("put:p"))
	w.do(newFinish(c.Lease(), job.Scheduled))
	w.advance(backoff + time.Second)
	w.do(newDue())
	w.do(newFinish(w.claimOne(queue).Lease(), job.Succeeded))
	w.wantEnding("p", ending{State: "succeeded", Result: "result"})

	c = w.running(withRef("put:q"))
	w.do(newCancel(c.Job.ID))
	w.do(newFinish(c.Lease(), job.Succeeded))
	w.wantEnding("q", ending{State: "cancelled"})
}

func endsNotByPrune(w *harness) {
	c := w.running(withRef("put:p"))
	w.do(newFinish(c.Lease(), job.Succeeded))
	w.do(newWrite(withAction(store.RemoveAll, store.Row{Owner: mine, Kind: endKind, Parent: "p"})))
	deleted := w.running(withRef("put:p"))
	w.do(newFinish(deleted.Lease(), job.Succeeded))
	w.do(newWrite(withAction(store.RemoveAll, store.Row{Owner: mine, Kind: endKind, Parent: "p"})))
	w.do(newDelete(deleted.Job.ID))
	w.advance(day)
	w.do(newPrune())
	w.wantGone(mine, c.Job.ID)
	wantEqual(w, "the rows", len(w.rows(endKind, "p")), 0)
}

func endsOfReferences(w *harness) {
	c := w.running(withRef("put:a"), withRef("update:absent"), withRef("put:b"), withRef("job:made"))
	wantEqual(w, "the references", fmt.Sprint(w.job(c.Job.ID).Refs), "[put:a update:absent put:b job:made]")
	w.do(newFinish(c.Lease(), job.Succeeded))
	w.wantEnding("a", ending{State: "succeeded", Result: "result"})
	w.wantEnding("b", ending{State: "succeeded", Result: "result"})
	wantEqual(w, "the jobs made", w.counts("made").Queued, 1)
}

func endsEntries(w *harness) {
	c := w.running(withRef("put:entries of it"))
	w.do(newAppend(c.Lease(), 1, 0, "a", "b"), newFinish(c.Lease(), job.Queued))
	c = w.claimOne(queue)
	w.do(newAttempt(c.Lease(), 2, 2, "c"))
	f := newFinish(c.Lease(), job.Succeeded)
	f.Entries = textEntries(2, 4, "d")
	w.do(f)
	w.wantEnding("entries of it", ending{State: "succeeded", Result: "result", Text: "cd", Entries: "1.1 a;1.2 b;2.3 {};2.4 c;2.5 d;"})
}

func endsMakeJobs(w *harness) {
	w.setLimits("made", job.Limits{KeyWaiting: 1, KeyRunning: 1})
	refer := withRef("job:made")
	var parents []job.ID
	made := 0
	check := func(how string, id job.ID, b *store.Batch) {
		w.Helper()
		parents = append(parents, id)
		made++
		wantEqual(w, "the jobs that are made when a job is "+how, len(b.FollowUps), 1)
		if len(b.FollowUps) == 1 {
			wantEqual(w, "its parent", b.FollowUps[0].Metadata["parent"], id.String())
			read := w.job(b.FollowUps[0].ID)
			wantEqual(w, "the job made, as it is read", text(read), text(b.FollowUps[0]))
			wantEqual(w, "its state", read.State, job.Queued)
		}
		wantEqual(w, "the counts that the commit answers", b.Counts["made"].Queued, int64(made))
	}
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Cancelled} {
		c := w.running(refer)
		check(to.String(), c.Job.ID, w.do(newFinish(c.Lease(), to)))
	}
	id := w.submit(refer)
	check("cancelled as it waits", id, w.do(newCancel(id)))
	id = w.submit(refer)
	check("deleted as it waits", id, w.do(newDelete(id)))
	c := w.running(refer)
	w.do(newDelete(c.Job.ID))
	check("deleted as it runs", c.Job.ID, w.do(newFinish(c.Lease(), job.Queued)))
	id = w.submit(refer, withQueueTimeout(time.Second))
	w.advance(2 * time.Second)
	check("expired", id, w.do(newDue()))
	claim := w.newClaim("made", 100)
	w.do(claim)
	for i := range claim.Claimed {
		wantEqual(w, "the parent of a claimed job", claim.Claimed[i].Job.Metadata["parent"], parents[i].String())
	}
	wantEqual(w, "the jobs claimed", len(claim.Claimed), made)
}

func endsMakeLaterJobs(w *harness) {
	b := w.do(newFinish(w.running(withRef("later:made")).Lease(), job.Failed))
	wantEqual(w, "the jobs made", len(b.FollowUps), 1)
	wantEqual(w, "its state", b.FollowUps[0].State, job.Scheduled)
	w.reopen()
	w.advance(time.Hour)
	w.do(newDue())
	c := w.claimOne("made")
	wantEqual(w, "its input", string(c.Input), "failed")
	w.do(newFinish(c.Lease(), job.Succeeded))
	wantEqual(w, "its end", w.job(c.Job.ID).State, job.Succeeded)
}

func endsMakeJobsOnce(w *harness) {
	c := w.running(withRef("job:made"), withRef("job:made"))
	w.do(newFinish(c.Lease(), job.Failed))
	wantEqual(w, "the jobs made", w.counts("made").Queued, 1)
	w.do(newRetry(c.Job.ID))
	wantEqual(w, "the jobs made by a retry", w.counts("made").Queued, 1)
	w.advance(time.Second)
	w.do(newFinish(w.claimOne(queue).Lease(), job.Failed))
	wantEqual(w, "the jobs made by a second end", w.counts("made").Queued, 2)
}
