package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/chat"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/jobs"
	"github.com/meanwhile-run/meanwhile/internal/api/openapi"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/llm"
	"github.com/meanwhile-run/meanwhile/internal/exec/process"
	"github.com/meanwhile-run/meanwhile/internal/files"
	"github.com/meanwhile-run/meanwhile/internal/runner"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// chatQueue is the queue that answers /api/chat.
const chatQueue = "chat"

// Bounds of the HTTP server. Those of bodies and answers are [api.Timeouts].
const (
	headerWait  = 10 * time.Second
	idleWait    = 2 * time.Minute
	headerBytes = 32 << 10
	logAhead    = 16 << 20        // what the log grows to under load
	reserve     = 8 << 20         // held on the disk for ends, cancels and deletes
	goodbye     = 5 * time.Second // for requests under way, once running work is over
)

// house is all that a server is made of. What it opens first (open) is there
// before it is known which queues there are; the rest (furnish) follows when it is
// to run.
type house struct {
	cfg       config.Config
	log       *slog.Logger
	data      *dataDir
	seen      *seen
	store     *sqlite.Store
	models    *llm.Executor
	notes     *process.PIDFile         // of the commands that run
	executors map[string]exec.Executor // of each queue
	listener  net.Listener             // nil for none

	gate    *gate.Gate // wherever the server listens
	files   *files.Dir // that came with jobs
	engine  *engine.Engine
	runners []*runner.Runner
	jobs    *jobs.API
	chat    *chat.API // nil without a queue for it
	health  health
	door    *door // of those who come through the program that the server lives in

	leaving context.Context // over when held requests and streams are to end
	leave   context.CancelFunc
}

// open takes what nobody else may have: the directory, the store, the address. What
// was opened before a failure is closed again.
func open(ctx context.Context, cfg config.Config, log *slog.Logger) (_ *house, err error) {
	h := &house{cfg: cfg, log: log, door: newDoor()}
	h.leaving, h.leave = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()

	if h.data, err = openData(cfg.Data); err != nil {
		return nil, err
	}
	if h.store, err = sqlite.Open(ctx, h.data.database(), sqlite.Options{AtEnd: conversation.AtEnd, PreallocateLog: logAhead, Log: log,
		Reserve: reserve, KeepFree: cfg.MinFreeBytes, Free: func() (int64, bool) { return files.Free(h.data.path) },
	}); err != nil {
		return nil, fmt.Errorf("the store cannot be opened: %w", err)
	}
	if h.gate, err = makeGate(cfg, h.data); err != nil {
		return nil, err
	}
	if h.seen, err = openSeen(ctx, cfg, log); err != nil {
		return nil, err
	}
	// Before any queue runs: what a command of a killed server has left would run beside
	// the next attempt.
	if h.notes, err = process.OpenPIDFile(h.data.commands(), log); err != nil {
		return nil, fmt.Errorf("what an earlier server's commands have left cannot be found: %w", err)
	}
	if h.executors, h.models, err = makeExecutors(cfg, h.notes, h.seen.calls(), log); err != nil {
		return nil, err
	}
	if cfg.Listen == "" {
		return h, nil
	}
	if h.listener, err = listenAt(ctx, cfg.Listen, "--listen"); err != nil {
		return nil, err
	}
	return h, nil
}

// listenAt takes an address. The error says what is in the way, and where another
// address is named.
func listenAt(ctx context.Context, addr, where string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err == nil {
		return l, nil
	}
	why := "see whether it is an address of this machine"
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		why = "another program does; stop it"
	case errors.Is(err, syscall.EACCES):
		why = "ports below 1024 are for root and for who has CAP_NET_BIND_SERVICE; run it so"
	}
	return nil, fmt.Errorf("cannot listen at %s: %s, or name another (%s): %w", addr, why, where, err)
}

