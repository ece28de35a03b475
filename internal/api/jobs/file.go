package jobs

import (
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// file answers a file that came with a job, byte for byte; parts of it where the
// request has a Range.
func (f *API) file(w http.ResponseWriter, r *http.Request) error {
	owner, id, err := subject(r)
	if err != nil {
		return err
	}
	if _, err := query(r); err != nil {
		return err
	}
	snap, err := f.engine.Get(r.Context(), owner, id)
	if err != nil {
		return err
	}
	name := r.PathValue("name")
	i := slices.IndexFunc(snap.Files, func(file job.File) bool { return file.Name == name })
	if i < 0 || f.files == nil {
		return job.Errorf(job.NotFound, "the job has no file %s", job.Quote(name))
	}
	file, err := f.files.Open(id, snap.Files[i])
	if err != nil {
		return err
	}
	defer file.Close()
	headFile(w.Header(), snap.Files[i])
	http.ServeContent(w, r, "", time.Time{}, file)
	return nil
}

// headFile says what the file is. Whoever sent it is not whoever reads it: it is
// never to run as a page of ours.
func headFile(h http.Header, f job.File) {
	h.Set("Content-Type", f.ContentType)
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": f.Name}))
	h.Set("ETag", `"`+f.SHA256+`"`)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	h.Set("Cache-Control", "no-store")
}
