package storetest

import (
	"bytes"
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func submitRules() []rule {
	return []rule{
		{"a job without a delay is queued at its commit", submitQueues},
		{"a delayed job is scheduled and not claimed before its time", submitDelayed},
		{"a job stored with a token is running at its commit", submitLeased},
		{"the fields of a submit are kept unchanged", submitKeeps},
		{"clocks are kept in whole milliseconds, rounded up", submitWholeClocks},
		{"a submit answers the job that a later read returns", submitAnswersStoredJob},
		{"an input of any bytes is kept, also an empty one", submitInputs},
		{"a submit refused for its rows stores nothing", submitRefusedForRows},
		{"a batch of submits keeps their order", submitOrder},
	}
}

func submitQueues(w *harness) {
	id := w.submit()
	j := w.job(id)
	wantEqual(w, "the state", j.State, job.Queued)
	wantEqual(w, "the attempts", j.Attempt, 0)
	w.wantTime("CreatedAt", j.CreatedAt, w.now())
	w.wantTime("RunAt", j.RunAt, w.now())
	if !j.StartedAt.IsZero() || !j.FinishedAt.IsZero() || !j.CancelRequestedAt.IsZero() || !j.ExpiresAt.IsZero() {
		w.Errorf("a queued job has times of later states: %s", text(j))
	}
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: 1})
	wantEqual(w, "the claimed job", w.claimOne(queue).Job.ID, id)
}

func submitDelayed(w *harness) {
	id := w.submit(delayed(time.Minute))
	j := w.job(id)
	wantEqual(w, "the state", j.State, job.Scheduled)
	w.wantTime("RunAt", j.RunAt, w.now().Add(time.Minute))
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Scheduled: 1})
	w.advance(time.Minute - time.Second)
	w.do(newDue())
	wantEqual(w, "the jobs claimed early", len(w.claim(queue, 1)), 0)
}

func submitLeased(w *harness) {
	token := w.token()
	s := w.newSubmit(leasedAs(token))
	w.do(s)
	id := s.Job.ID
	j := w.job(id)
	wantEqual(w, "the state", j.State, job.Running)
	wantEqual(w, "the answered state", s.Job.State, job.Running)
	wantEqual(w, "the attempts", j.Attempt, 1)
	w.wantTime("StartedAt", j.StartedAt, w.now())
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Running: 1})
	wantEqual(w, "the jobs claimed besides", len(w.claim(queue, 1)), 0)

	running := w.listRunning(store.AllRunning)
	if len(running) != 1 || running[0].Token != token || running[0].Worker != "worker" {
		w.Fatalf("the lease is not listed: %+v", running)
	}
	lease := job.Lease{Job: id, Token: token}
	w.advance(leaseFor - time.Second)
	w.mustRefuse(job.LeaseLost, newLapse(lease, job.Queued))
	w.do(newAppend(lease, 1, 0, "text"), newFinish(lease, job.Succeeded))
	wantEqual(w, "the state after its finish", w.job(id).State, job.Succeeded)
}

func submitKeeps(w *harness) {
	s := w.newSubmit(func(s *store.Submit) {
		s.Job.Owner = job.Owner{Tenant: "a tenant", User: "üser\t'\"\\ %_"}
		s.Job.Key = "clé; DROP TABLE jobs --"
		s.Job.Priority = 3
		s.Job.MaxAttempts = 17
		s.Job.Metadata = map[string]string{"": "empty", "emoji 🫖": "", "line\nbreak": "\u2028"}
		s.Job.Refs, s.Job.Tally = []string{"put:a/b?c", "put:d"}, "tally"
		s.Job.Files = []job.File{{Name: "a b.png", ContentType: "image/png", Size: 1 << 40, SHA256: "00ff"}, {Name: "ü"}}
		s.Job.InputBytes = 1<<40 + 5
		s.Job.Trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
		s.Job.Policy = job.Policy{
			Timeouts: everyClock(func(i int) time.Duration { return job.MaxDuration - time.Duration(i)*1500*time.Millisecond }),
			Retry: job.Retry{
				Backoff: 250 * time.Millisecond, BackoffMax: time.Minute, For: time.Hour,
				OnTimeout: true, AfterOutput: job.FailAfterOutput,
				Delays: []time.Duration{0, 5 * time.Second, time.Millisecond, job.MaxDuration},
			},
		}
	})
	want := s.Job
	w.do(s)
	got, err := w.store.Job(w.ctx, want.Owner, want.ID)
	if err != nil {
		w.Fatalf("read: %v", err)
	}
	want.State, want.Revision, want.CreatedAt, want.RunAt = got.State, got.Revision, got.CreatedAt, got.RunAt
	wantEqual(w, "the stored job", text(got), text(want))
}

