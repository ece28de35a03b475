package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus/pgbus"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/store/postgres"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

const (
	// A start tries to reach the database again after minDatabasePause, doubled up to
	// maxDatabasePause, and says so in the log within each databaseLogInterval.
	minDatabasePause    = 100 * time.Millisecond
	maxDatabasePause    = 3 * time.Second
	databaseLogInterval = 10 * time.Second
	// connectTimeout bounds one try, where the URL does not.
	connectTimeout = 10 * time.Second
	// sideConnections is how many connections copy files, read keys and take jobs from the inbox.
	sideConnections = 5
)

// awaitDatabase opens the store in the database.
func awaitDatabase(ctx context.Context, cfg config.Config, ring *sealed.Ring, log *slog.Logger) (s openedStore, err error) {
	err = whileAway(ctx, cfg, log, func() error {
		s, err = openDatabase(ctx, cfg, ring, log)
		return err
	})
	return s, databaseError(cfg, err)
}

// whileAway calls f, which needs the database, again while the database is away, for as long as
// ctx allows: a database may start after its servers, recover for minutes, and go away again in
// the middle of a start. It returns an error that somebody must mend, such as a wrong password, at
// once.
func whileAway(ctx context.Context, cfg config.Config, log *slog.Logger, f func() error) error {
	place := config.DatabasePlace(cfg.Database)
	began, logged, pause := time.Now(), time.Time{}, minDatabasePause
	for {
		err := f()
		if err == nil {
			if !logged.IsZero() {
				log.Info("the database answers", "database", place, "after", time.Since(began).Round(time.Millisecond).String())
			}
			return nil
		}
		if cfg.Database == "" || !postgres.Away(err) || ctx.Err() != nil {
			return err
		}
		if time.Since(logged) >= databaseLogInterval {
			logged = time.Now()
			log.Warn("the database is away: the start waits for it", "database", place, "error", withoutPassword(cfg, err))
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		pause = min(2*pause, maxDatabasePause)
	}
}

// openDatabase opens the store once.
func openDatabase(ctx context.Context, cfg config.Config, ring *sealed.Ring, log *slog.Logger) (openedStore, error) {
	if cfg.DatabaseMigrate {
		err := withDatabase(ctx, cfg, func(db postgres.Beginner) error {
			applied, err := postgres.Up(ctx, db)
			for _, m := range applied {
				log.Info("the schema of the database was changed", "migration", m.Number, "name", m.Name)
			}
			return err
		})
		if err != nil {
			return openedStore{}, err
		}
	}
	s, err := postgres.Open(ctx, connectionURL(cfg), postgres.Options{AtEnd: atEnd(cfg.PublicURL), Ring: ring, Log: log, Unprepared: cfg.DatabasePooler})
	if err != nil {
		return openedStore{}, err
	}
	opened := openedStore{Store: s, postgres: s, ring: ring}
	if err := useKeys(ctx, s, ring); err != nil {
		return openedStore{}, errors.Join(err, s.Close())
	}
	notices, err := pgbus.Open(connectionURL(cfg), pgbus.Options{Log: log})
	if err == nil {
		opened.bus, opened.notices = notices, notices
		opened.pool, err = postgres.NewPool(ctx, connectionURL(cfg), sideConnections, cfg.DatabasePooler)
	}
	if err != nil {
		return openedStore{}, errors.Join(err, opened.Close())
	}
	return opened, nil
}

// connectionURL returns the URL of the database with what it does not say: the name of the
// program, for the database's own lists of connections, and the timeout of a connection.
func connectionURL(cfg config.Config) string {
	u, err := url.Parse(cfg.Database)
	if err != nil {
		return cfg.Database // the error is reported by what connects
	}
	query := u.Query()
	for name, value := range map[string]string{"application_name": "meanwhile", "connect_timeout": fmt.Sprint(connectTimeout.Seconds())} {
		if !query.Has(name) {
			query.Set(name, value)
		}
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// databaseError adds which database cannot be used to an error. It returns nil for nil.
func databaseError(cfg config.Config, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s cannot be used: %w", config.DatabasePlace(cfg.Database), withoutPassword(cfg, err))
}

// withoutPassword returns an error whose text does not have the password of the database.
func withoutPassword(cfg config.Config, err error) error {
	u, parseErr := url.Parse(cfg.Database)
	if parseErr != nil {
		return err
	}
	given, _ := u.User.Password()
	text := err.Error()
	for _, secret := range []string{given, u.Query().Get("password"), url.QueryEscape(given), strings.TrimPrefix(url.UserPassword("", given).String(), ":")} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "…")
		}
	}
	if text == err.Error() {
		return err
	}
	return redacted{err, text}
}

// redacted is an error with another text.
type redacted struct {
	error
	text string
}

func (r redacted) Error() string { return r.text }
func (r redacted) Unwrap() error { return r.error }
