package jobs

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// discardWriter is a response writer that discards the response.
type discardWriter struct{ header http.Header }

func (s *discardWriter) Header() http.Header         { return s.header }
func (s *discardWriter) WriteHeader(int)             {}
func (s *discardWriter) Write(p []byte) (int, error) { return len(p), nil }

// newQuietFake returns a fake engine that costs nothing.
func newQuietFake(b *testing.B) *fake {
	f := newFake(b)
	f.snap.State, f.snap.Attempt, f.snap.StartedAt = job.Running, 1, moment
	return f
}

func bench(b *testing.B, f *fake, r *http.Request, body []byte) {
	h := f.handler()
	reader := bytes.NewReader(body)
	r.Body, r.ContentLength = io.NopCloser(reader), int64(len(body))
	w := &discardWriter{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(body)
		clear(w.header)
		f.calls = f.calls[:0]
		h.ServeHTTP(w, r)
	}
}

// BenchmarkSubmit is a submit of 500 bytes, from the mux to the last byte, without the
// work of net/http and of the engine.
func BenchmarkSubmit(b *testing.B) {
	body := []byte(`{"queue":"sim","input":{"duration_ms":0,"echo":"` + strings.Repeat("x", 450) + `"}}`)
	bench(b, newQuietFake(b), request("POST", "/v1/jobs", "", "Content-Type", "application/json"), body)
}

// BenchmarkSubmitWithIdempotencyKey is BenchmarkSubmit with an Idempotency-Key and metadata.
func BenchmarkSubmitWithIdempotencyKey(b *testing.B) {
	body := []byte(`{"queue":"sim","key":"ann","priority":3,"metadata":{"order":"17","kind":"ocr"},"input":{"echo":"` + strings.Repeat("x", 400) + `"}}`)
	bench(b, newQuietFake(b), request("POST", "/v1/jobs", "", "Content-Type", "application/json", "Idempotency-Key", "abc"), body)
}

func BenchmarkGet(b *testing.B) {
	f := newQuietFake(b)
	f.snap = fullSnapshot()
	bench(b, f, request("GET", jobPath, ""), nil)
}

// benchWatcher is a watcher of a job with b.N output entries.
type benchWatcher struct {
	left int64
	seq  int64
}

func (c *benchWatcher) Next(context.Context) (engine.Update, error) {
	c.seq++
	state := job.Running
	if c.seq >= c.left {
		state = job.Succeeded
	}
	return engine.Update{Job: new(jobAt(state, c.seq)), Entries: []job.Entry{entry(c.seq, job.KindText, "token ")}}, nil
}

func (c *benchWatcher) Close() {}

// BenchmarkEvent is one output event, from the update to the last byte that the client
// reads, with net/http and with a detached response.
func BenchmarkEvent(b *testing.B) {
	b.Run("handler", func(b *testing.B) { benchmarkEvent(b, false) })
	b.Run("line", func(b *testing.B) { benchmarkEvent(b, true) })
}

func benchmarkEvent(b *testing.B, direct bool) {
	f := newQuietFake(b)
	f.snap.Job = jobAt(job.Succeeded, int64(b.N))
	f.watch = func(int64) stream.Watcher { return &benchWatcher{left: int64(b.N)} }
	server := httptest.NewUnstartedServer(f.handler())
	if direct {
		server.Config.BaseContext = func(net.Listener) context.Context { return api.WithDirect(context.Background()) }
	}
	server.Start()
	defer server.Close()
	r, err := http.NewRequest("GET", server.URL+jobPath+"/events", nil)
	if err != nil {
		b.Fatal(err)
	}
	r.Host = "127.0.0.1:8080"
	b.ReportAllocs()
	b.ResetTimer()
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		b.Fatal(err)
	}
}
