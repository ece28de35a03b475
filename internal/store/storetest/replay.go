package storetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// replay is a batch that is committed a second time because its outcome was unknown.
type replay struct {
	name string
	// ops prepares a harness and makes the ops of the batch.
	ops func(w *harness) []any
}

// runReplays checks that an applied batch changes nothing when it is committed again, and answers
// as it did the first time.
func runReplays(t *testing.T, s Suite) {
	for _, group := range [][]replay{
		replaysOfMixes(), replaysOfWorkers(), replaysOfOwners(), replaysOfUpkeep(), replaysOfReleases(), replaysOfLimits(),
	} {
		for _, r := range group {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				r.run(newHarness(t, s))
			})
		}
	}
}

func (r *replay) run(w *harness) {
	b := batchOf(r.ops(w)...)
	w.commit(b)
	answers, after := w.answers(b), w.stored()
	again := func(when string) {
		w.advance(time.Second)
		w.commit(b)
		w.sameStored("an op committed again "+when+" answers otherwise", answers, w.answers(b))
		w.sameStored("a batch committed again "+when+" left another store", after, w.stored())
	}
	again("at once")
	w.reopen() // after some errors a store loads its in-memory state again
	again("after the store was opened again")
	w.useLeases(b)
	w.checkCounts()
}

// useLeases finishes every job that the batch leased, with its lease.
func (w *harness) useLeases(b *store.Batch) {
	w.Helper()
	for _, op := range b.Claims {
		for _, c := range op.Claimed {
			output := newAppend(c.Lease(), c.Job.Attempt, c.Job.Cursor, "text")
			w.do(output, newFinish(c.Lease(), job.Succeeded))
		}
	}
	for _, op := range b.Submits {
		if op.Err == nil && op.Existing == nil && op.Job.State == job.Running {
			w.do(newFinish(job.Lease{Job: op.Job.ID, Token: op.Token}, job.Succeeded))
		}
	}
}

// answers is the text of all answers of a commit: for a refused op its code and its conflict.
func (w *harness) answers(b *store.Batch) stored {
	s := stored{"counts": fmt.Sprintf("%+v", b.Counts), "removed": fmt.Sprint(b.Removed, b.Damaged), "moved": fmt.Sprint(b.Moved)}
	for i, op := range opsOf(b) {
		name := fmt.Sprintf("op %d %T", i, op)
		if err := errOf(op); err != nil {
			s[name] = fmt.Sprintf("%q %s", job.CodeOf(err), conflictOf(op))
			continue
		}
		s[name] = answerOf(op)
	}
	return s
}

func conflictOf(op any) string {
	switch op := op.(type) {
	case *store.Write:
		return string(op.Conflict)
	case *store.Submit:
		return string(op.Conflict)
	}
	return ""
}

func answerOf(op any) string {
	switch op := op.(type) {
	case *store.Pause, *store.Presence:
		return ""
	case *store.Renew:
		return fmt.Sprint(op.CancelRequested)
	case *store.Append:
		return fmt.Sprint(op.CancelRequested)
	case *store.Finish:
		return fmt.Sprint(op.State, textOf(op.Job))
	case *store.Cancel:
		return fmt.Sprint(text(op.Job), op.Ended)
	case *store.Delete:
		return fmt.Sprint(op.Running)
	case *store.Retry:
		return text(op.Job)
	case *store.Write:
		return string(op.Conflict)
	case *store.Submit:
		if op.Existing != nil {
			return "existing " + text(*op.Existing)
		}
		return text(op.Job) + string(op.Conflict)
	case *store.Due:
		return fmt.Sprint(op.Ready, texts(op.Expired), op.More)
	case *store.Prune:
		return fmt.Sprint(op.Deleted, op.Next)
	case *store.Claim:
		var b strings.Builder
		for _, c := range op.Claimed {
			fmt.Fprintf(&b, "%s %q %s until %s; ", text(c.Job), c.Input, c.Token, c.Until.UTC())
		}
		return b.String()
	}
	panic(fmt.Sprintf("storetest: %T is no op", op))
}

func textOf(j *job.Job) string {
	if j == nil {
		return "no job"
	}
	return text(*j)
}

func texts(jobs []job.Job) (all []string) {
	for _, j := range jobs {
		all = append(all, text(j))
	}
	return all
}

// errStale is an error that a failed commit left in an op.
var errStale = errors.New("storetest: an answer of a commit that came to nothing")

// stale fills the answers of an op as a failed commit may leave them.
func stale(op any) {
	old := job.Job{ID: job.ID{9}, State: job.Parked}
	switch op := op.(type) {
	case *store.Pause:
		op.Err = errStale
	case *store.Renew:
		op.Err, op.CancelRequested = errStale, true
	case *store.Append:
		op.Err, op.CancelRequested = errStale, true
	case *store.Finish:
		op.Err, op.State, op.Job = errStale, job.Parked, &old
	case *store.Cancel:
		op.Err, op.Job, op.Ended = errStale, old, true
	case *store.Delete:
		op.Err, op.Running = errStale, true
	case *store.Retry:
		op.Err, op.Job = errStale, old
	case *store.Write:
		op.Err, op.Conflict = errStale, []byte("stale")
	case *store.Submit:
		op.Err, op.Conflict, op.Existing = errStale, []byte("stale"), &old
		op.Job.State, op.Job.CreatedAt, op.Job.RunAt = job.Parked, time.Unix(9, 9), time.Unix(9, 9)
		op.Job.Attempt, op.Job.Revision, op.Job.StartedAt = 9, 9, time.Unix(9, 9)
	case *store.Due:
		op.Err, op.Ready, op.Expired, op.More = errStale, 9, []job.Job{old}, true
	case *store.Prune:
		op.Err, op.Deleted, op.Next = errStale, 9, "9"
	case *store.Claim:
		op.Err, op.Claimed = errStale, []job.Claimed{{Job: old}}
	}
}

// staleAnswers commits the same ops in two harnesses, in one of them with stale answers in every
// op.
func staleAnswers(w *harness) {
	clean := batchOf(everyKind(w)...)
	withStale := fresh(clean)
	w.commit(clean)
	want := w.answers(clean)

	twin := w.another()
	everyKind(twin)
	for _, op := range opsOf(withStale) {
		stale(op)
	}
	withStale.Counts = map[string]job.Counts{"stale": {Queued: 9}}
	withStale.Moved = []store.Moved{{ID: job.ID{9}}}
	withStale.Removed, withStale.Damaged = []job.ID{{9}}, []job.ID{{9}}
	twin.commit(withStale)
	w.sameStored("an op has a stale answer", want, twin.answers(withStale))
}
