package jobs

import (
	"net/http/httptest"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/files"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestFileIsServed(t *testing.T) {
	t.Parallel()
	f := newFormEngine(t, files.Options{})
	body, kind := encodeForm(minimalJobPart, part{name: "p", file: `a "b".html`, kind: "text/html", text: "<script>"}, part{name: "p", file: "ü", text: "0123456789"})
	if w := f.post(body, kind); w.Code != 202 {
		t.Fatal(w.Body)
	}
	f.snap.ID, f.snap.Files = f.request.ID, f.request.Files
	get := func(name string, headers ...string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		f.checkedHandler().ServeHTTP(w, request("GET", selfURL(f.request.ID)+"/files/"+name, "", headers...))
		return w
	}
	w := get("a%20%22b%22.html")
	h := w.Header()
	if w.Code != 200 || w.Body.String() != "<script>" || h.Get("Content-Type") != "text/html" || h.Get("Content-Length") != "8" ||
		h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Disposition") != `attachment; filename="a \"b\".html"` || h.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %q %v", w.Code, w.Body, h)
	}
	if w := get("%C3%BC", "Range", "bytes=2-4"); w.Code != 206 || w.Body.String() != "234" || w.Header().Get("Content-Disposition") != "attachment; filename*=utf-8''%C3%BC" {
		t.Errorf("a part: %d %q %v", w.Code, w.Body, w.Header())
	}
	for _, name := range []string{"c", "..%2F..%2Ffiles", "%C3%BC%00"} {
		w := get(name)
		checkProblem(t, name, w.Code, w.Body.Bytes(), 404, job.NotFound, "")
	}
	if w := get("%C3%BC?x=1"); w.Code != 400 {
		t.Errorf("a parameter: %d %s", w.Code, w.Body)
	}
	f.dir.Remove(f.request.ID)
	w = get("%C3%BC")
	checkProblem(t, "a file that is gone", w.Code, w.Body.Bytes(), 404, job.NotFound, "")
	f.err = job.Errorf(job.NotFound, "there is no such job")
	w = get("%C3%BC")
	checkProblem(t, "another's job", w.Code, w.Body.Bytes(), 404, job.NotFound, "")
}
