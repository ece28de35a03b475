package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/chat"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/exec/llm"
	"github.com/meanwhile-run/meanwhile/internal/runner"
	"github.com/meanwhile-run/meanwhile/internal/telemetry"
)

// lastSpans is how long a server that stops waits for a collector to take its spans.
const lastSpans = 3 * time.Second

// seen is what shows a server from outside: its metrics, its traces, and the front that
// all requests come by.
type seen struct {
	// set once
	metrics  *telemetry.Metrics
	traces   *telemetry.Traces // nil without tracing
	front    *telemetry.Middleware
	listener net.Listener // of an address for the metrics alone; nil for none
	pprof    bool
	log      *slog.Logger
}

func openSeen(ctx context.Context, cfg config.Config, log *slog.Logger) (s *seen, err error) {
	s = &seen{metrics: telemetry.NewMetrics(), pprof: cfg.Pprof, log: log}
	if t := cfg.Tracing; t.URL() != "" {
		if s.traces, err = telemetry.NewTraces(telemetry.Tracing{URL: t.URL(), Ratio: t.Ratio}, log); err != nil {
			return s, err
		}
	}
	s.front = telemetry.NewMiddleware(s.metrics, s.traces, log)
	if cfg.Metrics.Listen == "" {
		return s, nil
	}
	if s.listener, err = listenAt(ctx, cfg.Metrics.Listen, "metrics.listen"); err != nil {
		return s, err
	}
	log.Info("metrics are at an address of their own", "url", "http://"+s.listener.Addr().String()+"/metrics")
	return s, nil
}

// attempts, calls and the questions of sockets are followed where there is tracing.
func (s *seen) attempts() runner.AttemptHook {
	if s.traces == nil {
		return nil
	}
	return s.traces.StartAttempt
}

func (s *seen) calls() llm.CallHook {
	if s.traces == nil {
		return nil
	}
	return s.traces.StartCall
}

func (s *seen) questions() chat.TraceFunc {
	if s.traces == nil {
		return nil
	}
	return s.traces.StartQuestion
}

// register adds what only programs on this machine may ask.
func (s *seen) register(mux api.Mux) {
	if s.listener == nil {
		mux.Handle("GET /metrics", gate.LocalOnly(s.metrics.Handler()))
	}
	if !s.pprof {
		return
	}
	for pattern, handler := range map[string]http.HandlerFunc{
		"GET /debug/pprof/":        pprof.Index, // all profiles that have no page of their own here
		"GET /debug/pprof/cmdline": pprof.Cmdline,
		"GET /debug/pprof/profile": pprof.Profile,
		"GET /debug/pprof/symbol":  pprof.Symbol,
		"GET /debug/pprof/trace":   pprof.Trace,
	} {
		mux.Handle(pattern, gate.LocalOnly(handler))
	}
}

// run answers at the metrics' own address, where there is one, until ctx ends.
func (s *seen) run(ctx context.Context) error {
	if s.listener == nil {
		<-ctx.Done()
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics.Handler())
	srv := &http.Server{
		Handler: mux, ReadTimeout: headerWait, WriteTimeout: goodbye * 2, IdleTimeout: idleWait, MaxHeaderBytes: headerBytes,
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

// close exports the last spans.
func (s *seen) close() error {
	if s.listener != nil {
		_ = s.listener.Close() // the HTTP server has closed it, if there was one
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastSpans)
	defer cancel()
	return s.traces.Close(ctx)
}

// follow has the metrics show what the house knows.
func (h *house) follow() {
	h.seen.metrics.AddSources(telemetry.Sources{
		Queues:   h.engine.Queues,
		Watchers: h.engine.Watchers,
		Size:     h.store.Size,
		Free:     h.files.Free,
		Circuits: h.circuits,
	})
}

// circuits says of each model whether its circuit is open.
func (h *house) circuits() map[string]bool {
	open := map[string]bool{}
	if h.models == nil {
		return open
	}
	for _, c := range h.models.Circuits() {
		open[c.Model] = c.Open
	}
	return open
}
