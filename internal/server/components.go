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
	"github.com/meanwhile-run/meanwhile/internal/api/admin"
	"github.com/meanwhile-run/meanwhile/internal/api/chat"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/jobs"
	"github.com/meanwhile-run/meanwhile/internal/api/openapi"
	"github.com/meanwhile-run/meanwhile/internal/api/webhooks"
	"github.com/meanwhile-run/meanwhile/internal/callback"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/llm"
	"github.com/meanwhile-run/meanwhile/internal/exec/process"
	"github.com/meanwhile-run/meanwhile/internal/files"
	"github.com/meanwhile-run/meanwhile/internal/files/pgfiles"
	"github.com/meanwhile-run/meanwhile/internal/inbox"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/runner"
	"github.com/meanwhile-run/meanwhile/internal/telemetry"
	"github.com/meanwhile-run/meanwhile/internal/webhook"
)

// chatQueue is the queue that answers /api/chat.
const chatQueue = "chat"

// Limits of the HTTP server. Those of request and response bodies are [api.Timeouts].
const (
	headerTimeout   = 10 * time.Second
	idleTimeout     = 2 * time.Minute
	maxHeaderBytes  = 32 << 10
	preallocatedLog = 16 << 20        // size to which the write-ahead log grows under load
	reserve         = 8 << 20         // disk space that only finishes, cancels and deletes may use
	requestGrace    = 5 * time.Second // how long requests may go on once running work has ended
)

// components holds everything that a server consists of. open makes the first part, which
// needs no list of queues. assemble makes the rest, once Server.Run is called: a program
// that embeds the server may add queues in between.
type components struct {
	cfg         config.Config
	log         *slog.Logger
	data        *dataDir
	instruments *instruments
	store       openedStore
	reads       *telemetry.Reads // of the metrics; nil without a database
	models      *llm.Executor
	pidFile     *process.PIDFile         // of the running commands
	executors   map[string]exec.Executor // by queue
	listener    net.Listener             // nil without an address
	certificate *certificate             // of the listener; nil for plain HTTP

	keys             *tokenKeys
	registry         *registry // of API keys and tenants
	purger           *purger
	gate             *gate.Gate // for every listener
	conns            *connections
	files            files.Store    // of jobs
	shared           *pgfiles.Store // the same, if they are in a database; else nil
	engine           *engine.Engine
	runners          []*runner.Runner
	apis             []httpAPI
	jobs             *jobs.API // one of apis
	callbacks        *callback.Book
	sender           *webhook.Executor // of the queue of deliveries
	admin            *admin.API        // one of apis
	adminListener    net.Listener      // the socket in the data directory; nil where there are no sockets
	inbox            *inbox.Inbox      // nil without a database
	health           health
	notifier         *notifier    // nil without a service manager
	afterInboxSubmit func() error // a step of the inbox that tests break; nil
	embedded         *embedded    // for requests from a program that embeds the server

	streams    context.Context // ends when long-polls and streams must end
	endStreams context.CancelFunc
}

// httpAPI is one of the APIs. Wait returns when its streams and sockets have ended.
type httpAPI interface {
	Register(mux gate.Routes)
	Wait()
}

// open acquires the directory, the store and the address, which only one process can have. On
// failure it closes those that it has opened.
func open(ctx context.Context, cfg config.Config, log *slog.Logger) (_ *components, err error) {
	c := &components{cfg: cfg, log: log, embedded: newEmbedded(log)}
	c.purger = &purger{c: c, grace: purgeGrace}
	c.streams, c.endStreams = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()

	if c.data, err = openData(cfg.Data, layoutFor(cfg)); err != nil {
		return nil, err
	}
	if c.store, err = openStore(ctx, cfg, c.data, log); err != nil {
		return nil, err
	}
	err = whileAway(ctx, cfg, log, func() error {
		if c.keys, err = openTokenKeys(ctx, c.data, c.store.pool, log); err == nil {
			c.registry, err = openRegistry(ctx, c.store, log)
		}
		return err
	})
	if err != nil {
		return nil, databaseError(cfg, err)
	}
	// Before the address: nobody may connect to a server that refuses to start.
	if err := checkExposure(cfg, c.registry); err != nil {
		return nil, err
	}
	c.gate = makeGate(cfg, c.keys.tokens, c.registry, log)
	c.conns = newConnections(limitConnections(cfg, c.gate, log), log)
	if c.instruments, err = openInstruments(ctx, cfg, *c.gate, log); err != nil {
		return nil, err
	}
	commands, err := openCommands(c.data, log)
	if err != nil {
		return nil, err
	}
	c.pidFile = commands.PIDFile
	if c.executors, c.models, err = makeExecutors(cfg, commands, c.instruments.callHook(), log); err != nil {
		return nil, err
	}
	if cfg.Listen == "" {
		return c, nil
	}
	if c.certificate, err = openCertificate(cfg.TLS, log); err != nil {
		return nil, err
	}
	c.conns.secure = c.certificate != nil
	if c.listener, err = listenAt(ctx, cfg.Listen, "--listen"); err != nil {
		return nil, err
	}
	return c, nil
}

