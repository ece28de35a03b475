package telemetry

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Tracing configures the export of traces.
type Tracing struct {
	URL   string  // receives spans, in OTLP over HTTP
	Ratio float64 // the share to keep of the traces that begin here: 0 to 1
}

// Traces creates OpenTelemetry spans for requests, for the attempts of their jobs and for
// the calls of attempts. Other packages only pass on a traceparent (W3C Trace Context) as
// text.
//
// A nil *Traces creates no spans. The traceparent of a caller is then stored with the job
// and passed on unchanged.
type Traces struct {
	// set once
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	out      *exporter
}

const scopeName = "github.com/meanwhile-run/meanwhile"

// NewTraces starts to export spans, in a goroutine that Close ends.
func NewTraces(c Tracing, log *slog.Logger) (*Traces, error) { return newTraces(c, log) }

func newTraces(c Tracing, log *slog.Logger, options ...otlptracehttp.Option) (*Traces, error) {
	out, err := newExporter(context.Background(), c.URL, log, options...)
	if err != nil {
		return nil, err
	}
	about, err := resource.New(context.Background(),
		resource.WithAttributes(attribute.String("service.name", "meanwhile")),
		resource.WithFromEnv()) // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override and extend these
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES cannot be read: %w", err)
	}
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(out),
		sdk.WithResource(about),
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(c.Ratio))),
	)
	return &Traces{provider: provider, tracer: provider.Tracer(scopeName), out: out}, nil
}

// Close exports the remaining spans for as long as ctx allows. It returns when no export
// is under way; an idle connection to the collector may stay open for 90 s.
func (t *Traces) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	defer t.out.giveUp()
	// Shutdown(ctx) would return when ctx ends and leave the export running. So the end of
	// ctx ends the export, and Shutdown waits for that.
	defer context.AfterFunc(ctx, t.out.giveUp)()
	return t.provider.Shutdown(context.WithoutCancel(ctx))
}

// traceparent is the header's name in net/http's spelling.
const traceparent = "Traceparent"

var w3c = propagation.TraceContext{}

// withParent returns ctx with the span of a traceparent, which becomes the parent of spans
// started with it. An invalid traceparent is ignored.
func withParent(ctx context.Context, parent string) context.Context {
	return w3c.Extract(ctx, propagation.MapCarrier{"traceparent": parent})
}

// traceparentOf returns the traceparent that names the span of ctx.
func traceparentOf(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	w3c.Inject(ctx, carrier)
	return carrier["traceparent"]
}

// span is the span of a request; the zero value is no span.
type span struct{ trace.Span }

// startSpan starts the span of a request. The returned request has the span as its
// traceparent: a handler stores that header with the job, and the job's spans become
// children of the request's.
func (t *Traces) startSpan(a *response, r *http.Request) *http.Request {
	if t == nil || isProbe(r.URL.Path) {
		return r
	}
	ctx := w3c.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, a.span.Span = t.tracer.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(a.began))
	r = r.WithContext(ctx)
	r.Header = r.Header.Clone()
	r.Header[traceparent] = []string{traceparentOf(ctx)}
	return r
}

// isProbe reports whether the path is one that monitoring reads every few seconds.
func isProbe(path string) bool {
	return path == "/healthz" || path == "/readyz" || path == "/metrics"
}

func (a *response) endSpan() {
	if a.span.Span == nil {
		return
	}
	route, code := a.route(), a.code()
	a.span.SetName(methodOf(a.method) + " " + route)
	a.span.SetAttributes(
		attribute.String("http.request.method", methodOf(a.method)),
		attribute.String("http.route", route),
		attribute.String("url.path", a.path),
		attribute.Int("http.response.status_code", code),
	)
	if code >= http.StatusInternalServerError || code == 0 {
		a.span.SetStatus(codes.Error, http.StatusText(code))
	}
	a.span.End()
}

