package storetest

import (
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func ownerRules() []rule {
	return []rule{
		{"to another user or tenant the job does not exist", ownersApart},
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
