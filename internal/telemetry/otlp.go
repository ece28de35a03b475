package telemetry

import (
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// The part of OTLP's trace request that we say, as its JSON mapping has it: ids in
// hexadecimal, 64-bit numbers as text.
type (
	payload struct {
		ResourceSpans []resourceSpans `json:"resourceSpans"`
	}
	resourceSpans struct {
		Resource   resourceOf   `json:"resource"`
		ScopeSpans []scopeSpans `json:"scopeSpans"`
	}
	resourceOf struct {
		Attributes []keyValue `json:"attributes"`
	}
	scopeSpans struct {
		Scope scope      `json:"scope"`
		Spans []wireSpan `json:"spans"`
	}
	scope struct {
		Name string `json:"name"`
	}
	wireSpan struct {
		TraceID    string     `json:"traceId"`
		SpanID     string     `json:"spanId"`
		ParentID   string     `json:"parentSpanId,omitempty"`
		Flags      uint32     `json:"flags"`
		Name       string     `json:"name"`
		Kind       int        `json:"kind"`
		Start      string     `json:"startTimeUnixNano"`
		End        string     `json:"endTimeUnixNano"`
		Attributes []keyValue `json:"attributes,omitempty"`
		Status     wireStatus `json:"status"`
	}
	wireStatus struct {
		Code    int    `json:"code,omitempty"` // 0 unset, 1 ok, 2 error
		Message string `json:"message,omitempty"`
	}
	keyValue struct {
		Key   string   `json:"key"`
		Value anyValue `json:"value"`
	}
	anyValue struct {
		String *string  `json:"stringValue,omitempty"`
		Bool   *bool    `json:"boolValue,omitempty"`
		Int    *string  `json:"intValue,omitempty"`
		Double *float64 `json:"doubleValue,omitempty"`
	}
)

// payloadOf puts spans of one provider into a request.
func payloadOf(spans []sdk.ReadOnlySpan) payload {
	of := resourceSpans{ScopeSpans: []scopeSpans{{Scope: scope{Name: scopeName}}}}
	for _, s := range spans {
		of.Resource.Attributes = attributesOf(s.Resource().Attributes())
		of.ScopeSpans[0].Spans = append(of.ScopeSpans[0].Spans, wireSpanOf(s))
	}
	return payload{ResourceSpans: []resourceSpans{of}}
}

func wireSpanOf(s sdk.ReadOnlySpan) wireSpan {
	ctx := s.SpanContext()
	w := wireSpan{
		TraceID: ctx.TraceID().String(), SpanID: ctx.SpanID().String(), Flags: uint32(ctx.TraceFlags()),
		Name: s.Name(), Kind: int(s.SpanKind()), // both number the kinds alike
		Start: nanos(s.StartTime()), End: nanos(s.EndTime()),
		Attributes: attributesOf(s.Attributes()),
	}
	if s.Parent().SpanID().IsValid() {
		w.ParentID = s.Parent().SpanID().String()
	}
	switch s.Status().Code {
	case codes.Ok:
		w.Status.Code = 1
	case codes.Error:
		w.Status = wireStatus{Code: 2, Message: s.Status().Description}
	}
	return w
}

func nanos(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

func attributesOf(list []attribute.KeyValue) []keyValue {
	out := make([]keyValue, 0, len(list))
	for _, a := range list {
		out = append(out, keyValue{Key: string(a.Key), Value: valueOf(a.Value)})
	}
	return out
}

// valueOf is an attribute's value; lists, of which we say none, as text.
func valueOf(v attribute.Value) anyValue {
	switch v.Type() {
	case attribute.BOOL:
		b := v.AsBool()
		return anyValue{Bool: &b}
	case attribute.INT64:
		n := strconv.FormatInt(v.AsInt64(), 10)
		return anyValue{Int: &n}
	case attribute.FLOAT64:
		f := v.AsFloat64()
		return anyValue{Double: &f}
	}
	text := v.String()
	return anyValue{String: &text}
}
