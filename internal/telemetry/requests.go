package telemetry

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// requests are the metrics of HTTP requests.
type requests struct {
	total   *prometheus.CounterVec   // by route, method and status; set once
	seconds *prometheus.HistogramVec // by route and method; set once
	known   smallMap[requestKind, requestMetrics]
}

// requestKind is what requests are told apart by. There are few: patterns are those of
// the mux, methods those of HTTP.
type requestKind struct {
	pattern, method string
	class           int // the first digit of the status; 0 for an answer that was cut off
}

type requestMetrics struct {
	total   prometheus.Counter
	seconds prometheus.Observer
}

func (q *requests) count(a *response, took time.Duration) {
	k := requestKind{a.pattern, methodOf(a.method), a.code() / 100}
	m := q.known.get(k, func() requestMetrics {
		return requestMetrics{q.total.WithLabelValues(a.route(), k.method, classOf(k.class)), q.seconds.WithLabelValues(a.route(), k.method)}
	})
	m.total.Inc()
	if !a.longLived {
		m.seconds.Observe(took.Seconds())
	}
}

// classOf names the class of a status.
func classOf(digit int) string {
	names := [...]string{"cut", "1xx", "2xx", "3xx", "4xx", "5xx"}
	if digit < len(names) {
		return names[digit]
	}
	return "other"
}

// methodOf is a method, unless it is one that only its sender knows.
func methodOf(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}
