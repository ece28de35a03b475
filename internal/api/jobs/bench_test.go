package jobs

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// sink is an answer that nobody reads.
type sink struct{ header http.Header }

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(int)             {}
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }

// silent is the engine at no cost.
func silent(b *testing.B) *fake {
	f := newFake(b)
	f.snap.State, f.snap.Attempt, f.snap.StartedAt = job.Running, 1, moment
	return f
}

func bench(b *testing.B, f *fake, r *http.Request, body []byte) {
	h := f.handler()
	reader := bytes.NewReader(body)
	r.Body, r.ContentLength = io.NopCloser(reader), int64(len(body))
	w := &sink{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(body)
		clear(w.header)
		f.calls = f.calls[:0]
		h.ServeHTTP(w, r)
	}
}

// BenchmarkSubmit is a submit of 500 bytes, from the mux to the last byte, without
// net/http's own work and the engine's.
func BenchmarkSubmit(b *testing.B) {
	body := []byte(`{"queue":"sim","input":{"duration_ms":0,"echo":"` + strings.Repeat("x", 450) + `"}}`)
	bench(b, silent(b), request("POST", "/v1/jobs", "", "Content-Type", "application/json"), body)
}

// BenchmarkSubmitOnce has an Idempotency-Key and metadata too.
func BenchmarkSubmitOnce(b *testing.B) {
	body := []byte(`{"queue":"sim","key":"ann","priority":3,"metadata":{"order":"17","kind":"ocr"},"input":{"echo":"` + strings.Repeat("x", 400) + `"}}`)
	bench(b, silent(b), request("POST", "/v1/jobs", "", "Content-Type", "application/json", "Idempotency-Key", "abc"), body)
}

func BenchmarkGet(b *testing.B) {
	f := silent(b)
	f.snap = full()
	bench(b, f, request("GET", jobPath, ""), nil)
}
