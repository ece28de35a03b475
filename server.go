package meanwhile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/server"
	"github.com/meanwhile-run/meanwhile/internal/testmode"
)

// Config configures a server. Data is required, unless File names a data directory.
type Config struct {
	// Data is the directory of the server's data. Open creates it if it is missing. One
	// server uses it at a time. "" takes the directory from File.
	Data string
	// Database is the postgres:// URL of a PostgreSQL database, which any number of servers may
	// share. All of them run jobs of all, and each needs the same queues. Data is then a
	// directory of this server's own that holds nothing but a cache. Open brings the schema up to
	// date and, while the database cannot be reached, waits for it until ctx ends. "" takes the
	// database from File; without one the jobs are in Data.
	Database string
	// File is a configuration file of 'meanwhile serve', with queues and models (see
	// docs/configuration.md). MEANWHILE_… variables override it. Without a file the only
	// queues are those of [Handle].
	File string
	// Listen is an additional host:port on which the server itself listens. With "" it
	// does not listen, even if File sets an address. An address that other machines reach
	// requires Insecure, unless the server has API keys: without them any client that connects has
	// full access.
	Listen   string
	Insecure bool
	// AllowedHosts are more names by which clients ask this server, without ports, such as
	// "app.example.com" of the program's own site; "*" accepts any. Without them it answers
	// addresses, "localhost", and names without a dot or under .local or .internal: a web page
	// whose own name resolves to this server's address must not reach it.
	AllowedHosts []string
	// User returns the user who makes a request to [Server.Handler]; "" means the user
	// "local". A user cannot see the jobs of another. When User is nil, the header
	// X-User-ID names the user of a request from this machine; all others are "local".
	User func(*http.Request) string
	// ShutdownGrace is how long running work may continue after [Server.Run] is asked to
	// stop. 0 means the setting of File, or 25 s.
	ShutdownGrace time.Duration
	// Middleware wraps the functions of all queues. The first one is the outermost.
	Middleware []Middleware
	// Logger receives the log of the server. nil sends warnings and errors to slog.Default().
	Logger *slog.Logger
}

// Server is a server inside this program. The methods of its [client.Client] submit and
// follow jobs of the user "local". A refusal is an *[Error]. A call waits up to 10 s for
// [Server.Run] to start. If Run is not called within a second, the call fails with
// [client.CodeUnavailable] and the log says so. The zero value does not work: use [Open].
type Server struct {
	*client.Client

	// set once
	server      *server.Server
	log         *slog.Logger
	user        func(*http.Request) string
	middleware  []Middleware
	retryAtOnce bool // a failed attempt is followed by the next without a backoff
}

// Open locks the data directory and opens the database, which is in it unless
// [Config.Database] names another. No job runs yet: add queues
// with [Handle], then call [Server.Run]. It returns an error for an invalid configuration
// and for a directory that another server uses. ctx only limits Open itself.
func Open(ctx context.Context, c Config) (*Server, error) {
	cfg, err := c.load()
	if err != nil {
		return nil, fmt.Errorf("meanwhile: %w", err)
	}
	if c.Logger == nil {
		c.Logger = slog.New(warnings{slog.Default().Handler()})
	}
	inner, err := server.Open(ctx, cfg, c.Logger)
	if err != nil {
		return nil, fmt.Errorf("meanwhile: %w", err)
	}
	s := &Server{server: inner, log: c.Logger, user: c.User, middleware: slices.Clone(c.Middleware)}
	s.Client = s.AsUser("")
	if test := testmode.Of(ctx); test != nil {
		s.retryAtOnce = true
		inner.RunOnDemand(func() { test.Run(s.Run) })
	}
	return s, nil
}

// load converts c to the configuration of the stand-alone server.
func (c *Config) load() (config.Config, error) {
	cfg := config.Default()
	cfg.Queues = nil // the default queues are for the stand-alone server
	if c.File != "" {
		var err error
		if cfg, err = config.Load(config.Sources{File: c.File, Environ: os.Environ()}); err != nil {
			return cfg, err
		}
	}
	// Config.Listen replaces the address of the file, also when it is "": an embedded
	// server only listens when the program asks for it.
	cfg.Listen = c.Listen
	if c.Data != "" {
		cfg.Data = c.Data
	}
	if c.Database != "" {
		cfg.Database = c.Database
		if err := config.CheckDatabase(c.Database); err != nil {
			return cfg, fmt.Errorf("Config.Database: %w", err)
		}
	}
	if len(c.AllowedHosts) > 0 {
		cfg.AllowedHosts = c.AllowedHosts
	}
	if c.ShutdownGrace > 0 {
		cfg.ShutdownGrace = c.ShutdownGrace
	}
	if c.Data == "" && c.File == "" {
		return cfg, errors.New("Config.Data must name a directory")
	}
	return cfg, nil
}

// AsUser returns a client for another user of the server. It submits jobs of that user and
// sees no others. "" means the user "local". It panics for a user with control characters
// or with a space at either end.
func (s *Server) AsUser(user string) *client.Client {
	c, err := client.New("http://localhost",
		client.WithTransport(s.server.Transport()), client.WithUser(user), client.WithUserAgent("meanwhile"),
		client.WithRetries(0), client.WithTimeout(0)) // no network can fail
	if err != nil {
		panic("meanwhile: " + err.Error()) // the URL is valid, so the user is not
	}
	return c
}

// Run runs jobs until ctx ends or the server fails. It then stops accepting jobs, lets
// running jobs finish for [Config.ShutdownGrace] and returns the others to their queues.
// It ends long-polls and streams, so that clients connect again later. When Run returns,
// all data is on disk and no goroutine of the server is left. It returns nil when ctx
// ended it. A second call returns an error, and so does the first if a queue of
// [Server.AddQueue] has no kind.
func (s *Server) Run(ctx context.Context) error {
	if err := s.server.Run(ctx); err != nil {
		// The caller may not look at the error of its goroutine.
		s.log.Error("the server cannot run", "error", err)
		return fmt.Errorf("meanwhile: %w", err)
	}
	return nil
}

// Close releases the data directory of a server that was never run. After [Server.Run] it
// does nothing and returns nil.
func (s *Server) Close() error { return s.server.Close() }

// URL returns the URL at which the server listens, such as "http://127.0.0.1:8080"; ""
// when [Config.Listen] is "".
func (s *Server) URL() string { return s.server.URL() }

// Handler returns the HTTP API: /v1/ for jobs, /healthz and /readyz, and /api/ and /ws if
// File configures a queue "chat". Mount it at these paths of the program's mux, on a
// separate host, or at "/". A path prefix does not work, because the links in its answers
// begin at the root. Handler does not authenticate: put the program's own check before it.
// It refuses requests from web pages of other origins, and for host names that
// [Config.AllowedHosts] does not have.
func (s *Server) Handler() http.Handler {
	return s.server.Handler(s.user)
}

// warnings is a log handler that drops what is below a warning.
type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && w.Handler.Enabled(ctx, level)
}

func (w warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return warnings{w.Handler.WithAttrs(attrs)}
}

func (w warnings) WithGroup(name string) slog.Handler { return warnings{w.Handler.WithGroup(name)} }
