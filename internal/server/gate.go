package server

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/config"
)

// makeGate returns the gate of the configuration, with the key of the watch tokens.
func makeGate(cfg config.Config, data *dataDir, log *slog.Logger) (*gate.Gate, error) {
	key, err := data.watchKey()
	if err != nil {
		return nil, err
	}
	tokens, err := gate.NewTokens(key)
	if err != nil {
		return nil, err
	}
	return &gate.Gate{
		PublicURL:      cfg.Public(),
		AllowedHosts:   cfg.AllowedHosts,
		AllowedOrigins: cfg.AllowedOrigins,
		TrustedProxies: cfg.Proxies(),
		Tokens:         tokens,
		TokenTTL:       cfg.WatchTTL,
		Bodies:         api.NewBodies(cfg.Bodies.MaxBytes, cfg.Bodies.CallerBytes),
		Log:            log,
	}, nil
}

// watchKey returns the secret that seals watch tokens. The first start makes it. Tokens
// are valid only while it stays the same.
func (d *dataDir) watchKey() ([]byte, error) {
	path := filepath.Join(d.path, watchKeyFile)
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d.makeWatchKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("the key of the watch tokens cannot be read: %w", err)
	}
	if len(key) != gate.TokenKeySize {
		return nil, fmt.Errorf("%s is damaged: it has %d bytes, not %d; delete it, and the next start makes a new one; watch URLs handed out so far then stop working", path, len(key), gate.TokenKeySize)
	}
	return key, nil
}

// makeWatchKey writes a key to another name and renames it: a crash leaves no partial key.
func (d *dataDir) makeWatchKey(path string) ([]byte, error) {
	key := make([]byte, gate.TokenKeySize)
	rand.Read(key) // never fails
	err := writeSynced(path+".new", key)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDir(d.path)
	}
	if err != nil {
		return nil, fmt.Errorf("the key of the watch tokens cannot be kept: %w", err)
	}
	return key, nil
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
