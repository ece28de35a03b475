package jobs

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// get answers a job, at once or when it has ended.
func (f *API) get(w http.ResponseWriter, r *http.Request) error {
	owner, id, err := subject(r)
	if err != nil {
		return err
	}
	if _, err := query(r); err != nil {
		return err
	}
	prefer, err := api.ParsePrefer(r.Header)
	if err != nil {
		return err
	}
	snap, err := held(f, r, prefer.Wait, func(ctx context.Context, wait time.Duration) (engine.Snapshot, error) {
		if wait == 0 {
			return f.engine.Get(ctx, owner, id)
		}
		return f.engine.Wait(ctx, owner, id, wait)
	})
	if err != nil {
		return err
	}
	prefer.Apply(w.Header())
	dontStore(w)
	f.answerJob(w, http.StatusOK, &snap, f.watchURL(r, prefer, &snap.Job))
	return nil
}

// dontStore keeps an answer that will be another one soon out of every cache.
func dontStore(w http.ResponseWriter) { w.Header()["Cache-Control"] = noStore }

// noStore is never changed.
var noStore = []string{"no-store"}

// list answers a page of jobs, newest first.
func (f *API) list(w http.ResponseWriter, r *http.Request) error {
	filter, err := filterOf(r)
	if err != nil {
		return err
	}
	page, next, err := f.engine.List(r.Context(), filter)
	if err != nil {
		return err
	}
	dontStore(w)
	f.answer(w, http.StatusOK, func(b []byte) []byte {
		b = append(b, `{"object":"list","data":[`...)
		for i := range page {
			b = appendJob(comma(b, i), &page[i], nil, f.watchURL(r, api.Prefer{}, &page[i]))
		}
		b = append(b, `],"next":`...)
		if next == (job.ID{}) {
			return append(b, "null}"...)
		}
		return append(appendString(b, api.PageCursor(next)), '}')
	})
	return nil
}

func comma(b []byte, i int) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	return b
}

// output answers the entries after a number, at once or at the next change.
func (f *API) output(w http.ResponseWriter, r *http.Request) error {
	owner, id, err := subject(r)
	if err != nil {
		return err
	}
	q, err := query(r, "after")
	if err != nil {
		return err
	}
	after, err := api.ParseSeq(q.Get("after"))
	if err != nil {
		return err
	}
	prefer, err := api.ParsePrefer(r.Header)
	if err != nil {
		return err
	}
	up, err := held(f, r, prefer.Wait, func(ctx context.Context, wait time.Duration) (engine.Update, error) {
		return f.engine.Output(ctx, owner, id, after, wait)
	})
	if err != nil {
		return err
	}
	if err := pastEnd(after, up.Job); err != nil {
		return err
	}
	prefer.Apply(w.Header())
	dontStore(w)
	f.answer(w, http.StatusOK, func(b []byte) []byte { return appendOutput(b, &up, after) })
	return nil
}

func appendOutput(b []byte, up *engine.Update, cursor int64) []byte {
	b = appendJob(append(b, `{"job":`...), up.Job, nil, "")
	b = append(b, `,"data":[`...)
	for i := range up.Entries {
		b = appendEntry(comma(b, i), &up.Entries[i])
		cursor = up.Entries[i].Seq
	}
	return append(strconv.AppendInt(append(b, `],"cursor":`...), cursor, 10), '}')
}

// result answers what a job came to, as it is.
func (f *API) result(w http.ResponseWriter, r *http.Request) error {
	owner, id, err := subject(r)
	if err != nil {
		return err
	}
	if _, err := query(r); err != nil {
		return err
	}
	res, err := f.engine.Result(r.Context(), owner, id)
	if job.CodeOf(err) == job.NotFinished {
		return f.noResult(r, owner, id, err)
	}
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", res.ContentType)
	if res.ContentType == "" {
		h.Set("Content-Type", "application/octet-stream")
	}
	h.Set("Content-Length", strconv.Itoa(len(res.Body)))
	// Whoever made the result is not whoever reads it: it is never to run as a page
	// of ours.
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	dontStore(w)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(res.Body) // an error is the reader's leaving
	return nil
}

// noResult says why there is no result: the job goes on, or it ended without one.
func (f *API) noResult(r *http.Request, owner job.Owner, id job.ID, why error) error {
	snap, err := f.engine.Get(r.Context(), owner, id)
	if err != nil {
		return err
	}
	switch snap.State {
	case job.Failed:
		return &api.JobFailed{Refusal: job.Errorf(job.Conflict, "the job failed, so it has no result"), Failure: snap.Failure}
	case job.Cancelled, job.Expired:
		return &api.JobFailed{Refusal: job.Errorf(job.Conflict, "the job is %s, so it has no result", snap.State), Failure: snap.Failure}
	default:
		return why
	}
}