// traceID returns the id of the request's trace; "" for none.
func (a *response) traceID(r *http.Request) string {
	ctx := r.Context()
	if a.span.Span == nil {
		ctx = w3c.Extract(ctx, propagation.HeaderCarrier(r.Header))
	}
	if id := trace.SpanContextFromContext(ctx).TraceID(); id.IsValid() {
		return id.String()
	}
	return ""
}

// StartQuestion starts the span of a question on a socket, as a child of the request that
// opened the socket. The traceparent is for the question's job. The caller must call ended
// with the new job, or with the error and its HTTP status.
func (t *Traces) StartQuestion(ctx context.Context, parent string) (_ string, ended func(task job.ID, status int, err error)) {
	ctx, s := t.tracer.Start(withParent(ctx, parent), "chat_query", trace.WithSpanKind(trace.SpanKindServer))
	return traceparentOf(ctx), func(task job.ID, status int, err error) {
		if err == nil {
			s.SetAttributes(attribute.String("meanwhile.job.id", task.String()))
		} else {
			s.SetAttributes(attribute.String("error.type", string(job.CodeOf(err))))
		}
		if status >= http.StatusInternalServerError {
			s.SetStatus(codes.Error, http.StatusText(status))
		}
		s.End()
	}
}

// StartAttempt starts the span of an attempt, as a child of the job's submit. The context
// and the traceparent are for the work of the attempt. The caller must call ended at its
// end, with nil when the lease was lost.
func (t *Traces) StartAttempt(ctx context.Context, j *job.Job) (_ context.Context, parent string, ended func(*job.Outcome)) {
	ctx, s := t.tracer.Start(withParent(ctx, j.Trace), "job "+j.Queue, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("meanwhile.job.id", j.ID.String()),
		attribute.String("meanwhile.queue", j.Queue),
		attribute.Int("meanwhile.attempt", j.Attempt),
		attribute.Float64("meanwhile.queue_wait_s", max(time.Since(j.RunAt), 0).Seconds()),
	))
	return ctx, traceparentOf(ctx), func(o *job.Outcome) {
		word, code := outcomeOf(o)
		s.SetAttributes(attribute.String("meanwhile.outcome", word))
		if code != "" {
			s.SetAttributes(attribute.String("error.type", code))
			s.SetStatus(codes.Error, code)
		}
		s.End()
	}
}

// outcomeOf returns the outcome of an attempt as one word, and its error code.
func outcomeOf(o *job.Outcome) (word, code string) {
	switch {
	case o == nil:
		return "lost", "lease_lost"
	case o.Cancelled:
		return "cancelled", ""
	case o.Released:
		return "handed_back", ""
	case o.Fault != nil:
		return "failed", o.Fault.Code
	}
	return "succeeded", ""
}

// StartCall starts the span of a call to a model's server, in an attempt's context. The
// call sends the traceparent. The caller must call ended at the end of the response, with
// the status, 0 for none, and the usage that the server reported.
func (t *Traces) StartCall(ctx context.Context, model string) (parent string, ended func(status int, usage []byte, err error)) {
	ctx, s := t.tracer.Start(ctx, "upstream call", trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("gen_ai.operation.name", "chat"), attribute.String("gen_ai.request.model", model)))
	return traceparentOf(ctx), func(status int, usage []byte, err error) {
		if status != 0 {
			s.SetAttributes(attribute.Int("http.response.status_code", status))
		}
		s.SetAttributes(tokensOf(usage)...)
		if err != nil {
			code := job.FaultOf(err).Code
			s.SetAttributes(attribute.String("error.type", code))
			s.SetStatus(codes.Error, code)
		}
		s.End()
	}
}

// tokensOf parses the usage of a chat completion.
func tokensOf(usage []byte) []attribute.KeyValue {
	var u struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
	}
	if json.Unmarshal(usage, &u) != nil {
		return nil
	}
	return []attribute.KeyValue{attribute.Int("gen_ai.usage.input_tokens", u.Prompt), attribute.Int("gen_ai.usage.output_tokens", u.Completion)}
}
