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
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/config"
)

// makeGate returns the gate of the configuration, with the keys of the tokens.
func makeGate(cfg config.Config, data *dataDir, log *slog.Logger) (*gate.Gate, error) {
	keys, err := tokenKeys(data.path)
	if err != nil {
		return nil, err
	}
	tokens, err := gate.NewTokens(keys...)
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

// maxTokenKeys is how many keys of tokens are kept: the one that seals, and those before it.
const maxTokenKeys = 4

// tokenKeys returns the secrets that seal tokens, oldest first. The first start makes one. A
// token is valid only while its key is among them.
func tokenKeys(data string) ([][]byte, error) {
	path := filepath.Join(data, watchKeyFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return RotateTokenKey(data, false)
	}
	if err != nil {
		return nil, fmt.Errorf("the keys of the tokens cannot be read: %w", err)
	}
	if len(text) == 0 || len(text)%gate.TokenKeySize != 0 {
		return nil, fmt.Errorf("%s is damaged: it has %d bytes, not a multiple of %d; delete it, and the next start makes a new key; watch URLs and users' tokens handed out so far then stop working", path, len(text), gate.TokenKeySize)
	}
	return slices.Collect(slices.Chunk(text, gate.TokenKeySize)), nil
}

// RotateTokenKey adds a key to a data directory, which seals tokens from then on. A server that
// uses the directory follows within keyInterval. The tokens of earlier keys stay valid until
// they expire, unless forget is true or [maxTokenKeys] later keys were made. It returns all keys.
func RotateTokenKey(data string, forget bool) (keys [][]byte, err error) {
	if _, err := os.Stat(data); err != nil {
		return nil, fmt.Errorf("%s is no data directory of a server: %w", data, err)
	}
	path := filepath.Join(data, watchKeyFile)
	if _, err := os.Stat(path); err == nil && !forget {
		if keys, err = tokenKeys(data); err != nil {
			return nil, err
		}
	}
	key := make([]byte, gate.TokenKeySize)
	rand.Read(key) // never fails
	keys = append(keys, key)
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

// keyInterval is how often a server looks for a new key.
const keyInterval = 5 * time.Second

// followKeys loads the keys of the tokens again when RotateTokenKey has changed them.
func (c *components) followKeys(ctx context.Context) error {
	tick := time.NewTicker(keyInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			c.loadKeys()
		}
	}
}

// loadKeys loads the keys of the tokens. Where they cannot be read, the old ones stay.
func (c *components) loadKeys() {
	keys, err := tokenKeys(c.data.path)
	if err == nil {
		err = c.gate.Tokens.SetKeys(keys...)
	}
	if err != nil {
		c.log.Error("the keys of the tokens cannot be loaded: those of before stay", "error", err)
	}
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
