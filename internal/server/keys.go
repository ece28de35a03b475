package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/store/postgres"
)

// maxTokenKeys is how many keys of tokens are kept: the one that seals, and those before it.
const maxTokenKeys = postgres.MaxTokenKeys

// How often a server looks for a new key: in its data directory, and in a database. There another
// server may use the key before this one has found it; see [tokenKeys.loadUnknown].
const (
	fileKeyInterval     = 5 * time.Second
	databaseKeyInterval = time.Second
)

// tokenKeys follows the keys of the tokens, which are in the data directory or in the database.
type tokenKeys struct {
	// set once
	read     func(context.Context) ([][]byte, error) // oldest first
	interval time.Duration
	tokens   *gate.Tokens
	log      *slog.Logger

	mu sync.Mutex
	// guarded by mu
	began  time.Time // of the last load for an unknown key
	failed bool      // that load
}

// openTokenKeys loads the keys. The first start makes one.
func openTokenKeys(ctx context.Context, data *dataDir, pool *postgres.Pool, log *slog.Logger) (*tokenKeys, error) {
	k := &tokenKeys{log: log}
	if pool == nil {
		k.read, k.interval = func(context.Context) ([][]byte, error) { return fileKeys(data.path) }, fileKeyInterval
	} else {
		k.read, k.interval = func(ctx context.Context) ([][]byte, error) { return databaseKeys(ctx, pool) }, databaseKeyInterval
	}
	keys, err := k.read(ctx)
	if err != nil {
		return nil, err
	}
	if k.tokens, err = gate.NewTokens(keys...); err != nil {
		return nil, err
	}
	if pool != nil {
		k.tokens.OnUnknownKey(k.loadUnknown)
	}
	return k, nil
}

// follow loads the keys again and again until ctx ends.
func (k *tokenKeys) follow(ctx context.Context) error {
	tick := time.NewTicker(k.interval)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			err := k.load(ctx)
			if err != nil && !failing && ctx.Err() == nil {
				k.log.Error("the keys of the tokens cannot be loaded: those of before stay", "error", err)
			}
			failing = err != nil
		}
	}
}

// loadTimeout bounds a load: a token may wait for it.
const loadTimeout = 2 * time.Second

// load loads the keys. Where they cannot be read, the old ones stay.
func (k *tokenKeys) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	keys, err := k.read(ctx)
	if err != nil {
		return err
	}
	return k.tokens.SetKeys(keys...)
}

// unknownInterval is the shortest time between loads for unknown keys. Anyone may send tokens
// that name one.
const unknownInterval = 20 * time.Millisecond

// loadUnknown loads the keys for a token of an unknown key: another server may just have made it.
// Calls at the same time share a load that has begun after all of them. After a failed load it
// leaves the matter to follow for a while.
func (k *tokenKeys) loadUnknown() {
	came := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	since := came.Sub(k.began)
	if since < 0 || k.failed && since < k.interval {
		return
	}
	time.Sleep(unknownInterval - since)
	k.began = time.Now()
	k.failed = k.load(context.Background()) != nil
}

// databaseKeys returns the keys in the database. It makes the first one.
func databaseKeys(ctx context.Context, pool *postgres.Pool) ([][]byte, error) {
	keys, err := postgres.TokenKeys(ctx, pool)
	if err == nil && len(keys) == 0 {
		keys, err = postgres.FirstTokenKey(ctx, pool, newTokenKey())
	}
	if err != nil {
		return nil, fmt.Errorf("the keys of the tokens cannot be read: %w", err)
	}
	return keys, nil
}

// fileKeys returns the keys in a data directory. It makes the first one.
func fileKeys(data string) ([][]byte, error) {
	path := filepath.Join(data, watchKeyFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return rotateFileKey(data, false)
	}
	if err != nil {
		return nil, fmt.Errorf("the keys of the tokens cannot be read: %w", err)
	}
	if len(text) == 0 || len(text)%gate.TokenKeySize != 0 {
		return nil, fmt.Errorf("%s is damaged: it has %d bytes, not a multiple of %d; delete it, and the next start makes a new key; watch URLs and users' tokens handed out so far then stop working", path, len(text), gate.TokenKeySize)
	}
	return slices.Collect(slices.Chunk(text, gate.TokenKeySize)), nil
}

// RotateTokenKey adds a key to the database or the data directory of a configuration, which seals
// tokens from then on. A server that uses it follows within seconds. The tokens of earlier keys
// stay valid until they expire, unless forget is true or [maxTokenKeys] later keys were made. It
// returns the number of keys.
func RotateTokenKey(ctx context.Context, cfg config.Config, forget bool) (n int, err error) {
	var keys [][]byte
	if cfg.Database == "" {
		keys, err = rotateFileKey(cfg.Data, forget)
		return len(keys), err
	}
	err = withDatabase(ctx, cfg, func(db postgres.Beginner) error {
		status, err := postgres.Status(ctx, db)
		if err == nil {
			err = postgres.Usable(status)
		}
		if err == nil {
			keys, err = postgres.RotateTokenKey(ctx, db, newTokenKey(), forget)
		}
		return err
	})
	return len(keys), databaseError(cfg, err)
}

func rotateFileKey(data string, forget bool) (keys [][]byte, err error) {
	if _, err := os.Stat(data); err != nil {
		return nil, fmt.Errorf("%s is no data directory of a server: %w", data, err)
	}
	path := filepath.Join(data, watchKeyFile)
	if _, err := os.Stat(path); err == nil && !forget {
		if keys, err = fileKeys(data); err != nil {
			return nil, err
		}
	}
	keys = append(keys, newTokenKey())
	keys = keys[max(0, len(keys)-maxTokenKeys):]
	// Written under another name first: a crash leaves no partial key.
	err = writeSynced(path+".new", bytes.Join(keys, nil))
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDir(data)
	}
	if err != nil {
		return nil, fmt.Errorf("the keys of the tokens cannot be kept: %w", err)
	}
	return keys, nil
}

func newTokenKey() []byte {
	key := make([]byte, gate.TokenKeySize)
	rand.Read(key) // never fails
	return key
}
