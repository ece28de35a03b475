package telemetry

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Metrics holds a server's metrics, in its own registry. It counts events as an
// [engine.Observer]. Each scrape reads the current state of queues, watchers and disk; see
// [Sources].
//
// A test checks that docs/operations.md describes every metric.
type Metrics struct {
	// set once
	registry *prometheus.Registry
	waits    *prometheus.HistogramVec // of jobs, by queue
	runs     *prometheus.HistogramVec // of attempts, by queue
	attempts *prometheus.CounterVec   // by queue and outcome
	refused  *prometheus.CounterVec   // by op and code
	commits  [engine.NumLanes]prometheus.Observer
	batches  prometheus.Observer
	output   prometheus.Counter
	swept    [2]prometheus.Counter // leases: of silent workers, and of workers that ignored a cancel
	requests requests
	queues   sync.Map // of *queueMetrics by name
}

// queueMetrics holds the metrics of one queue that every job changes: a lookup by labels
// costs more than the rest.
type queueMetrics struct {
	wait, run prometheus.Observer
	ended     [engine.NumEndings]prometheus.Counter
}

// Upper bounds of the histograms' buckets: in seconds, and opsBuckets in ops.
var (
	jobBuckets     = []float64{.001, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600}
	commitBuckets  = []float64{.0005, .001, .002, .004, .008, .016, .032, .064, .125, .25, .5, 1, 2, 4, 8}
	requestBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	opsBuckets     = []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048}
)

// NewMetrics returns the metrics of one server.
func NewMetrics() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return register(m, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels))
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return register(m, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
	}
	m.waits = histogram("meanwhile_job_wait_seconds", "How long a job that was given to a worker had been ready.", jobBuckets, "queue")
	m.runs = histogram("meanwhile_attempt_run_seconds", "How long an attempt ran, however it ended.", jobBuckets, "queue")
	m.attempts = counter("meanwhile_attempts_total", "Attempts that have ended, by how.", "queue", "outcome")
	m.refused = counter("meanwhile_ops_refused_total", "Operations that were refused, by why.", "op", "code")
	m.batches = histogram("meanwhile_commit_batch_ops", "Operations in a commit.", opsBuckets).WithLabelValues()
	m.output = counter("meanwhile_output_bytes_total", "Bytes of output that were stored.").WithLabelValues()

	commits := histogram("meanwhile_commit_seconds", "From an operation's being asked for to its being on disk.", commitBuckets, "lane")
	for l := range engine.NumLanes {
		m.commits[l] = commits.WithLabelValues(l.String())
	}
	swept := counter("meanwhile_leases_taken_total", "Leases that a sweep has taken from their worker.", "reason")
	m.swept = [2]prometheus.Counter{swept.WithLabelValues("silent"), swept.WithLabelValues("cancel_ignored")}
	m.requests.total = counter("meanwhile_http_requests_total", "HTTP requests that were answered.", "route", "method", "status")
	m.requests.seconds = histogram("meanwhile_http_request_seconds", "How long an HTTP answer took; held requests and streams are left out.", requestBuckets, "route", "method")
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())
	return m
}

func register[C prometheus.Collector](m *Metrics, c C) C {
	m.registry.MustRegister(c)
	return c
}

// buildInfo returns a metric of value 1. Its labels describe the build of the program.
func buildInfo() prometheus.Collector {
	labels := prometheus.Labels{"version": "(devel)", "revision": "", "go": runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" {
			labels["version"] = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				labels["revision"] = s.Value
			}
		}
	}
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "meanwhile_build_info", Help: "What the server was built from; always 1.", ConstLabels: labels})
	g.Set(1)
	return g
}

// Handler serves all metrics in the format of Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, ErrorHandling: promhttp.ContinueOnError})
}

// queue returns the metrics of a queue.
func (m *Metrics) queue(name string) *queueMetrics {
	if q, ok := m.queues.Load(name); ok {
		return q.(*queueMetrics)
	}
	q := &queueMetrics{wait: m.waits.WithLabelValues(name), run: m.runs.WithLabelValues(name)}
	for how := range engine.NumEndings {
		q.ended[how] = m.attempts.WithLabelValues(name, how.String())
	}
	// Another call may have added the same metrics meanwhile.
	stored, _ := m.queues.LoadOrStore(name, q)
	return stored.(*queueMetrics)
}

// OpSettled counts an op that is on disk.
func (m *Metrics) OpSettled(l engine.Lane, took time.Duration) { m.commits[l].Observe(took.Seconds()) }

// BatchSettled counts a commit.
func (m *Metrics) BatchSettled(ops int) { m.batches.Observe(float64(ops)) }

// OpRefused counts a refusal.
func (m *Metrics) OpRefused(op string, code job.Code) {
	m.refused.WithLabelValues(op, string(code)).Inc()
}

// AttemptBegan counts the start of an attempt.
func (m *Metrics) AttemptBegan(queue string, waited time.Duration) {
	m.queue(queue).wait.Observe(waited.Seconds())
}

// AttemptEnded counts the end of an attempt.
func (m *Metrics) AttemptEnded(queue string, how engine.Ending, ran time.Duration) {
	q := m.queue(queue)
	q.ended[how].Inc()
	if ran > 0 {
		q.run.Observe(ran.Seconds())
	}
}

// OutputStored counts output.
func (m *Metrics) OutputStored(bytes int64) { m.output.Add(float64(bytes)) }

// LeaseSwept counts a lease that a sweep ended.
func (m *Metrics) LeaseSwept(cancelled bool) {
	if cancelled {
		m.swept[1].Inc()
		return
	}
	m.swept[0].Inc()
}
