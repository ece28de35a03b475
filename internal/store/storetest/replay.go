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
	for _, r := range replayRules() {
		t.Run(r.says, func(t *testing.T) { r.test(newWorld(t, s)) })
	}
	for _, group := range [][]replayed{replaysOfWorkers(), replaysOfOwners(), replaysOfUpkeep(), replaysOfMixes()} {
		for _, r := range group {
			t.Run(r.says, func(t *testing.T) { r.run(t, s) })
		}
	}
}

func (r *replayed) run(t *testing.T, s Suite) {
	w := newWorld(t, s)
	first := batchOf(r.ops(w)...)
	again, third := fresh(first), fresh(first)
	w.commit(first)
	told, after := w.told(first), w.stored()
	w.pass(time.Second)
	w.replay("replayed", again, told, after)
	w.reopen() // as after an error that made the store load its memory again
	w.replay("replayed after the store was opened again", third, told, after)
	w.useLeases(third)
	w.audit()

	twin := newWorld(t, s)
	late := batchOf(r.ops(twin)...)
	twin.replay("replayed though it had not been applied", late, told, after)
	twin.useLeases(late)
	twin.audit()
}

func (w *world) replay(when string, b *store.Batch, told, after stored) {
	w.Helper()
	b.Replay = true
	w.commit(b)
	w.same("an op "+when+" answers otherwise", told, w.told(b))
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

// told is what a batch told those who wait for it, as text. Where a later op of
// the same batch changed what an op answered, a replay may answer with what came
// of it: only whose job it is, and whether the op applied, is compared.
func (w *world) told(b *store.Batch) stored {
	s := stored{}
	for i, op := range opsOf(b) {
		applied := "applied"
		if err := errOf(op); err != nil {
			applied = "refused"
		}
		s[fmt.Sprintf("op %d %T", i, op)] = applied + toldBy(op)
	}
	return s
}

func toldBy(op any) string {
	switch op := op.(type) {
	case *store.Cancel:
		return " " + op.Job.ID.String()
	case *store.Retry:
		if op.Err == nil {
			return " " + op.Job.ID.String()
		}
	case *store.Write:
		return string(op.Conflict)
	case *store.Submit:
		if op.Existing != nil {
			return " existing " + op.Existing.ID.String()
		}
		return " " + op.Job.ID.String() + string(op.Conflict)
	case *store.Claim:
		var b strings.Builder
		for _, c := range op.Claimed {
			fmt.Fprintf(&b, " %s %q %s until %s;", text(c.Job), c.Input, c.Token, c.Until.UTC())
		}
		return b.String()
	}
	return ""
}

func replayRules() []rule {
	return []rule{
		{"a replay answers the counts of the queues that the batch changed", replayCounts},
		{"a replayed finish answers where the job went and when", replayFinish},
		{"a batch may be replayed any number of times", replayOften},
	}
}

func replayCounts(w *world) {
	b := batchOf(w.newSubmit(inQueue("a")), w.newSubmit(inQueue("b"), leasedAs(w.token())), w.newClaim("a", 1))
	again := fresh(b)
	w.commit(b)
	again.Replay = true
	w.commit(again)
	for _, q := range []string{"a", "b"} {
		equal(w, "the counts of "+q+" as answered by the replay", again.Counts[q], w.counts(q))
	}
}

func replayFinish(w *world) {
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Cancelled, job.Scheduled, job.Queued} {
		f := newFinish(w.running(inQueue(to.String())).Lease(), to)
		b := batchOf(f)
		again := fresh(b)
		again.Replay = true
		w.commit(b)
		w.pass(time.Minute)
		w.commit(again)
		equal(w, "where the job went", again.Finishes[0].State, to)
		w.at("the time of the replayed finish as "+to.String(), again.Finishes[0].At, f.At)
	}
}

func replayOften(w *world) {
	b := batchOf(everyKind(w)...)
	w.remember(b)
	copies := []*store.Batch{fresh(b), fresh(b), fresh(b)}
	w.commit(b)
	after := w.stored()
	for _, again := range copies {
		again.Replay = true
		w.commit(again)
		w.same("a replay left another store", after, w.stored())
	}
}
