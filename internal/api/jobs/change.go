package jobs

import (
	"context"
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// cancel requests the end of a job. The status is 202 while the job still runs, and 200
// once it has ended, also where it ended for another reason.
func (a *API) cancel(w http.ResponseWriter, r *http.Request) error {
	return a.change(w, r, a.engine.Cancel, statusOf)
}

// retry queues an ended job again. The status is 202, even where the new attempt has ended
// already.
func (a *API) retry(w http.ResponseWriter, r *http.Request) error {
	return a.change(w, r, a.engine.Retry, func(*job.Job) int { return http.StatusAccepted })
}

// change checks that the request has no body, calls do, and writes the changed job.
func (a *API) change(w http.ResponseWriter, r *http.Request, do func(context.Context, job.Owner, job.ID) (engine.Snapshot, error), status func(*job.Job) int) error {
	owner, id, err := parseJob(r)
	if err != nil {
		return err
	}
	if err := requireEmpty(r); err != nil {
		return err
	}
	snap, err := do(r.Context(), owner, id)
	if err != nil {
		return err
	}
	a.writeJob(w, r, status(&snap.Job), &snap, a.watchURL(r, api.Prefer{}, &snap.Job))
	return nil
}

// delete removes a job. The status is 204, also for a job that was deleted before.
func (a *API) delete(w http.ResponseWriter, r *http.Request) error {
	owner, id, err := parseJob(r)
	if err != nil {
		return err
	}
	if err := requireEmpty(r); err != nil {
		return err
	}
	if err := a.engine.Delete(r.Context(), owner, id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// requireEmpty refuses query parameters, and a body other than an empty object.
func requireEmpty(r *http.Request) error { return api.RequireEmpty(r) }
