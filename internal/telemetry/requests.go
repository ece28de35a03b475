package telemetry

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// requests holds the metrics of HTTP requests.
type requests struct {
	total   *prometheus.CounterVec   // by route, method and status; set once
	seconds *prometheus.HistogramVec // by route and method; set once
	byKind  sync.Map                 // of *requestMetrics by requestKind: a lookup by labels costs more than the rest
}

// requestKind has the labels of a request. The number of kinds is small: patterns come from
// the mux, methods from HTTP, and all other methods have one label.
type requestKind struct {
	pattern, method string
	class           int // the first digit of the status; 0 for a response that was cut off
}

type requestMetrics struct {
	total   prometheus.Counter
	seconds prometheus.Observer
}

func (q *requests) count(a *response, took time.Duration) {
	k := requestKind{a.pattern, methodOf(a.method), a.code() / 100}
	v, ok := q.byKind.Load(k)
	if !ok {
		v, _ = q.byKind.LoadOrStore(k, &requestMetrics{
			q.total.WithLabelValues(a.route(), k.method, classOf(k.class)),
			q.seconds.WithLabelValues(a.route(), k.method),
		})
	}
	m := v.(*requestMetrics)
	m.total.Inc()
	if !a.longLived {
		m.seconds.Observe(took.Seconds())
	}
}

// classOf names the class of a status by its first digit.
func classOf(digit int) string {
	names := [...]string{"cut", "1xx", "2xx", "3xx", "4xx", "5xx"}
	if digit < len(names) {
		return names[digit]
	}
	return "other"
}

// methodOf returns the label for a method. A client may invent methods, which must not
// become labels.
func methodOf(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}