// furnish makes what works in the house, in the order of who needs whom. Nothing of
// it runs yet.
func (h *house) furnish(ctx context.Context) (err error) {
	if err := h.openFiles(ctx); err != nil {
		return err
	}
	h.engine, err = engine.New(ctx, engine.Config{
		Alone:       true, // the data directory is locked
		Store:       h.store,
		Queues:      engineQueues(h.cfg, h.executors),
		Log:         h.log,
		MaxBytes:    h.cfg.Retention.MaxBytes,
		FileBytes:   h.files.Size,
		Free:        h.free(),
		MinFree:     h.cfg.MinFreeBytes,
		RemoveFiles: h.removeFiles,
		Observer:    h.seen.metrics,
	})
	if err != nil {
		return fmt.Errorf("the store cannot be read: %w", err)
	}
	h.health.room = h.engine.HasDiskSpace
	h.follow()
	h.runners = h.makeRunners(h.executors)
	h.jobs = jobs.New(jobs.Config{Engine: jobs.FromEngine(h.engine), Files: h.files, Gate: h.gate, Log: h.log, Stopping: h.leaving})
	if _, ok := h.cfg.Queues[chatQueue]; ok {
		h.chat = chat.New(chat.Config{
			Engine:        h.engine,
			Conversations: conversation.New(h.store, h.engine),
			Queue:         chatQueue,
			Log:           h.log,
			Gate:          h.gate,
			Trace:         h.seen.questions(),
			Stopping:      h.leaving.Done(),
		})
	}
	return nil
}

// makeRunners makes a runner for each queue.
func (h *house) makeRunners(executors map[string]exec.Executor) []*runner.Runner {
	var list []*runner.Runner
	for name, executor := range executors {
		list = append(list, runner.New(runner.Config{
			Source:    h.engine,
			Queue:     name,
			Executor:  executor,
			Slots:     h.cfg.Queues[name].Concurrency,
			Name:      fmt.Sprintf("server-%d", os.Getpid()),
			Log:       h.log,
			Files:     h.files.Path,
			OnAttempt: h.seen.attempts(),
			Grace:     max(h.cfg.ShutdownGrace, 1), // for a runner 0 is its own default
			// The data directory is locked: only our own sweep takes leases, and it takes none
			// while the disk stands still.
			IgnoreLeaseExpiry: true,
		}))
	}
	return list
}

// work runs the runners until ctx ends and their work is over or handed back.
func (h *house) work(ctx context.Context) error {
	errs := make([]error, len(h.runners))
	var all sync.WaitGroup
	for i, r := range h.runners {
		all.Go(func() { errs[i] = r.Run(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// routes are all APIs, behind the gate of an address that is listened on; "" for any.
func (h *house) routes(listen string) http.Handler {
	mux := http.NewServeMux()
	h.register(mux)
	g := *h.gate
	g.Listen = []string{listen}
	return h.seen.front.Wrap(g.Handler(mux))
}

// register adds all that is answered to a mux.
func (h *house) register(mux api.Mux) {
	h.health.register(mux)
	h.seen.register(mux)
	openapi.Register(mux)
	h.jobs.Register(mux)
	if h.chat != nil {
		h.chat.Register(mux)
	}
}

// serve answers requests until ctx ends; those under way are answered still, but
// for those that take longer than a goodbye.
func (h *house) serve(ctx context.Context) error {
	h.door.open(h.routes(""))
	err := h.listen(ctx)
	if !h.door.shut(goodbye) {
		h.log.Warn("some requests did not end")
	}
	h.jobs.Wait()
	if h.chat != nil {
		h.chat.Wait()
	}
	return err
}

// listen is serve for those who come over the network.
func (h *house) listen(ctx context.Context) error {
	if h.listener == nil {
		<-ctx.Done()
		return nil
	}
	srv := &http.Server{
		Handler:           h.routes(h.cfg.Listen),
		ReadHeaderTimeout: headerWait,
		IdleTimeout:       idleWait,
		MaxHeaderBytes:    headerBytes,
		BaseContext:       func(net.Listener) context.Context { return api.WithDirect(context.Background()) },
		ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(h.gate.Timeouts.BoundListener(h.listener)) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	err := srv.Shutdown(patience)
	if errors.Is(err, context.DeadlineExceeded) {
		h.log.Warn("some requests did not end and were cut off")
		err = srv.Close()
	}
	<-failed
	return err
}

// close lets go of what is open, the last opened first.
func (h *house) close() error {
	h.leave()
	var errs []error
	if h.listener != nil {
		_ = h.listener.Close() // the HTTP server has closed it, if there was one
	}
	if h.models != nil {
		h.models.Close()
	}
	errs = append(errs, h.notes.Close())
	if h.seen != nil {
		errs = append(errs, h.seen.close())
	}
	if h.store != nil {
		errs = append(errs, h.store.Close())
	}
	if h.data != nil {
		errs = append(errs, h.data.release())
	}
	return errors.Join(errs...)
}
