package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api/chat"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/exec/llm"
	"github.com/meanwhile-run/meanwhile/internal/files"
	"github.com/meanwhile-run/meanwhile/internal/runner"
	"github.com/meanwhile-run/meanwhile/internal/telemetry"
)

// spanFlushTimeout is the maximum time that a stop waits for the last spans to be exported.
const spanFlushTimeout = 3 * time.Second

// instruments holds the metrics and the traces of a server, and the middleware that
// records its requests.
type instruments struct {
	// set once
	metrics    *telemetry.Metrics
	traces     *telemetry.Traces // nil without tracing
	middleware *telemetry.Middleware
	listener   net.Listener                    // of the separate address for metrics; nil for none
	checkHosts func(http.Handler) http.Handler // of requests to that address
	pprof      bool
	log        *slog.Logger
}

func openInstruments(ctx context.Context, cfg config.Config, g gate.Gate, log *slog.Logger) (s *instruments, err error) {
	s = &instruments{metrics: telemetry.NewMetrics(), pprof: cfg.Pprof, log: log}
	if t := cfg.Tracing; t.URL() != "" {
		if s.traces, err = telemetry.NewTraces(telemetry.Tracing{URL: t.URL(), Ratio: t.Ratio}, log); err != nil {
			return s, err
		}
	}
	s.middleware = telemetry.NewMiddleware(s.metrics, s.traces, log)
	if cfg.Metrics.Listen == "" {
		return s, nil
	}
	if s.listener, err = listenAt(ctx, cfg.Metrics.Listen, "metrics.listen"); err != nil {
		return s, err
	}
	g.Listen = []string{cfg.Metrics.Listen}
	s.checkHosts = g.CheckHosts
	log.Info("metrics are at an address of their own", "url", "http://"+s.listener.Addr().String()+"/metrics")
	return s, nil
}

// attemptHook, callHook and questionHook return nil without tracing: a nil *Traces has no
// methods that a hook could call.
func (s *instruments) attemptHook() runner.AttemptHook {
	if s.traces == nil {
		return nil
	}
	return s.traces.StartAttempt
}

func (s *instruments) callHook() llm.CallHook {
	if s.traces == nil {
		return nil
	}
	return s.traces.StartCall
}

func (s *instruments) questionHook() chat.TraceFunc {
	if s.traces == nil {
		return nil
	}
	return s.traces.StartQuestion
}

// register adds routes for administrators: with keys those who have the scope admin, without keys
// programs on this machine.
func (s *instruments) register(mux gate.Routes) {
	need := gate.Scope(access.Admin).OnMachine()
	if s.listener == nil {
		mux.Handle("GET /metrics", need, s.metrics.Handler())
	}
	if !s.pprof {
		return
	}
	for pattern, handler := range map[string]http.HandlerFunc{
		"GET /debug/pprof/":        pprof.Index, // also serves every profile that has no route here
		"GET /debug/pprof/cmdline": pprof.Cmdline,
		"GET /debug/pprof/profile": pprof.Profile,
		"GET /debug/pprof/symbol":  pprof.Symbol,
		"GET /debug/pprof/trace":   pprof.Trace,
	} {
		mux.Handle(pattern, need, handler)
	}
}

// run serves the separate address for metrics, if there is one, until ctx ends.
func (s *instruments) run(ctx context.Context) error {
	if s.listener == nil {
		<-ctx.Done()
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics.Handler())
	srv := &http.Server{
		Handler: s.checkHosts(mux), ReadTimeout: headerTimeout, WriteTimeout: requestGrace * 2, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(s.listener) }()
	select {
	case err := <-failed:
		s.log.Error("the metrics can no longer be read", "error", err)
		return err
	case <-ctx.Done():
	}
	err := srv.Close()
	<-failed
	return err
}

// close exports the last spans. It stops waiting after spanFlushTimeout.
func (s *instruments) close() error {
	if s.listener != nil {
		_ = s.listener.Close() // usually closed by run
	}
	ctx, cancel := context.WithTimeout(context.Background(), spanFlushTimeout)
	defer cancel()
	return s.traces.Close(ctx)
}

// addMetricSources sets the functions that the metrics call at each scrape.
func (c *components) addMetricSources() {
	sources := telemetry.Sources{
		Queues:      c.engine.Queues,
		Watchers:    c.engine.Watchers,
		Size:        c.store.Size,
		Free:        func() (int64, bool) { return files.Free(c.data.path) },
		Connections: c.conns.statsNow,
		Bodies:      c.gate.Bodies.InFlight,
		Models:      c.modelStates,
		Endpoints:   func() telemetry.EndpointStats { return telemetry.EndpointStats(c.callbacks.Stats()) },

		CallbackCircuits: c.sender.OpenCircuits,
	}
	if c.store.postgres != nil {
		c.readDatabase(&sources)
	}
	if c.store.pool != nil {
		sources.Inbox = c.inboxStats
	}
	c.instruments.metrics.AddSources(sources)
}

// modelStates reports the state of each model's circuit and gate.
func (c *components) modelStates() []telemetry.ModelState {
	if c.models == nil {
		return nil
	}
	var list []telemetry.ModelState
	gates := c.models.Gates()
	for i, circuit := range c.models.Circuits() {
		g := &gates[i]
		list = append(list, telemetry.ModelState{
			Model: circuit.Model, CircuitOpen: circuit.Open, Calls: g.Calls, RatePerS: g.RatePerS, Refused: g.Refused,
			Closed: max(time.Until(g.ClosedUntil), 0),
		})
	}
	return list
}
