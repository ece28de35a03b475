package obs

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// requests are the metrics of HTTP requests.
type requests struct {
	total   *prometheus.CounterVec   // by route, method and status; set once
	seconds *prometheus.HistogramVec // by route and method; set once

	mu    sync.RWMutex
	known map[requestKind]requestMetrics // guarded by mu
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

func (q *requests) count(a *answer, took time.Duration) {
	m := q.of(requestKind{a.pattern, methodOf(a.method), a.code() / 100}, a)
	m.total.Inc()
	if !a.lasts {
		m.seconds.Observe(took.Seconds())
	}
}

func (q *requests) of(k requestKind, a *answer) requestMetrics {
	q.mu.RLock()
	m, known := q.known[k]
	q.mu.RUnlock()
	if known {
		return m
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	m = requestMetrics{q.total.WithLabelValues(a.route(), k.method, classOf(k.class)), q.seconds.WithLabelValues(a.route(), k.method)}
	if q.known == nil {
		q.known = map[requestKind]requestMetrics{}
	}
	q.known[k] = m
	return m
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
