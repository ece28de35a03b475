package config

import (
	"strings"
	"testing"
)

func TestTracingEndpointIsTakenFromFileThenVariables(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		yaml  string
		env   []string
		url   string
		ratio float64
	}{
		"nothing":               {"", nil, "", 1},
		"the file":              {"tracing: {endpoint: http://a:1, ratio: 0.25}", nil, "http://a:1/v1/traces", 0.25},
		"our variable":          {"", []string{"MEANWHILE_TRACING_ENDPOINT=http://a:1"}, "http://a:1/v1/traces", 1},
		"the standard variable": {"", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://b:1/otlp"}, "http://b:1/otlp/v1/traces", 1},
		"our variable overrides the standard ones": {"tracing: {endpoint: http://a:1}", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://b:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://c:1/t"}, "http://a:1/v1/traces", 1},
		"the standard variable for traces":         {"", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://b:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://c:1/t"}, "http://c:1/t", 1},
		"headers":                                  {"tracing: {endpoint: http://a:1}", []string{"OTEL_EXPORTER_OTLP_HEADERS=a=1, b = x%20y=z ,"}, "http://a:1/v1/traces", 1},
		"headers for nowhere":                      {"", []string{"OTEL_EXPORTER_OTLP_HEADERS=a"}, "", 1},
	} {
		if got := mustLoad(t, c.yaml, c.env...).Tracing; got.URL() != c.url || got.Ratio != c.ratio {
			t.Errorf("%s: %q and %v, not %q and %v", name, got.URL(), got.Ratio, c.url, c.ratio)
		}
	}
}

func TestTelemetryKeysAreChecked(t *testing.T) {
	t.Parallel()
	for yaml, want := range map[string]string{
		"metrics: {listen: nowhere}":      `metrics.listen: this must be host:port`,
		"metrics: {listen: 'a:99999'}":    `metrics.listen: this must be host:port`,
		"tracing: {endpoint: a.b}":        `tracing.endpoint: this must be the URL`,
		"tracing: {endpoint: 'grpc://a'}": `tracing.endpoint: this must be the URL`,
		"tracing: {ratio: 1.5}":           `tracing.ratio: this must be 0 to 1, not 1.5`,
		"tracing: {ratio: most}":          `tracing.ratio: this must be a number, not "most"`,
		"tracing: {ratio: .nan}":          `tracing.ratio: this must be a number`,
		"pprof: yes":                      `pprof: this must be true or false`,
	} {
		if _, err := load(t, yaml); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", yaml, err)
		}
	}
	if _, err := load(t, "", "OTEL_EXPORTER_OTLP_ENDPOINT=collector"); err == nil || !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_ENDPOINT: tracing.endpoint: this must be the URL") {
		t.Errorf("a collector that is no URL: %v", err)
	}
	if _, err := load(t, "", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=collector"); err == nil || !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: tracing.endpoint: this must be the URL") {
		t.Errorf("a collector of traces that is no URL: %v", err)
	}
	if _, err := load(t, "tracing: {endpoint: http://a}", "OTEL_EXPORTER_OTLP_HEADERS=a"); err == nil || !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_HEADERS: this must be name=value") {
		t.Errorf("a header without a value: %v", err)
	}
}
