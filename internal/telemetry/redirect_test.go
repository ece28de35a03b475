package telemetry

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
)

// A collector cannot send the exporter's headers, which may have an API key, to another
// host.
func TestRedirectOfCollectorIsNotFollowed(t *testing.T) {
	t.Parallel()
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+"/v1/traces", status)
		}))
		var log bytes.Buffer
		traces, err := newTraces(Tracing{URL: collector.URL, Ratio: 1}, slog.New(slog.NewTextHandler(&log, nil)),
			otlptracehttp.WithHeaders(map[string]string{"api-key": "secret"}))
		if err != nil {
			t.Fatal(err)
		}
		_, ended := traces.StartQuestion(context.Background(), "")
		ended([16]byte{}, 200, nil)
		if err := traces.Close(context.Background()); err != nil {
			t.Error(err)
		}
		collector.Close()
		if n := elsewhere.Load(); n > 0 {
			t.Errorf("a %d was followed", status)
		}
		if text := log.String(); !strings.Contains(text, "redirect to "+other.URL) || strings.Contains(text, "secret") {
			t.Errorf("%d: the log is %s", status, text)
		}
	}
}
