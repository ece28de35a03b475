package storetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// replayed is a batch whose outcome its owner did not learn.
type replayed struct {
	says string
	// ops prepares a world and makes the ops of the batch; the same in every world.
	ops func(w *world) []any
}

// runReplays holds the store to it that a batch committed again as a replay
// answers as it did the first time and is not applied twice; and that one which
// had not been applied is applied then.
func runReplays(t *testing.T, s Suite) {
	for _, group := range [][]replayed{replaysOfWorkers(), replaysOfOwners(), replaysOfUpkeep(), replaysOfMixes()} {
		for _, r := range group {
			t.Run(r.says, func(t *testing.T) {
				w := newWorld(t, s)
				first := batchOf(r.ops(w)...)
				again, third := fresh(first), fresh(first)
				w.commit(first)
				answers, after := w.answers(first), w.stored()
				w.pass(time.Second)
				w.replay("replayed", again, answers, after)
				w.reopen()
				w.replay("replayed after the store was opened again", third, answers, after)
				w.useLeases(third)
				w.audit()

				twin := newWorld(t, s)
				late := batchOf(r.ops(twin)...)
				twin.replay("replayed though it had not been applied", late, answers, after)
				twin.useLeases(late)
				twin.audit()
			})
		}
	}
}

func (w *world) replay(when string, b *store.Batch, answers, after stored) {
	w.Helper()
	b.Replay = true
	w.commit(b)
	w.same("an op "+when+" answers otherwise", answers, w.answers(b))
	w.same("a batch "+when+" left another store", after, w.stored())
}

// useLeases ends every job that the batch handed out, with the lease it gave.
func (w *world) useLeases(b *store.Batch) {
	w.Helper()
	for _, op := range b.Claims {
		for _, c := range op.Claimed {
			say := newAppend(c.Lease(), c.Job.Attempt, c.Job.Cursor, "said")
			w.do(say, newFinish(c.Lease(), job.Succeeded))
		}
	}
	for _, op := range b.Submits {
		if op.Err == nil && op.Existing == nil && !op.Token.IsZero() {
			w.do(newFinish(job.Lease{Job: op.Job.ID, Token: op.Token}, job.Succeeded))
		}
	}
}

// answers is all that a commit answered, as text.
func (w *world) answers(b *store.Batch) stored {
	s := stored{"counts": fmt.Sprintf("%+v", b.Counts)}
	for i, op := range opsOf(b) {
		s[fmt.Sprintf("op %d %T", i, op)] = fmt.Sprintf("%q %s", job.CodeOf(errOf(op)), answerOf(op))
	}
	return s
}

func answerOf(op any) string {
	switch op := op.(type) {
	case *store.Renew:
		return fmt.Sprint(op.CancelRequested)
	case *store.Append:
		return fmt.Sprint(op.CancelRequested)
	case *store.Finish:
		return fmt.Sprint(op.State, op.At.UTC())
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
		if op.Err != nil {
			return string(op.Conflict)
		}
		return text(op.Job)
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

func texts(jobs []job.Job) (all []string) {
	for _, j := range jobs {
		all = append(all, text(j))
	}
	return all
}
