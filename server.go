package meanwhile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/server"
)

// Config is what a server is told when it is opened. Only Data is needed.
type Config struct {
	// Data is the directory that holds everything. It is made when missing, and belongs
	// to one server at a time.
	Data string
	// File is a configuration file as 'meanwhile serve' takes it, with its queues and
	// models (docs/configuration.md); MEANWHILE_… variables are laid over it. "" for
	// none: then there are no queues but those of [Handle].
	File string
	// Listen is a host:port to listen on beside what [Server.Handler] is mounted on; ""
	// for none, whatever the file says. Beyond loopback only where Insecure says so:
	// whoever connects may do anything.
	Listen   string
	Insecure bool
	// User says who makes a request that comes in by [Server.Handler]; "" is the user
	// "local". Nobody sees the jobs of another user. Nil: the user that the header
	// X-User-ID names where a program on this machine sent it, and "local" else.
	User func(*http.Request) string
	// ShutdownGrace is how long running work may finish once the server is to stop; 0
	// for 25 s, or what the file says.
	ShutdownGrace time.Duration
	// Logger tells the server's story; nil for none.
	Logger *slog.Logger
}

// Server is a server within this program. What can be asked of it is what can be
// asked of a server elsewhere: the methods of its [client.Client], for the user
// "local". A refusal is an *[Error]. They wait until the server runs, though not for
// ever, and end with their contexts.
type Server struct {
	*client.Client

	// set once
	server *server.Server
	user   func(*http.Request) string
}

// Open takes the data directory and opens what is in it. Nothing runs yet: give the
// server its queues with [Handle], then call Run. The error says what is wrong with the
// configuration, or who has the directory.
func Open(ctx context.Context, c Config) (*Server, error) {
	cfg, err := c.load()
	if err != nil {
		return nil, fmt.Errorf("meanwhile: %w", err)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	house, err := server.Open(ctx, cfg, c.Logger)
	if err != nil {
		return nil, fmt.Errorf("meanwhile: %w", err)
	}
	s := &Server{server: house, user: c.User}
	s.Client = s.AsUser("")
	return s, nil
}

// load is the configuration in the words of the program that is a server alone.
func (c *Config) load() (config.Config, error) {
	cfg := config.Default()
	cfg.Queues = nil
	if c.File != "" {
		var err error
		if cfg, err = config.Load(config.Sources{File: c.File, Environ: os.Environ()}); err != nil {
			return cfg, err
		}
	}
	cfg.Listen = c.Listen
	if c.Data != "" {
		cfg.Data = c.Data
	}
	if c.ShutdownGrace > 0 {
		cfg.ShutdownGrace = c.ShutdownGrace
	}
	switch {
	case c.Data == "" && c.File == "":
		return cfg, errors.New("Config.Data must name a directory")
	case c.Listen != "" && !c.Insecure && !config.Loopback(c.Listen):
		return cfg, fmt.Errorf("%q can be reached from other machines, and whoever connects may do anything; set Config.Insecure if something in front keeps strangers out", c.Listen)
	}
	return cfg, nil
}

// AsUser is the server as another user sees it: what they submit is theirs, and they see
// nothing else.
func (s *Server) AsUser(user string) *client.Client {
	c, err := client.New("http://localhost",
		client.WithTransport(s.server.Transport()), client.WithUser(user), client.WithUserAgent("meanwhile"),
		client.WithRetries(0), client.WithTimeout(0)) // nothing is lost on the way
	if err != nil {
		panic("meanwhile: " + err.Error()) // the URL is ours
	}
	return c
}

// Run does the work until ctx ends, or until something fails that the server cannot
// live without. Then it takes no more jobs, lets running ones finish for
// [Config.ShutdownGrace], hands back what does not, ends held requests and streams so
// that whoever follows comes back later, and returns when all is on disk and nothing
// of it is left: nil when it was told to stop. It is called once.
func (s *Server) Run(ctx context.Context) error {
	if err := s.server.Run(ctx); err != nil {
		return fmt.Errorf("meanwhile: %w", err)
	}
	return nil
}

// Close lets go of what Open took, for a server that was never run. After Run it does
// nothing.
func (s *Server) Close() error { return s.server.Close() }

// URL is where the server listens by itself; "" when it does not.
func (s *Server) URL() string { return s.server.URL() }

// Handler is the HTTP interface: /v1/ (jobs), /healthz and /readyz, and where the
// configuration has a queue "chat" /api/ and /ws. It may be mounted at those paths of
// the program's own mux, under another host, or at "/"; not below a prefix, for the
// links in its answers begin at the root. Who may reach it is the program's to decide:
// Meanwhile asks nobody for a password. A request from a web page of another origin is
// refused.
func (s *Server) Handler() http.Handler {
	inside := s.server.Handler()
	if s.user == nil {
		return inside
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inside.ServeHTTP(w, withTrustedUser(r, s.user(r)))
	})
}

// vouched is a request as a program on this machine would pass it on for a user.
func withTrustedUser(r *http.Request, user string) *http.Request {
	trusted := *r
	trusted.RemoteAddr = "127.0.0.1:0"
	trusted.Header = r.Header.Clone()
	trusted.Header.Del("X-Forwarded-For")
	trusted.Header.Set("X-User-ID", user)
	return &trusted
}
