package server

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/config"
)

// makeGate returns the gate of the configuration.
func makeGate(cfg config.Config, tokens *gate.Tokens, keys access.Keys, log *slog.Logger) *gate.Gate {
	return &gate.Gate{
		PublicURL:      cfg.Public(),
		AllowedHosts:   cfg.AllowedHosts,
		AllowedOrigins: cfg.AllowedOrigins,
		TrustedProxies: cfg.Proxies(),
		Tokens:         tokens,
		Keys:           keys,
		TokenTTL:       cfg.WatchTTL,
		Bodies:         api.NewBodies(cfg.Bodies.MaxBytes, cfg.Bodies.CallerBytes),
		Log:            log,
	}
}

// checkExposure refuses to listen beyond this machine while no request needs a key. Only the store
// knows whether there are keys, so the configuration alone is not refused.
func checkExposure(cfg config.Config, keys access.Keys) error {
	if cfg.Listen == "" || cfg.Insecure || config.Loopback(cfg.Listen) || keys.On() {
		return nil
	}
	return fmt.Errorf("other machines can reach %s, and while this server has no keys anyone who connects may do anything: "+
		"make a key first (meanwhile key create), listen on 127.0.0.1, or set insecure (--insecure, or Config.Insecure in Go) if a proxy or firewall in front keeps strangers out", cfg.Listen)
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
