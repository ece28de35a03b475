package storetest

import (
	"bytes"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func finishRules() []rule {
	return []rule{
		{"a success stores the result unchanged", finishSucceeds},
		{"results of any bytes are kept, also an empty one", finishResults},
		{"a result is read in parts of any size from any place", finishResultParts},
		{"a failed job keeps its failure", finishFails},
		{"a failed attempt makes the job wait for its backoff", finishWaitsForBackoff},
		{"a released job is ready at once", finishReleases},
		{"a refunded attempt is not counted", finishRefunds},
		{"a job keeps its last failure until it succeeds", finishKeepsFailure},
		{"only a success has a result", finishNoResult},
		{"usage is kept for every kind of end", finishUsage},
		{"an ended job is kept for the time in its policy", finishKeep},
		{"the answer equals the job that a later read returns", finishAnswers},
		{"a finish to an illegal state is refused", finishIllegal},
		{"of two finishes of one lease in a batch the second is refused", finishTwice},
	}
}

func finishSucceeds(w *harness) {
	c := w.running()
	w.advance(time.Second)
	f := newFinish(c.Lease(), job.Succeeded)
	f.Result = &job.Result{ContentType: "application/json; charset=utf-8", Body: []byte(`{"answer":42}`)}
	w.do(f)
	j := w.job(c.Job.ID)
	wantEqual(w, "the state", j.State, job.Succeeded)
	w.wantTime("FinishedAt", j.FinishedAt, w.now())
	w.wantTime("ExpiresAt", j.ExpiresAt, w.now().Add(keep))
	w.wantTime("StartedAt", j.StartedAt, c.Job.StartedAt)
	r, err := w.result(mine, j.ID)
	if err != nil || r.ContentType != f.Result.ContentType || !bytes.Equal(r.Body, f.Result.Body) {
		w.Errorf("the result is %q %q, %v", r.ContentType, r.Body, err)
	}
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Succeeded: 1})
	wantEqual(w, "the jobs left to claim", len(w.claim(queue, 1)), 0)
}

func finishResults(w *harness) {
	for _, body := range [][]byte{nil, {}, {0}, []byte("\xff\x00\xfe"), bytes.Repeat([]byte("r"), 3<<20)} {
		f := newFinish(w.running().Lease(), job.Succeeded)
		f.Result = &job.Result{Body: body}
		if body == nil {
			f.Result = nil
		}
		w.do(f)
		r, err := w.result(mine, f.Lease.Job)
		if err != nil || !bytes.Equal(r.Body, body) || r.ContentType != "" {
			w.Errorf("a result of %d bytes was read as %d bytes of %q, %v", len(body), len(r.Body), r.ContentType, err)
		}
	}
}

func finishFails(w *harness) {
	f := newFinish(w.running().Lease(), job.Failed)
	f.Failure = &job.Failure{Code: "upstream_500", Message: "it said \"no\"\x00 – twice", Retryable: true, Attempt: 3}
	w.do(f)
	j := w.job(f.Lease.Job)
	wantEqual(w, "the state", j.State, job.Failed)
	if j.Failure == nil || *j.Failure != *f.Failure {
		w.Errorf("the failure is %+v", j.Failure)
	}
	w.wantTime("FinishedAt", j.FinishedAt, w.now())
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Failed: 1})
}

func finishWaitsForBackoff(w *harness) {
	c := w.running()
	f := newFinish(c.Lease(), job.Scheduled)
	w.do(f)
	j := w.job(c.Job.ID)
	wantEqual(w, "the state", j.State, job.Scheduled)
	wantEqual(w, "the attempts", j.Attempt, 1)
	w.wantTime("RunAt", j.RunAt, w.now().Add(backoff))
	if !j.FinishedAt.IsZero() || !j.ExpiresAt.IsZero() || j.Failure == nil {
		w.Errorf("a released job is %s", text(j))
	}
	wantEqual(w, "the waiting", w.counts(queue).Scheduled, 1)
	w.advance(backoff - time.Second)
	w.do(newDue())
	wantEqual(w, "the jobs claimed early", len(w.claim(queue, 1)), 0)
	w.advance(2 * time.Second)
	w.do(newDue())
	wantEqual(w, "the next attempt", w.claimOne(queue).Job.Attempt, 2)
}

func finishReleases(w *harness) {
	c := w.running()
	w.advance(time.Second)
	w.do(newFinish(c.Lease(), job.Queued))
	j := w.job(c.Job.ID)
	wantEqual(w, "the state", j.State, job.Queued)
	w.wantTime("RunAt", j.RunAt, w.now())
	wantEqual(w, "the job claimed next", w.claimOne(queue).Job.ID, c.Job.ID)
}

func finishRefunds(w *harness) {
	c := w.running()
	for _, to := range []job.State{job.Queued, job.Scheduled} {
		f := newFinish(c.Lease(), to)
		f.Refund = true
		w.do(f)
		wantEqual(w, "the attempts after "+to.String(), w.job(c.Job.ID).Attempt, 0)
		w.advance(backoff + time.Second)
		w.do(newDue())
		c = w.claimOne(queue)
		wantEqual(w, "the attempts of the next claim", c.Job.Attempt, 1)
	}
}

