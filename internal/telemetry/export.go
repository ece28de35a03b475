package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// exporter sends spans to a collector by OTLP over HTTP. It adds two things to the library's
// exporter: it logs a failing collector at most once a minute, and giveUp ends all calls.
//
// The SDK calls ExportSpans and Shutdown from one goroutine at a time. Requests and jobs
// only add to the SDK's bounded queue of spans, so a slow collector loses spans and delays
// no request and no job.
type exporter struct {
	// set once
	sdk.SpanExporter
	log    *slog.Logger
	ctx    context.Context // ends every call
	giveUp context.CancelFunc

	// used by ExportSpans
	failing bool      // a warning was logged for the current outage
	warned  time.Time // when the last warning was logged
	lost    int       // spans that were lost since the last message
}

// warnInterval is the minimum time between two warnings about lost spans.
const warnInterval = time.Minute

// newExporter creates an exporter that posts to the URL. The library reads the headers, the
// timeout, the compression and TLS from the OTEL_EXPORTER_OTLP_* variables.
func newExporter(ctx context.Context, endpoint string, log *slog.Logger, options ...otlptracehttp.Option) (*exporter, error) {
	// The library would only log an unusable URL, and use another.
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("the tracing endpoint must be a URL like http://127.0.0.1:4318/v1/traces, not %q", endpoint)
	}
	library, err := otlptracehttp.New(ctx, append([]otlptracehttp.Option{otlptracehttp.WithEndpointURL(endpoint), otlptracehttp.WithProxy(proxyWithoutRedirect)}, options...)...)
	if err != nil {
		return nil, fmt.Errorf("the trace exporter cannot start: %w", err)
	}
	e := &exporter{SpanExporter: library, log: log}
	e.ctx, e.giveUp = context.WithCancel(context.Background())
	return e, nil
}

// proxyWithoutRedirect returns the proxy of the environment, and refuses a request that
// follows a redirect: it would carry the headers of OTEL_EXPORTER_OTLP_HEADERS, such as an
// API key, to another host. A transport asks for the proxy before each request. With a client
// of our own, which could refuse redirects itself, the library would ignore the variables for
// TLS.
func proxyWithoutRedirect(r *http.Request) (*url.URL, error) {
	if r.Response != nil {
		return nil, fmt.Errorf("the collector answers with a redirect to %s, which is not followed: set the endpoint to where it leads", r.URL.Redacted())
	}
	return http.ProxyFromEnvironment(r)
}

// ExportSpans sends spans. It retries for as long as ctx allows while the collector asks
// for that. It logs a failure and returns nil: the SDK would write the error to the
// standard error output.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.lost += len(spans)
		// A collector that fails and recovers every few seconds gets one warning a minute.
		if !e.failing && (e.warned.IsZero() || time.Since(e.warned) >= warnInterval) {
			e.failing, e.warned = true, time.Now()
			e.log.Warn("spans cannot be exported and are lost", "error", err)
		}
		return nil
	}
	if e.failing {
		e.log.Info("spans are exported again", "lost", e.lost)
		e.failing, e.lost = false, 0
	}
	return nil
}
