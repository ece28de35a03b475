package jobs

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// get writes a job: at once, or at its end within the wait of the Prefer header.
func (a *API) get(w http.ResponseWriter, r *http.Request) error {
	owner, id, err := parseJob(r)
	if err != nil {
		return err
	}
	if _, err := parseQuery(r); err != nil {
		return err
	}
	prefer, err := api.ParsePrefer(r.Header)
	if err != nil {
		return err
	}
	snap, err := longPoll(a, r, prefer.Wait, func(ctx context.Context, wait time.Duration) (engine.Snapshot, error) {
		if wait == 0 {
			return a.engine.Get(ctx, owner, id)
		}
		return a.engine.Wait(ctx, owner, id, wait)
	})
	if err != nil {
		return err
	}
	prefer.Apply(w.Header())
	setNoStore(w)
	a.writeJob(w, r, http.StatusOK, &snap, a.watchURL(r, prefer, &snap.Job))
	return nil
}

// setNoStore forbids caching a response whose content changes.
func setNoStore(w http.ResponseWriter) { w.Header()["Cache-Control"] = noStore }

// noStore is never changed.
var noStore = []string{"no-store"}

// list writes a page of jobs, newest first.
func (a *API) list(w http.ResponseWriter, r *http.Request) error {
	filter, err := parseList(r)
	if err != nil {
		return err
	}
	page, next, err := a.engine.List(r.Context(), filter)
	if err != nil {
		return err
	}
	caller := gate.CallerFrom(r)
	return a.writeLongJSON(w, r, func(b []byte) []byte {
		b = append(b, `{"object":"list","data":[`...)
		for i := range page {
			b = appendJobFor(caller, comma(b, i), &page[i], nil, a.watchURL(r, api.Prefer{}, &page[i]))
		}
		b = append(b, `],"next":`...)
		if next == (job.ID{}) {
			return append(b, "null}"...)
		}
		return append(appendString(b, api.PageCursor(next)), '}')
	})
}

func comma(b []byte, i int) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	return b
}

// output writes the output entries after a cursor: at once, or at the job's next change
// within the wait of the Prefer header.
func (a *API) output(w http.ResponseWriter, r *http.Request) error {
	owner, id, err := parseJob(r)
	if err != nil {
		return err
	}
	q, err := parseQuery(r, "after")
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
	up, err := longPoll(a, r, prefer.Wait, func(ctx context.Context, wait time.Duration) (engine.Update, error) {
		return a.engine.Output(ctx, owner, id, after, wait)
	})
	if err != nil {
		return err
	}
	if err := checkCursor(after, up.Job); err != nil {
		return err
	}
	prefer.Apply(w.Header())
	return a.writeLongJSON(w, r, func(b []byte) []byte { return appendOutput(b, &up, after) })
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

// resultPiece is how many bytes of a result are in memory at a time for each of its readers.
const resultPiece = 512 << 10

// result writes the bytes of a job's result with their own content type, piece by piece.
func (a *API) result(w http.ResponseWriter, r *http.Request) error {
	owner, id, err := parseJob(r)
	if err != nil {
		return err
	}
	if _, err := parseQuery(r); err != nil {
		return err
	}
	part, err := a.engine.Result(r.Context(), owner, id, 0, resultPiece)
	if job.CodeOf(err) == job.NotFinished {
		return a.missingResult(r, owner, id, err)
	}
	if err != nil {
		return err
	}
	release, err := a.gate.ReserveResponse(gate.BudgetOf(r), len(part.Body))
	if err != nil {
		return err
	}
	defer release()
	h := w.Header()
	h.Set("Content-Type", part.ContentType)
	if part.ContentType == "" {
		h.Set("Content-Type", "application/octet-stream")
	}
	h.Set("Content-Length", strconv.FormatInt(part.Size, 10))
	// The result may come from another user than its reader. These headers keep the browser
	// from running it as a page of this server.
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	setNoStore(w)
	w.WriteHeader(http.StatusOK)
	for at := int64(0); r.Method != http.MethodHead; {
		if _, err := w.Write(part.Body); err != nil {
			return nil // the client has left
		}
		if at += int64(len(part.Body)); at >= part.Size {
			break
		}
		// An error after the beginning breaks the connection: the job was deleted meanwhile.
		if part, err = a.engine.Result(r.Context(), owner, id, at, resultPiece); err != nil {
			return err
		}
	}
	return nil
}

// missingResult returns the error for a job without a result. notFinished is the error for
// one that has not ended.
func (a *API) missingResult(r *http.Request, owner job.Owner, id job.ID, notFinished error) error {
	snap, err := a.engine.Get(r.Context(), owner, id)
	if err != nil {
		return err
	}
	switch snap.State {
	case job.Failed:
		return &api.JobFailed{Refusal: job.Errorf(job.Conflict, "the job failed, so it has no result"), Failure: snap.Failure}
	case job.Cancelled, job.Expired:
		return &api.JobFailed{Refusal: job.Errorf(job.Conflict, "the job is %s, so it has no result", snap.State), Failure: snap.Failure}
	default:
		return notFinished
	}
}
