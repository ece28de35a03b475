package storetest

import (
	"fmt"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func versionRules() []rule {
	return []rule{
		{"a version equals the job that a read returns, in every state", versionIsRead},
		{"a version has the cursor and the lease of the job on disk", versionRunning},
		{"jobs of other owners and missing jobs are left out", versionOwners},
		{"every change of state changes the version", versionChanges},
	}
}

// versions reads the versions of jobs of the default owner.
func (w *harness) versions(ids ...job.ID) map[job.ID]store.JobVersion {
	w.Helper()
	var of []store.OwnedID
	for _, id := range ids {
		of = append(of, store.OwnedID{Owner: mine, ID: id})
	}
	list, err := w.store.Versions(w.ctx, of)
	if err != nil {
		w.Fatalf("versions: %v", err)
	}
	all := map[job.ID]store.JobVersion{}
	for _, st := range list {
		all[st.ID] = st
	}
	wantEqual(w, "the versions without repetitions", len(all), len(list))
	return all
}

func versionIsRead(w *harness) {
	var ids []job.ID
	for _, state := range reachable() {
		id, _ := w.inState(state)
		ids = append(ids, id)
	}
	all := w.versions(ids...)
	for _, id := range ids {
		j, st := w.job(id), all[id]
		want := store.JobVersion{ID: id, Revision: j.Revision, State: j.State, Attempt: j.Attempt, Cursor: j.Cursor, Token: st.Token}
		wantEqual(w, "the version of a job that is "+j.State.String(), fmt.Sprintf("%+v", st), fmt.Sprintf("%+v", want))
		wantEqual(w, "whether a job that is "+j.State.String()+" has a lease", !st.Token.IsZero(), j.State == job.Running)
	}
}

func versionRunning(w *harness) {
	c := w.running()
	w.do(newAppend(c.Lease(), 1, 0, "a", "b"))
	st := w.versions(c.Job.ID)[c.Job.ID]
	wantEqual(w, "the cursor", st.Cursor, 2)
	wantEqual(w, "the lease", st.Token, c.Token)
	wantEqual(w, "whether it is to stop", st.CancelRequested, false)
	w.do(newCancel(c.Job.ID))
	st = w.versions(c.Job.ID)[c.Job.ID]
	wantEqual(w, "whether it is to stop", st.CancelRequested, true)
	w.do(newDelete(c.Job.ID))
	st = w.versions(c.Job.ID)[c.Job.ID]
	wantEqual(w, "whether it is deleted", st.Deleted && st.CancelRequested && st.Token == c.Token, true)
	w.do(newFinish(c.Lease(), job.Succeeded))
	wantEqual(w, "the versions", len(w.versions(c.Job.ID)), 0)
}

func versionOwners(w *harness) {
	a, foreign := w.submit(), w.submit(ownedBy(theirs))
	all := w.versions(a, foreign, w.id())
	wantEqual(w, "the versions", len(all), 1)
	wantEqual(w, "the job", all[a].ID, a)
	wantEqual(w, "the versions of no jobs", len(w.versions()), 0)
}

func versionChanges(w *harness) {
	id := w.submit()
	last := w.versions(id)[id].Revision
	changed := func(how string) {
		w.Helper()
		now := w.versions(id)[id].Revision
		if now <= last {
			w.Errorf("after %s the revision is %d, and was %d", how, now, last)
		}
		last = now
	}
	c := w.claimOne(queue)
	changed("a claim")
	w.do(newFinish(c.Lease(), job.Scheduled))
	changed("a finish that goes back")
	w.advance(backoff * 2)
	w.do(newDue())
	changed("a due")
	w.do(newCancel(id))
	changed("a cancel")
	w.do(newRetry(id))
	changed("a retry")
	w.claimOne(queue)
	changed("a second claim")
	w.do(newCancel(id))
	changed("a request to cancel")
}
