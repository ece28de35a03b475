package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// target is a server to measure.
type target struct {
	url     string
	proc    *process // nil for a server that was running before
	dir     string   // holds data and configuration; "" for a server that was running before
	command []string // starts the server
	log     io.Writer
}

// openTarget returns the running server of --server, or starts one with an empty data
// directory.
func (o *Options) openTarget(ctx context.Context) (*target, error) {
	if o.URL != "" {
		return &target{url: o.URL}, nil
	}
	return o.startTarget(ctx, "")
}

// startTarget starts a server with an empty data directory and this configuration.
func (o *Options) startTarget(ctx context.Context, config string) (*target, error) {
	dir, err := os.MkdirTemp(o.Data, "meanwhile-bench-")
	if err != nil {
		return nil, fmt.Errorf("the data directory cannot be made: %w", err)
	}
	t := &target{dir: dir, log: o.Log}
	t.command = append(o.Serve[:len(o.Serve):len(o.Serve)], "--data", filepath.Join(dir, "data"))
	if err := t.configure(config); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	if err := t.start(ctx); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return t, nil
}

func (t *target) configure(config string) error {
	if config == "" {
		return nil
	}
	file := filepath.Join(t.dir, "meanwhile.yaml")
	t.command = append(t.command, "--config", file)
	return os.WriteFile(file, []byte(config), 0o600)
}

// start starts the server, also after it was stopped or killed.
func (t *target) start(ctx context.Context) error {
	p, err := start(ctx, t.command, t.log)
	if err != nil {
		return err
	}
	t.proc, t.url = p, p.url
	return nil
}

// client returns a client with default options, and a function that closes it.
func (t *target) client() (*client.Client, func(), error) {
	return dialPlain(context.Background(), t.url)
}

// close stops a server that the bench started, removes its data and returns its CPU time.
func (t *target) close() (cpu time.Duration) {
	if t.proc != nil {
		cpu = t.proc.stop()
		_ = os.RemoveAll(t.dir)
	}
	return cpu
}

// post sends a request that package client does not support.
func (t *target) post(ctx context.Context, path, body string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url+path, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Close = true
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	if res.StatusCode >= 300 {
		return res.StatusCode, fmt.Errorf("POST %s is answered with %s: %s", path, res.Status, bytes.TrimSpace(answer))
	}
	return res.StatusCode, nil
}

// simQueue returns the configuration of a server whose queue sim runs and accepts this many
// jobs, without a limit per key. The server stops without waiting for running jobs.
func simQueue(concurrency, depth int) string {
	return fmt.Sprintf(`shutdown_grace_s: 0
queues:
  sim:
    concurrency: %d
    max_depth: %d
    max_bytes: 0
    per_key:
      waiting: 0
`, concurrency, depth)
}
