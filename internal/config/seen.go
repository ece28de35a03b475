package config

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Metrics is where the server's numbers are read.
type Metrics struct {
	// Listen is an address of its own for /metrics, which anyone may read who reaches
	// it; "" has the server's own address answer, to programs on this machine.
	Listen string `yaml:"listen"`
}

// Tracing is where traces go.
type Tracing struct {
	Endpoint string  `yaml:"endpoint"` // the base URL of an OTLP/HTTP collector; "": OTEL_EXPORTER_OTLP_ENDPOINT, else none
	Ratio    float64 `yaml:"ratio"`    // of the traces that begin here, how many are kept: 0 to 1
	// Headers go along to the collector: what OTEL_EXPORTER_OTLP_HEADERS held when the
	// configuration was loaded. They are never written anywhere.
	Headers map[string]string `yaml:"-"`
}

// The standard variables of OpenTelemetry that are heeded here. Those that say what a
// service is called are heeded by whoever makes the traces.
const (
	otlpEndpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	otlpHeaders  = "OTEL_EXPORTER_OTLP_HEADERS"
)

func (l *loader) checkMetrics(m Metrics) {
	if m.Listen == "" {
		return
	}
	_, port, err := net.SplitHostPort(m.Listen)
	n, notNumber := strconv.Atoi(port)
	l.must(err == nil && notNumber == nil && n >= 0 && n <= 65535, "metrics.listen",
		"this must be host:port, such as 127.0.0.1:9090, not %s", job.Quote(m.Listen))
}

// checkTracing also takes what the standard variables say.
func (l *loader) checkTracing(t *Tracing) {
	const key = "tracing.endpoint"
	if text := l.env[otlpEndpoint]; t.Endpoint == "" && text != "" {
		t.Endpoint, l.where[key] = text, otlpEndpoint
	}
	l.must(0 <= t.Ratio && t.Ratio <= 1, "tracing.ratio", "this must be 0 to 1, not %v", t.Ratio)
	if t.Endpoint == "" {
		return
	}
	_, ok := parseBaseURL(t.Endpoint)
	l.must(ok, key, "this must be the URL of an OTLP/HTTP collector, up to /v1/traces, such as http://127.0.0.1:4318")
	t.Headers = l.headers(l.env[otlpHeaders])
}

// headers reads "name=value,name=value", the values escaped as in a URL.
func (l *loader) headers(text string) map[string]string {
	var headers map[string]string
	for pair := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if name = strings.TrimSpace(name); !ok || name == "" || err != nil {
			l.problem(otlpHeaders, "", "this must be name=value pairs with commas between, their values escaped as in a URL")
			return nil
		}
		if headers == nil {
			headers = map[string]string{}
		}
		headers[name] = value
	}
	return headers
}
