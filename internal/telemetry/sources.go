package telemetry

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/meanwhile-run/meanwhile/internal/engine"
)

// Sources are functions that a scrape calls. Any of them may be nil.
type Sources struct {
	// Queues lists the engine's queues. Watchers returns their number and its maximum.
	Queues   func(context.Context) ([]engine.QueueView, error)
	Watchers func() (current, maximum int)
	// Size returns the number of bytes in the store, Free the free bytes of the disk.
	Size func(context.Context) (int64, error)
	Free func() (free int64, known bool)
	// Bodies returns the bytes of the bodies in flight, and their maximum.
	Bodies func() (current, maximum int64)
	// Connections returns the numbers of the server's connections.
	Connections func() ConnectionStats
	// Inbox returns the numbers of the rows that are to become jobs.
	Inbox func(context.Context) (InboxStats, error)
	// CallbackCircuits returns how many receivers of callbacks fail.
	CallbackCircuits func() int
	// Endpoints counts the webhook endpoints.
	Endpoints func() EndpointStats
	// Models reports the state of each model's circuit and gate.
	Models func() []ModelState
	// Database reports the state of a PostgreSQL database; nil without one.
	Database func(context.Context) *DatabaseState
}

// ModelState is the state of a model.
type ModelState struct {
	Model       string
	CircuitOpen bool          // it is not called for a while, because it kept failing
	Calls       int           // calls now
	Closed      time.Duration // how long no call begins, because its server asked to wait
	RatePerS    float64       // calls a second that its server accepts; 0 while no limit is known
	Refused     int64         // calls that its server refused
}

// EndpointStats are the numbers of webhook endpoints. Failing ones are enabled too.
type EndpointStats struct{ Enabled, Failing, Disabled int }

// InboxStats are the numbers of the inbox.
type InboxStats struct {
	Rows    int           // that are no jobs yet; at most 100,000 are counted
	Oldest  time.Duration // for how long the first of them has waited
	Refused int64         // rows that this server has refused since its start
}

// ConnectionStats are the numbers of a server's connections. The others than Open and Max
// count since the start.
type ConnectionStats struct {
	Open, Max        int
	ClosedIdle       int // idle ones that were closed to make room
	RefusedAddress   int // past the limit of an address
	RefusedFull      int // past the limit of the server
	OutOfDescriptors int // times that the process could open no more files
}

// AddSources adds the metrics of the sources. It is called once.
func (m *Metrics) AddSources(s Sources) { m.registry.MustRegister(&s) }

// scrapeTime is the time limit for all sources together.
const scrapeTime = 5 * time.Second

func newDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	queueJobs        = newDesc("meanwhile_queue_jobs", "Unfinished jobs of a queue.", "queue", "state")
	queueDepth       = newDesc("meanwhile_queue_max_depth", "Waiting jobs that a queue takes at most.", "queue")
	queueBytes       = newDesc("meanwhile_queue_waiting_bytes", "Bytes of input and files of a queue's waiting jobs.", "queue")
	queueMaxBytes    = newDesc("meanwhile_queue_max_bytes", "Bytes of waiting jobs that a queue takes at most; not there without a limit.", "queue")
	queueOldest      = newDesc("meanwhile_queue_oldest_seconds", "For how long the job has been ready that has waited longest, queued or parked; 0 when none waits.", "queue")
	queuePaused      = newDesc("meanwhile_queue_paused", "1 for a queue that is paused, else 0.", "queue")
	queueConcurrency = newDesc("meanwhile_queue_concurrency", "Jobs of a queue that may run at once in this server.", "queue")
	queueServers     = newDesc("meanwhile_queue_servers_wanted", "Servers with this one's concurrency that would run all running and ready jobs of a queue at once.", "queue")
	jobsEnded        = newDesc("meanwhile_jobs_ended_total", "Jobs of a queue that have ended, ever: restarts do not begin anew.", "queue", "state")
	watchersNow      = newDesc("meanwhile_watchers", "Watches and held requests.")
	watchersMax      = newDesc("meanwhile_watchers_max", "Watches and held requests that there may be.")
	bodyBytes        = newDesc("meanwhile_body_bytes", "Bytes of the bodies and messages that are in flight.")
	bodyMaxBytes     = newDesc("meanwhile_body_max_bytes", "Bytes of bodies and messages that may be in flight.")
	connsOpen        = newDesc("meanwhile_connections", "Connections that are open.")
	connsMax         = newDesc("meanwhile_connections_max", "Connections that may be open.")
	connsClosed      = newDesc("meanwhile_connections_closed_total", "Idle connections that were closed to make room for others.")
	connsRefused     = newDesc("meanwhile_connections_refused_total", "Connections that were refused, by the limit that they were past.", "limit")
	noDescriptors    = newDesc("meanwhile_descriptors_exhausted_total", "Times that no connection could be accepted because the process had no file descriptor left.")
	storeBytes       = newDesc("meanwhile_store_bytes", "Bytes that the store holds, without what it could give back.")
	diskFree         = newDesc("meanwhile_disk_free_bytes", "Bytes that are free on the disk of the data directory.")
	inboxRows        = newDesc("meanwhile_inbox_rows", "Rows of the inbox that are no jobs yet; at most 100,000 are counted.")
	inboxOldest      = newDesc("meanwhile_inbox_oldest_seconds", "For how long the first row of the inbox has waited; 0 when none waits.")
	inboxRefused     = newDesc("meanwhile_inbox_refused_total", "Rows of the inbox that this server has refused.")
	callbackCircuits = newDesc("meanwhile_callback_circuits_open", "Receivers of callbacks that are asked by one delivery at a time, because they keep failing.")
	webhookEndpoints = newDesc("meanwhile_webhook_endpoints", "Webhook endpoints by their state; those that fail are enabled too.", "state")
	modelCalls       = newDesc("meanwhile_model_calls", "Calls to a model now.", "model")
	modelClosed      = newDesc("meanwhile_model_closed_seconds", "For how long no call to a model begins, because its server asked to wait; else 0.", "model")
	modelRate        = newDesc("meanwhile_model_rate", "Calls a second that a model's server accepts, as learned from its refusals; 0 while no limit is known.", "model")
	modelRefused     = newDesc("meanwhile_model_refused_total", "Calls that a model's server refused with 429.", "model")
	circuitOpen      = newDesc("meanwhile_model_circuit_open", "1 for a model that is not called for a while, because it kept failing; else 0.", "model")
)