// listenAt listens at an address. The error names the likely cause and the setting
// (where) that changes the address.
func listenAt(ctx context.Context, addr, where string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err == nil {
		return l, nil
	}
	advice := "check that it is an address of this machine"
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		advice = "another program uses it; stop that"
	case errors.Is(err, syscall.EACCES):
		advice = "ports below 1024 need root or CAP_NET_BIND_SERVICE"
	}
	return nil, fmt.Errorf("cannot listen at %s: %s, or use another address (%s): %w", addr, advice, where, err)
}

// assemble makes the other components, each after those that it uses. It starts none of
// them. The end of waiting ends only the wait for a database that is away.
func (c *components) assemble(waiting context.Context) (err error) {
	ctx := context.WithoutCancel(waiting)
	for _, e := range c.executors {
		if r, ok := e.(interface{ CheckRunnable() error }); ok && r.CheckRunnable() != nil {
			return r.CheckRunnable()
		}
	}
	if err := c.openFiles(ctx); err != nil {
		return err
	}
	resources := resourcesOf(c.executors)
	c.openCallbacks()
	settings := engine.Config{
		Alone:       c.store.exclusive,
		Store:       c.store.Store,
		Queues:      append(engineQueues(c.cfg, c.executors), c.deliveryQueue()),
		Log:         c.log,
		MaxBytes:    c.cfg.Retention.MaxBytes,
		MaxKept:     c.cfg.Retention.UserBytes,
		FileBytes:   c.files.Size,
		Free:        c.store.free,
		MinFree:     c.cfg.MinFreeBytes,
		RemoveFiles: func(ids []job.ID) { c.files.Remove(ids...) },
		Observer:    c.instruments.metrics,

		Refs:           c.callbacks.Refs,
		ResourceLimits: resources.limits(),
		Bus:            c.store.bus,
		ProcessName:    processName(),
	}
	err = whileAway(waiting, c.cfg, c.log, func() error {
		if c.engine, err = engine.New(ctx, settings); err != nil {
			return err
		}
		return c.callbacks.Load(ctx)
	})
	if err != nil {
		return fmt.Errorf("the store cannot be read: %w", err)
	}
	c.registry.write = c.engine.Write
	c.registry.join(c.store.bus)
	resources.follow(c.engine)
	c.health.hasSpace = c.engine.HasDiskSpace
	if !c.store.exclusive {
		c.health.storeAway = c.engine.StoreAway
	}
	c.addMetricSources()
	c.runners = append(c.makeRunners(c.executors), c.deliveryRunner())
	c.jobs = jobs.New(jobs.Config{Engine: jobs.FromEngine(c.engine), Files: c.files, Gate: c.gate, Log: c.log, Stopping: c.streams, MaxInput: maxInput(c.cfg.Queues)})
	c.admin = admin.New(admin.Config{Registry: c.registry, Log: c.log})
	c.apis = []httpAPI{c.jobs, c.admin, webhooks.New(c.callbacks, c.log)}
	c.openAdminSocket()
	c.makeInbox()
	if _, ok := c.cfg.Queues[chatQueue]; ok {
		c.apis = append(c.apis, chat.New(chat.Config{
			Engine:        c.engine,
			Conversations: conversation.New(c.store, c.engine),
			Queue:         chatQueue,
			Log:           c.log,
			Gate:          c.gate,
			Trace:         c.instruments.questionHook(),
			Stopping:      c.streams.Done(),
		}))
	}
	return nil
}

