package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/bus/pgbus"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/files"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/postgres"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// openedStore is the server's store, with properties that are not part of its interface.
type openedStore struct {
	store.Store
	ring *sealed.Ring // the keys that it uses; nil without encryption
	// exclusive means that no other process can use the store: it is in the locked data
	// directory.
	exclusive bool
	// free returns the number of bytes that new work may write to the store's disk; nil if it
	// is unknown.
	free func() (int64, error)
	// bus connects the processes that share the store; nil if exclusive.
	bus bus.Bus
	// postgres and notices are the store and the bus in a database; nil if exclusive.
	postgres *postgres.Store
	notices  *pgbus.Bus
	// pool is connections for what is in the database besides the jobs; nil if exclusive.
	pool *postgres.Pool
}

// Close closes the store and what belongs to it.
func (s openedStore) Close() error {
	if s.notices != nil {
		s.notices.Close()
	}
	if s.pool != nil {
		s.pool.Close()
	}
	return s.Store.Close()
}

// openStore opens the store of the configuration. All stores that the server can use are
// chosen here.
func openStore(ctx context.Context, cfg config.Config, data *dataDir, log *slog.Logger) (openedStore, error) {
	ring, err := readRing(cfg.Encryption)
	if err != nil {
		return openedStore{}, err
	}
	if cfg.Database != "" {
		return awaitDatabase(ctx, cfg, ring, log)
	}
	return openSQLite(ctx, cfg, ring, data, log)
}

func openSQLite(ctx context.Context, cfg config.Config, ring *sealed.Ring, data *dataDir, log *slog.Logger) (openedStore, error) {
	s, err := sqlite.Open(ctx, data.database(), sqlite.Options{AtEnd: atEnd(cfg.PublicURL), Ring: ring, PreallocateLog: preallocatedLog, Log: log,
		Reserve: reserve, KeepFree: cfg.MinFreeBytes, Free: func() (int64, bool) { return files.Free(data.path) },
	})
	if err != nil {
		return openedStore{}, fmt.Errorf("the store cannot be opened: %w", err)
	}
	opened := openedStore{Store: s, exclusive: true, ring: ring}
	if err := useKeys(ctx, s, ring); err != nil {
		return openedStore{}, errors.Join(err, s.Close())
	}
	if _, known := s.FreeSpace(); known {
		opened.free = func() (int64, error) {
			free, known := s.FreeSpace()
			if !known {
				return 0, errors.New("the system no longer reports the free space of the disk")
			}
			return free, nil
		}
	}
	return opened, nil
}
