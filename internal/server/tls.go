package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

const (
	// certificateInterval is how often the files of a certificate are read again.
	certificateInterval = 2 * time.Second
	// maxStreams is how many requests one connection of HTTP/2 may have at a time. net/http ends a
	// connection that resets streams and begins others faster than their handlers end.
	maxStreams = 100
	// expiryWarning is how long before its end a certificate is warned of.
	expiryWarning = 14 * 24 * time.Hour
)

// certificate follows the files of the server's certificate and its key. A file that cannot be used
// leaves the certificate of before.
type certificate struct {
	// set once
	files config.TLS
	log   *slog.Logger

	current atomic.Pointer[tls.Certificate]

	// owned by the caller of load
	cert, key []byte // the contents of the files as they were last read
	warned    time.Time
}

// openCertificate reads the certificate; it returns nil if none is configured.
func openCertificate(files config.TLS, log *slog.Logger) (*certificate, error) {
	if files.Cert == "" {
		return nil, nil
	}
	c := &certificate{files: files, log: log}
	if _, err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// load reads the files, and uses what they have if it has changed. No error shows the key.
func (c *certificate) load() (changed bool, err error) {
	cert, err := os.ReadFile(c.files.Cert)
	if err != nil {
		return false, fmt.Errorf("the certificate cannot be read (tls.cert): %w", err)
	}
	key, err := os.ReadFile(c.files.Key)
	if err != nil {
		return false, fmt.Errorf("the key of the certificate cannot be read (tls.key): %w", err)
	}
	if bytes.Equal(cert, c.cert) && bytes.Equal(key, c.key) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false, fmt.Errorf("the certificate in %s and the key in %s cannot be used: %w", c.files.Cert, c.files.Key, err)
	}
	c.cert, c.key = cert, key
	c.current.Store(&pair)
	return true, nil
}

// follow reads the files again and again until ctx ends: what renews a certificate replaces them.
func (c *certificate) follow(ctx context.Context) error {
	if c == nil {
		return nil
	}
	tick := time.NewTicker(certificateInterval)
	defer tick.Stop()
	failing := ""
	for {
		failing = c.reload(failing)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// reload loads once, and logs what changes. failing is the error of the last load, and so is the
// answer.
func (c *certificate) reload(failing string) string {
	changed, err := c.load()
	switch {
	case err != nil && err.Error() != failing:
		c.log.Error("the new certificate cannot be used: the one of before stays", "error", err)
	case changed:
		c.log.Info("the certificate was replaced", "until", c.expiry().Format(time.RFC3339))
	}
	if left := time.Until(c.expiry()); left < expiryWarning && time.Since(c.warned) > 24*time.Hour {
		c.warned = time.Now()
		c.log.Warn("the certificate expires soon", "until", c.expiry().Format(time.RFC3339), "certificate", c.files.Cert)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// expiry is when the current certificate ends.
func (c *certificate) expiry() time.Time { return c.current.Load().Leaf.NotAfter }

// secure makes a server speak TLS with the certificate, and HTTP/2 within.
func (c *certificate) secure(srv *http.Server) {
	srv.TLSConfig = &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
	}
	srv.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxStreams}
}