// makeRunners returns a runner for each queue.
func (c *components) makeRunners(executors map[string]exec.Executor) []*runner.Runner {
	var list []*runner.Runner
	for name, executor := range executors {
		q := c.cfg.Queues[name]
		list = append(list, c.newRunner(name, executor, q.Timeouts, q.Concurrency))
	}
	return list
}

func (c *components) newRunner(queue string, executor exec.Executor, clocks job.Timeouts, slots int) *runner.Runner {
	return runner.New(runner.Config{
		Source:    c.engine,
		Queue:     queue,
		Executor:  executor,
		Clocks:    clocks,
		Slots:     slots,
		Name:      fmt.Sprintf("server-%d", os.Getpid()),
		Log:       c.log,
		Files:     c.files.Fetch,
		OnAttempt: c.instruments.attemptHook(),
		Grace:     max(c.cfg.ShutdownGrace, 1), // 0 would be the runner's default
		// Then only this process sweeps leases, and its sweep waits while the disk does.
		IgnoreLeaseExpiry: c.store.exclusive,
	})
}

// runRunners runs the runners until ctx ends and their work has ended or is handed back.
func (c *components) runRunners(ctx context.Context) error {
	errs := make([]error, len(c.runners))
	var all sync.WaitGroup
	for i, r := range c.runners {
		all.Go(func() { errs[i] = r.Run(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// routes returns the handler of all APIs behind the gate. listen is the address of the
// listener; "" is beyond loopback.
func (c *components) routes(listen string) http.Handler {
	mux := gate.NewMux()
	c.register(mux)
	g := *c.gate
	g.Listen = []string{listen}
	return c.instruments.middleware.Wrap(g.Handler(mux))
}

// register adds all routes to a mux.
func (c *components) register(mux gate.Routes) {
	c.health.register(mux)
	c.instruments.register(mux)
	home{c.cfg.PublicURL, c.engine.Queues}.register(mux)
	openapi.Register(mux)
	for _, a := range c.apis {
		a.Register(mux)
	}
}

// serve serves requests until ctx ends. Requests under way may then go on for
// requestGrace.
func (c *components) serve(ctx context.Context) error {
	c.embedded.start(c.routes(""))
	err := c.listen(ctx)
	if !c.embedded.stop(requestGrace) {
		c.log.Warn("some requests did not end")
	}
	for _, a := range c.apis {
		a.Wait()
	}
	return err
}

// listen serves requests from the network.
func (c *components) listen(ctx context.Context) error {
	if c.listener == nil {
		<-ctx.Done()
		return nil
	}
	srv := &http.Server{
		Handler:           c.routes(c.cfg.Listen),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return api.WithDirect(context.Background()) },
		ConnState:         c.conns.track,
		ErrorLog:          slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- c.serveHTTP(srv, c.conns.listen(c.gate.Timeouts.BoundListener(c.listener))) }()
	defer c.conns.wait()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	deadline, cancel := context.WithTimeout(context.Background(), requestGrace)
	defer cancel()
	err := srv.Shutdown(deadline)
	if errors.Is(err, context.DeadlineExceeded) {
		c.log.Warn("some requests did not end and were cut off")
		err = srv.Close()
	}
	<-failed
	return err
}

// serveHTTP serves a listener, with TLS if there is a certificate.
func (c *components) serveHTTP(srv *http.Server, l net.Listener) error {
	if c.certificate == nil {
		return srv.Serve(l)
	}
	c.certificate.secure(srv)
	return srv.ServeTLS(l, "", "")
}

// close closes what is open, the last opened first.
func (c *components) close() error {
	c.endStreams()
	var errs []error
	if c.listener != nil {
		_ = c.listener.Close() // usually closed by listen
	}
	if c.adminListener != nil {
		_ = c.adminListener.Close() // usually closed by serveAdmin
	}
	if c.models != nil {
		c.models.Close()
	}
	if c.sender != nil {
		c.sender.Close()
	}
	errs = append(errs, c.pidFile.Close())
	if c.instruments != nil {
		errs = append(errs, c.instruments.close())
	}
	if c.reads != nil {
		c.reads.Close()
	}
	if c.shared != nil {
		errs = append(errs, c.shared.Close())
	}
	if c.store.Store != nil {
		errs = append(errs, c.store.Close())
	}
	if c.data != nil {
		errs = append(errs, c.data.release())
	}
	return errors.Join(errs...)
}
