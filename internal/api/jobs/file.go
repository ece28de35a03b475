package jobs

import (
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// file writes a file that was submitted with a job. It supports Range requests.
func (a *API) file(w http.ResponseWriter, r *http.Request) error {
	owner, id, err := parseJob(r)
	if err != nil {
		return err
	}
	if _, err := parseQuery(r); err != nil {
		return err
	}
	snap, err := a.engine.Get(r.Context(), owner, id)
	if err != nil {
		return err
	}
	name := r.PathValue("name")
	i := slices.IndexFunc(snap.Files, func(file job.File) bool { return file.Name == name })
	if i < 0 || a.files == nil {
		return job.Errorf(job.NotFound, "the job has no file %s", job.Quote(name))
	}
	file, err := a.files.Open(r.Context(), id, snap.Files[i])
	if err != nil {
		return err
	}
	defer file.Close()
	setFileHeaders(w.Header(), snap.Files[i])
	http.ServeContent(w, r, "", time.Time{}, file)
	return nil
}

// setFileHeaders sets the headers of a file. The file may come from another user than its
// reader, so they keep the browser from running it as a page of this server.
func setFileHeaders(h http.Header, f job.File) {
	h.Set("Content-Type", f.ContentType)
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": f.Name}))
	h.Set("ETag", `"`+f.SHA256+`"`)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	h.Set("Cache-Control", "no-store")
}
