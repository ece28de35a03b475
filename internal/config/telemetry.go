package config

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Metrics configures where the server serves its metrics.
type Metrics struct {
	// Listen is a separate address for /metrics, without access control. "" serves
	// /metrics at the server's own address, to programs on this machine only.
	Listen string `yaml:"listen"`
}

// Tracing configures where the server sends traces.
type Tracing struct {
	Endpoint string  `yaml:"endpoint"` // the base URL of an OTLP/HTTP collector; "": the standard variables, or no tracing
	Ratio    float64 `yaml:"ratio"`    // the share to keep of the traces that begin here: 0 to 1

	// TracesURL is OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, when Endpoint is not set. It is used
	// unchanged, without an appended path.
	TracesURL string `yaml:"-"`
}

// URL returns the address that spans are posted to; "" for no tracing.
func (t Tracing) URL() string {
	if t.Endpoint == "" {
		return t.TracesURL
	}
	u, ok := parseBaseURL(t.Endpoint)
	if !ok {
		return t.Endpoint // the exporter reports it
	}
	return u.JoinPath("v1/traces").String()
}

// Load reads these standard variables of OpenTelemetry. It only checks the headers. The
// exporter reads the headers and all other variables.
const (
	otlpEndpoint       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	otlpTracesEndpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	otlpHeaders        = "OTEL_EXPORTER_OTLP_HEADERS"
	otlpTracesHeaders  = "OTEL_EXPORTER_OTLP_TRACES_HEADERS"
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

// checkTracing also takes the endpoint from the standard variables.
func (l *loader) checkTracing(t *Tracing) {
	const key = "tracing.endpoint"
	if text := l.env[otlpTracesEndpoint]; t.Endpoint == "" && text != "" {
		t.TracesURL, l.where[key] = text, otlpTracesEndpoint
	} else if text := l.env[otlpEndpoint]; t.Endpoint == "" && text != "" {
		t.Endpoint, l.where[key] = text, otlpEndpoint
	}
	l.must(0 <= t.Ratio && t.Ratio <= 1, "tracing.ratio", "this must be 0 to 1, not %v", t.Ratio)
	if t.URL() == "" {
		return
	}
	if t.TracesURL != "" {
		_, ok := parseBaseURL(t.TracesURL)
		l.must(ok, key, "this must be the URL to which spans are posted, such as http://127.0.0.1:4318/v1/traces")
	} else {
		_, ok := parseBaseURL(t.Endpoint)
		l.must(ok, key, "this must be the URL of an OTLP/HTTP collector, up to /v1/traces, such as http://127.0.0.1:4318")
	}
	l.checkHeaders(otlpHeaders)
	l.checkHeaders(otlpTracesHeaders)
}

// checkHeaders refuses a variable that is not "name=value,name=value", with values escaped
// as in a URL. The exporter would leave out invalid headers, and the collector would refuse
// every span.
func (l *loader) checkHeaders(variable string) {
	for pair := range strings.SplitSeq(l.env[variable], ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		_, err := url.PathUnescape(strings.TrimSpace(value))
		if !ok || strings.TrimSpace(name) == "" || err != nil {
			l.problem(variable, "", "this must be name=value pairs with commas between, their values escaped as in a URL")
			return
		}
	}
}
