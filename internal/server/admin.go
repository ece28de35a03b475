package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api/admin"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/loopback"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/postgres"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// adminHandler serves the admin API to callers that are administrators.
func adminHandler(a *admin.API, log *slog.Logger) http.Handler {
	mux := gate.NewMux()
	a.Register(mux)
	behind := (&gate.Gate{Log: log}).Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = "127.0.0.1:0" // a socket has no address that the gate could read
		behind.ServeHTTP(w, gate.Vouch(r))
	})
}

// Admin makes the requests of the admin API for the command line.
type Admin struct {
	http.RoundTripper
	close []func() error // the last opened first
}

// Close releases what the requests needed.
func (a *Admin) Close() error {
	var errs []error
	for i := len(a.close) - 1; i >= 0; i-- {
		errs = append(errs, a.close[i]())
	}
	return errors.Join(errs...)
}

// OpenAdmin returns how keys and tenants of a configuration are read and changed: in its database;
// else by the server that uses its data directory; else in that directory itself, which is locked
// until Close. A directory that does not exist is made if create is true.
func OpenAdmin(ctx context.Context, cfg config.Config, create bool) (_ *Admin, err error) {
	a := &Admin{}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if cfg.Database != "" {
		return a, databaseError(cfg, a.openDatabase(ctx, cfg))
	}
	for deadline := time.Now().Add(adminTimeout); ; {
		conn, err := dialAdmin(ctx, cfg.Data)
		if err == nil {
			a.useServer(cfg.Data, conn)
			return a, nil
		}
		if !errors.Is(err, errNoAdmin) {
			return nil, err
		}
		// A server that is starting or stopping has the directory, and no socket.
		if err = a.openData(ctx, cfg, create); !errors.As(err, new(dataInUse)) {
			return a, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the server that uses %s has no socket there, and its log says why: change its keys by /v1/admin/keys, or stop it first", cfg.Data)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(adminPause):
		}
	}
}

// How long a directory that is in use may have no socket, and how often it is tried.
const (
	adminTimeout = 10 * time.Second
	adminPause   = 100 * time.Millisecond
)

// useServer makes the requests to a running server.
func (a *Admin) useServer(data string, first net.Conn) {
	_ = first.Close() // it has shown that there is a server
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dialAdmin(ctx, data) }}
	a.RoundTripper = transport
	a.close = append(a.close, func() error { transport.CloseIdleConnections(); return nil })
}

// openData makes the requests to a data directory that no server uses.
func (a *Admin) openData(ctx context.Context, cfg config.Config, create bool) error {
	if _, err := os.Stat(databaseIn(cfg.Data)); err != nil && !create {
		return checkData(cfg.Data)
	}
	data, err := openData(cfg.Data, wholeLayout)
	if err != nil {
		return err
	}
	a.close = append(a.close, data.release)
	ring, err := readRing(cfg.Encryption)
	if err != nil {
		return err
	}
	// The rows of keys and tenants are not encrypted: only a job that was running needs the ring.
	s, err := sqlite.Open(ctx, data.database(), sqlite.Options{AtEnd: atEnd(cfg.PublicURL), Ring: ring})
	if err != nil {
		return err
	}
	return a.serve(ctx, s)
}

// openDatabase makes the requests to a database. Servers that use it follow within seconds.
func (a *Admin) openDatabase(ctx context.Context, cfg config.Config) error {
	err := withDatabase(ctx, cfg, func(db postgres.Beginner) error {
		status, err := postgres.Status(ctx, db)
		if err == nil {
			err = postgres.Usable(status)
		}
		return err
	})
	if err != nil {
		return err
	}
	s, err := postgres.Open(ctx, connectionURL(cfg), postgres.Options{AtEnd: conversation.AtEnd, Unprepared: cfg.DatabasePooler})
	if err != nil {
		return err
	}
	return a.serve(ctx, s)
}

// serve makes the requests to a store, which Close closes.
func (a *Admin) serve(ctx context.Context, s store.Store) error {
	a.close = append(a.close, s.Close)
	registry, err := openRegistry(ctx, s, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	registry.write = func(ctx context.Context, rows ...store.Row) error { return commitRows(ctx, s, rows) }
	a.RoundTripper = loopback.Transport(adminHandler(admin.New(admin.Config{Registry: registry}), nil))
	return nil
}

// Of a commit whose outcome is not known.
const (
	maxCommitTries = 5
	commitPause    = 200 * time.Millisecond
)

// commitRows stores rows without an engine.
func commitRows(ctx context.Context, s store.Store, rows []store.Row) error {
	op := &store.Write{Rows: rows}
	b := store.NewBatch()
	b.Add(op)
	for try := 1; ; try++ {
		err := store.Commit(ctx, s, b)
		if err == nil {
			return op.Err
		}
		again := errors.Is(err, store.ErrUnknown) || errors.Is(err, store.ErrNotCommitted) && !errors.Is(err, store.ErrFull) && !errors.Is(err, store.ErrData)
		if !again || try == maxCommitTries {
			return job.Wrapf(job.Unavailable, err, "the change could not be stored")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(commitPause):
		}
	}
}