// Describe implements [prometheus.Collector].
func (s *Sources) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		queueJobs, queueDepth, queueBytes, queueMaxBytes, queueOldest, queuePaused, queueConcurrency, queueServers, jobsEnded,
		watchersNow, watchersMax, bodyBytes, bodyMaxBytes, connsOpen, connsMax, connsClosed, connsRefused, noDescriptors, storeBytes, diskFree, inboxRows, inboxOldest, inboxRefused, webhookEndpoints, callbackCircuits, circuitOpen, modelCalls, modelClosed, modelRate, modelRefused,
	} {
		to <- d
	}
	for _, d := range databaseDescriptions {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (s *Sources) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s.collectQueues(ctx, to, gauge)
	if s.Database != nil {
		collectDatabase(s.Database(ctx), to, gauge)
	}
	if s.Watchers != nil {
		current, maximum := s.Watchers()
		gauge(watchersNow, float64(current))
		gauge(watchersMax, float64(maximum))
	}
	if s.Bodies != nil {
		current, maximum := s.Bodies()
		gauge(bodyBytes, float64(current))
		gauge(bodyMaxBytes, float64(maximum))
	}
	if s.Connections != nil {
		c := s.Connections()
		count := func(d *prometheus.Desc, n int, labels ...string) {
			to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
		}
		gauge(connsOpen, float64(c.Open))
		gauge(connsMax, float64(c.Max))
		count(connsClosed, c.ClosedIdle)
		count(connsRefused, c.RefusedAddress, "address")
		count(connsRefused, c.RefusedFull, "server")
		count(noDescriptors, c.OutOfDescriptors)
	}
	if s.Size != nil {
		if size, err := s.Size(ctx); err == nil {
			gauge(storeBytes, float64(size))
		}
	}
	if s.Free != nil {
		if free, known := s.Free(); known {
			gauge(diskFree, float64(free))
		}
	}
	if s.Inbox != nil {
		if n, err := s.Inbox(ctx); err == nil {
			gauge(inboxRows, float64(n.Rows))
			gauge(inboxOldest, n.Oldest.Seconds())
			to <- prometheus.MustNewConstMetric(inboxRefused, prometheus.CounterValue, float64(n.Refused))
		}
	}
	if s.CallbackCircuits != nil {
		gauge(callbackCircuits, float64(s.CallbackCircuits()))
	}
	if s.Endpoints != nil {
		n := s.Endpoints()
		gauge(webhookEndpoints, float64(n.Enabled), "enabled")
		gauge(webhookEndpoints, float64(n.Failing), "failing")
		gauge(webhookEndpoints, float64(n.Disabled), "disabled")
	}
	if s.Models != nil {
		for _, m := range s.Models() {
			gauge(circuitOpen, boolValue(m.CircuitOpen), m.Model)
			gauge(modelCalls, float64(m.Calls), m.Model)
			gauge(modelClosed, m.Closed.Seconds(), m.Model)
			gauge(modelRate, m.RatePerS, m.Model)
			to <- prometheus.MustNewConstMetric(modelRefused, prometheus.CounterValue, float64(m.Refused), m.Model)
		}
	}
}

func (s *Sources) collectQueues(ctx context.Context, to chan<- prometheus.Metric, gauge gaugeFunc) {
	if s.Queues == nil {
		return
	}
	views, err := s.Queues(ctx)
	if err != nil {
		to <- prometheus.NewInvalidMetric(queueJobs, err)
		return
	}
	for _, v := range views {
		c := v.Counts
		for state, n := range map[string]int64{"scheduled": c.Scheduled, "queued": c.Queued, "parked": c.Parked, "running": c.Running} {
			gauge(queueJobs, float64(n), v.Name, state)
		}
		for state, n := range map[string]int64{"succeeded": c.Succeeded, "failed": c.Failed, "cancelled": c.Cancelled, "expired": c.Expired} {
			to <- prometheus.MustNewConstMetric(jobsEnded, prometheus.CounterValue, float64(n), v.Name, state)
		}
		if !v.Unconfigured {
			gauge(queueDepth, float64(v.MaxDepth), v.Name)
		}
		gauge(queueBytes, float64(c.WaitingBytes), v.Name)
		if v.MaxBytes > 0 {
			gauge(queueMaxBytes, float64(v.MaxBytes), v.Name)
		}
		gauge(queueOldest, v.OldestQueued.Seconds(), v.Name)
		gauge(queuePaused, boolValue(c.Paused), v.Name)
		gauge(queueConcurrency, float64(v.Concurrency), v.Name)
		gauge(queueServers, serversWanted(v), v.Name)
	}
}

// serversWanted returns how many servers with the concurrency of this one would run all running
// and ready jobs of a queue at once, as far as its limit over all servers allows. Parked jobs wait
// for their keys, and jobs of a paused queue for somebody: no server helps them.
func serversWanted(v engine.QueueView) float64 {
	if v.Concurrency == 0 {
		return 0
	}
	jobs := v.Counts.Running
	if !v.Counts.Paused {
		jobs += v.Counts.Queued
	}
	if v.MaxRunning > 0 {
		jobs = min(jobs, int64(v.MaxRunning))
	}
	return float64(jobs) / float64(v.Concurrency)
}

func boolValue(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
