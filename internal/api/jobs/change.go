package jobs

import (
	"context"
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// cancel asks for a job's end: 202 while it still runs, 200 once it has ended,
// whoever ended it.
func (f *API) cancel(w http.ResponseWriter, r *http.Request) error {
	return f.change(w, r, f.engine.Cancel, accepted)
}

// retry queues an ended job again: 202, also when the new attempt is over already.
func (f *API) retry(w http.ResponseWriter, r *http.Request) error {
	return f.change(w, r, f.engine.Retry, func(*job.Job) int { return http.StatusAccepted })
}

// change answers the job as a call without a body left it.
func (f *API) change(w http.ResponseWriter, r *http.Request, do func(context.Context, job.Owner, job.ID) (engine.Snapshot, error), status func(*job.Job) int) error {
	owner, id, err := subject(r)
	if err != nil {
		return err
	}
	if err := nothingMore(r); err != nil {
		return err
	}
	snap, err := do(r.Context(), owner, id)
	if err != nil {
		return err
	}
	f.answerJob(w, status(&snap.Job), &snap, f.watchURL(r, api.Prefer{}, &snap.Job))
	return nil
}

// delete removes a job: 204, and 204 again.
func (f *API) delete(w http.ResponseWriter, r *http.Request) error {
	owner, id, err := subject(r)
	if err != nil {
		return err
	}
	if err := nothingMore(r); err != nil {
		return err
	}
	if err := f.engine.Delete(r.Context(), owner, id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// nothingMore holds a request to its address: no parameters, and no body but an
// empty object.
func nothingMore(r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	if r.ContentLength == 0 {
		return nil
	}
	body, err := api.ReadBody(r, job.MaxBody)
	if err != nil || len(body) == 0 {
		return err
	}
	return api.DecodeJSON(body, &struct{}{})
}