func finishKeepsFailure(w *harness) {
	c := w.running()
	w.do(newFinish(c.Lease(), job.Scheduled))
	w.advance(backoff + time.Second)
	w.do(newDue())
	c = w.claimOne(queue)
	if c.Job.Failure == nil || c.Job.Failure.Code != "upstream_error" {
		w.Errorf("the second attempt lacks the failure of the first: %+v", c.Job.Failure)
	}
	w.do(newFinish(c.Lease(), job.Queued)) // released without a failure
	if w.job(c.Job.ID).Failure == nil {
		w.Errorf("a release has cleared the failure of the job")
	}
	w.do(newFinish(w.claimOne(queue).Lease(), job.Succeeded))
	if f := w.job(c.Job.ID).Failure; f != nil {
		w.Errorf("a succeeded job still has the failure %+v", f)
	}
}

// result reads a whole result.
func (w *harness) result(o job.Owner, id job.ID) (job.ResultPart, error) {
	return w.store.Result(w.ctx, o, id, 0, job.MaxResult)
}

func finishResultParts(w *harness) {
	body := make([]byte, 100_001) // over many pages of a database
	for i := range body {
		body[i] = byte(i % 251)
	}
	f := newFinish(w.running().Lease(), job.Succeeded)
	f.Result = &job.Result{ContentType: "a/b", Body: body}
	w.do(f)
	for _, c := range []struct{ from, limit, want int }{
		{0, 1, 1}, {0, 5000, 5000}, {0, len(body), len(body)}, {0, 1 << 20, len(body)}, {1, 1 << 20, len(body) - 1},
		{4096, 4096, 4096}, {70_003, 9999, 9999}, {len(body) - 1, 10, 1}, {len(body), 10, 0}, {len(body) + 1, 10, 0}, {0, 0, 0},
	} {
		r, err := w.store.Result(w.ctx, mine, f.Lease.Job, int64(c.from), c.limit)
		from := min(c.from, len(body))
		if err != nil || r.ContentType != "a/b" || r.Size != int64(len(body)) || !bytes.Equal(r.Body, body[from:from+c.want]) {
			w.Errorf("%d bytes from %d: %d bytes of %d, %q, %v", c.limit, c.from, len(r.Body), r.Size, r.ContentType, err)
		}
	}
}

func finishNoResult(w *harness) {
	for _, state := range reachable() {
		id, _ := w.inState(state)
		_, err := w.result(mine, id)
		if state == job.Succeeded {
			if err != nil {
				w.Errorf("the result of a succeeded job: %v", err)
			}
			continue
		}
		w.wantCode(job.NotFinished, err)
	}
}

func finishUsage(w *harness) {
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Cancelled, job.Scheduled, job.Queued} {
		f := newFinish(w.running().Lease(), to)
		f.Usage = []byte(`{"tokens":17}`)
		w.do(f)
		wantEqual(w, "the usage of the "+to.String(), string(w.job(f.Lease.Job).Usage), `{"tokens":17}`)
		w.do(newDelete(f.Lease.Job))
	}
}

func finishKeep(w *harness) {
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Cancelled} {
		f := newFinish(w.running(func(s *store.Submit) {
			s.Job.Policy.Keep = job.Keep{Failed: 45 * time.Minute, Others: 123 * time.Minute}
		}).Lease(), to)
		w.do(f)
		want := 123 * time.Minute
		if to == job.Failed {
			want = 45 * time.Minute
		}
		w.wantTime("ExpiresAt of the "+to.String(), w.job(f.Lease.Job).ExpiresAt, w.now().Add(want))
	}
	c := w.running()
	w.do(newCancel(c.Job.ID), newRenew(c.Lease(), leaseFor))
	f := newFinish(c.Lease(), job.Succeeded)
	w.do(f)
	w.wantTime("ExpiresAt of the one that was to be cancelled", w.job(c.Job.ID).ExpiresAt, w.now().Add(keep))
}

func finishAnswers(w *harness) {
	w.micros.Add(654_321) // not a round number
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Cancelled, job.Scheduled, job.Queued} {
		f := newFinish(w.running().Lease(), to)
		w.do(f)
		j := w.job(f.Lease.Job)
		wantEqual(w, "the state", j.State, to)
		wantEqual(w, "the answered state", f.State, to)
		if f.Job == nil || text(*f.Job) != text(j) {
			w.Errorf("a finish answers the job %v, and a read returns %s", f.Job, text(j))
		}
		w.do(newDelete(j.ID))
	}
}

func finishIllegal(w *harness) {
	c := w.running()
	for _, to := range append(job.States(), 0) {
		if job.CanMove(job.Running, to) {
			continue
		}
		w.mustRefuse(job.Invalid, newFinish(c.Lease(), to))
	}
	w.do(newFinish(c.Lease(), job.Succeeded))
}

func finishTwice(w *harness) {
	c := w.running()
	first, second, third := newFinish(c.Lease(), job.Queued), newFinish(c.Lease(), job.Succeeded), newFinish(c.Lease(), job.Queued)
	w.try(first, second, third)
	if first.Err != nil {
		w.Errorf("the first finish was refused: %v", first.Err)
	}
	w.wantCode(job.LeaseLost, second.Err)
	w.wantCode(job.LeaseLost, third.Err)
	wantEqual(w, "the state", w.job(c.Job.ID).State, job.Queued)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: 1})
}
