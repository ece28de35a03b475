package storetest

import (
	"fmt"
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func ownerRules() []rule {
	return []rule{
		{"to another user or tenant the job does not exist", ownersApart},
		{"a whole tenant reads the jobs of its users, and none of another", ownersWholeTenant},
		{"owners with the same concatenation of names are different", long(ownersNotConcatenated)},
	}
}

// wantNotFound checks that every read and op of the owner answers not found.
func (w *harness) wantNotFound(o job.Owner, id job.ID) {
	w.Helper()
	w.wantGone(o, id)
	cancel, retry := newCancel(id), newRetry(id)
	cancel.Owner, retry.Owner = o, o
	w.mustRefuse(job.NotFound, cancel, retry, &store.Delete{Owner: o, ID: id})
}

func ownersApart(w *harness) {
	for _, state := range reachable() {
		id, _ := w.inState(state)
		for _, o := range []job.Owner{theirs, elsewhere, {}} {
			w.wantNotFound(o, id)
		}
		if w.job(id).State != state {
			w.Errorf("another owner moved a job from %s", state)
		}
	}
	w.submit(ownedBy(theirs))
	parked := 1 // the parked one
	wantEqual(w, "the jobs of the owner", len(w.listAll(job.Filter{Owner: mine})), len(reachable())+parked)
	wantEqual(w, "the jobs of the other", len(w.listAll(job.Filter{Owner: theirs})), 1)
	wantEqual(w, "the jobs of a third", len(w.listAll(job.Filter{Owner: elsewhere})), 0)
}

func ownersWholeTenant(w *harness) {
	whole, other := job.WholeTenant(mine.Tenant), job.WholeTenant(elsewhere.Tenant)
	for _, state := range reachable() {
		id, _ := w.inState(state)
		wantEqual(w, "what the tenant reads", w.allReads(whole, id), w.allReads(mine, id))
		w.wantNotFound(other, id)
		// An op names the owner itself.
		cancel, retry := newCancel(id), newRetry(id)
		cancel.Owner, retry.Owner = whole, whole
		w.mustRefuse(job.NotFound, cancel, retry, &store.Delete{Owner: whole, ID: id})
	}
	deleted := w.submit()
	w.do(&store.Delete{Owner: mine, ID: deleted})
	w.do(&store.Delete{Owner: whole, ID: deleted}) // the second delete of a job is no error
	w.mustRefuse(job.NotFound, &store.Delete{Owner: other, ID: deleted}, &store.Delete{Owner: theirs, ID: deleted})
}

// allReads returns what all reads of a job answer, as a text.
func (w *harness) allReads(o job.Owner, id job.ID) string {
	w.Helper()
	j, entries, err := w.store.Output(w.ctx, o, id, 0, 1<<20)
	if err != nil {
		w.Fatalf("the output of a job that is there: %v", err)
	}
	found, findErr := w.store.Job(w.ctx, o, id)
	input, inputErr := w.store.Input(w.ctx, o, id)
	_, text, textErr := w.store.Text(w.ctx, o, id, 1<<20)
	result, resultErr := w.store.Result(w.ctx, o, id, 0, 1<<20)
	position, positionErr := w.store.Position(w.ctx, o, id, 100)
	return fmt.Sprint(j.ID, j.Owner, j.State, j.Cursor, entries, found.ID, found.Owner, found.Revision, findErr, string(input), inputErr,
		text, textErr, string(result.Body), job.CodeOf(resultErr), position, positionErr)
}

func ownersNotConcatenated(w *harness) {
	owners := []job.Owner{{Tenant: "a", User: "bc"}, {Tenant: "ab", User: "c"}, {User: "abc"}, {Tenant: "abc"}, {Tenant: "A", User: "bc"}, {Tenant: "a\x00b", User: "c"}, {Tenant: "a", User: "b\x00c"}}
	var made []job.ID
	owners = slices.DeleteFunc(owners, func(o job.Owner) bool {
		s := w.newSubmit(ownedBy(o))
		accepted := w.accepts(s, o.Tenant, o.User)
		if accepted {
			made = append(made, s.Job.ID)
		}
		return !accepted
	})
	for i, o := range owners {
		for k, id := range made {
			if k != i {
				w.wantNotFound(o, id)
			}
		}
		wantEqual(w, "the owner's jobs", len(w.listAll(job.Filter{Owner: o})), 1)
	}
}