// everyClock sets each clock by its index in [job.Clocks].
func everyClock(value func(i int) time.Duration) (t job.Timeouts) {
	for i, d := range t.All() {
		*d = value(i)
	}
	return t
}

func submitWholeClocks(w *harness) {
	odd := func(ms int) time.Duration { return time.Duration(ms)*time.Millisecond - 999*time.Microsecond }
	policy := func(of func(ms int) time.Duration) job.Policy {
		return job.Policy{
			Timeouts: everyClock(func(i int) time.Duration { return of(120_001 + i) }),
			Retry:    job.Retry{Backoff: of(1), BackoffMax: of(7), For: of(8), AfterOutput: job.RestartAfterOutput, Delays: []time.Duration{of(9), of(10_001)}},
		}
	}
	want := policy(func(ms int) time.Duration { return time.Duration(ms) * time.Millisecond })
	set := func(s *store.Submit) { s.Job.Policy = policy(odd) }
	leased, waits, scheduled := w.newSubmit(leasedAs(w.token()), set), w.newSubmit(set), w.newSubmit(delayed(time.Minute), set)
	w.do(leased, waits, scheduled)
	for _, s := range []*store.Submit{leased, waits, scheduled} {
		wantEqual(w, "the policy that is answered", fmt.Sprint(s.Job.Policy), fmt.Sprint(want))
		wantEqual(w, "the policy that is stored", fmt.Sprint(w.job(s.Job.ID).Policy), fmt.Sprint(want))
	}
	wantEqual(w, "the policy that a worker gets", fmt.Sprint(w.claimOne(queue).Job.Policy), fmt.Sprint(want))

	id := w.submit(withQueueTimeout(time.Nanosecond))
	w.advance(999 * time.Microsecond)
	w.do(newDue())
	wantEqual(w, "the state before a millisecond has passed", w.job(id).State, job.Queued)
	w.advance(time.Microsecond)
	w.do(newDue())
	wantEqual(w, "the state after it", w.job(id).State, job.Expired)
}

func submitAnswersStoredJob(w *harness) {
	w.micros.Add(123_457) // not a round number
	plain, late, leased := w.newSubmit(), w.newSubmit(delayed(1500*time.Millisecond)), w.newSubmit(leasedAs(w.token()))
	w.do(plain, late, leased)
	for _, s := range []*store.Submit{plain, late, leased} {
		wantEqual(w, "the answer", text(s.Job), text(w.job(s.Job.ID)))
	}
}

func submitInputs(w *harness) {
	inputs := [][]byte{nil, {}, {0}, []byte("\xff\xfe\x00\x80"), bytes.Repeat([]byte("long "), 200_000)}
	for _, in := range inputs {
		s := w.newSubmit()
		s.Input = in
		w.do(s)
		got, err := w.store.Input(w.ctx, mine, s.Job.ID)
		if err != nil || !bytes.Equal(got, in) {
			w.Errorf("an input of %d bytes was read as %d bytes, %v", len(in), len(got), err)
		}
		c := w.claimOne(queue)
		if !bytes.Equal(c.Input, in) {
			w.Errorf("an input of %d bytes was handed to the worker as %d bytes", len(in), len(c.Input))
		}
	}
}

func submitRefusedForRows(w *harness) {
	w.do(newWrite(put("p", "there", "was here")))
	for _, edit := range []func(*store.Submit){delayed(0), delayed(time.Minute), leasedAs(w.token())} {
		met := w.newSubmit(edit, withRows(put("p", "new", "x"), withAction(store.Insert, put("p", "there", "again"))))
		w.mustRefuse(job.Conflict, met)
		wantEqual(w, "the body of the conflicting row", string(met.Conflict), "was here")
		w.wantGone(mine, met.Job.ID)
		lacks := w.newSubmit(edit, withRows(put("p", "new", "x"), withAction(store.Require, put("p", "absent", ""))))
		w.mustRefuse(job.NotFound, lacks)
		w.wantGone(mine, lacks.Job.ID)
	}
	wantEqual(w, "the jobs of the queue", w.counts(queue), job.Counts{})
	wantEqual(w, "the rows", len(w.rows("note", "p")), 1)
}

func submitOrder(w *harness) {
	want := w.submitMany(50)
	got := claimedIDs(w.claim(queue, 50))
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			w.Fatalf("claim %d of %d is not the job that was submitted %dth", i, len(got), i)
		}
	}
}
