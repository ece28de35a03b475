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
	schema  *schema    // has the tables; nil without a database
	peers   []*process // further servers of the same database
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
	t.command = o.Serve[:len(o.Serve):len(o.Serve)]
	if o.Database != "" {
		t.schema, err = newSchema(ctx, o.Database)
	}
	if err == nil {
		err = t.configure(config)
	}
	if err == nil {
		err = t.start(ctx)
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// configure sets the configuration of the servers that are started from now on.
func (t *target) configure(config string) error {
	if config == "" {
		return nil
	}
	return os.WriteFile(t.configFile(), []byte(config), 0o600)
}

func (t *target) configFile() string { return filepath.Join(t.dir, "meanwhile.yaml") }

// start starts the server, also after it was stopped or killed.
func (t *target) start(ctx context.Context) error {
	p, err := t.startProcess(ctx, "data")
	if err != nil {
		return err
	}
	t.proc, t.url = p, p.url
	return nil
}

// startPeers starts n more servers on the same database.
func (t *target) startPeers(ctx context.Context, n int) error {
	for range n {
		p, err := t.startProcess(ctx, fmt.Sprintf("data%d", len(t.peers)+1))
		if err != nil {
			return err
		}
		t.peers = append(t.peers, p)
	}
	return nil
}

func (t *target) startProcess(ctx context.Context, data string) (*process, error) {
	command := append(t.command[:len(t.command):len(t.command)], "--data", filepath.Join(t.dir, data))
	if _, err := os.Stat(t.configFile()); err == nil {
		command = append(command, "--config", t.configFile())
	}
	// Not an argument, which every user of the machine can read. Without one, a bench never uses the
	// database of its environment.
	database := ""
	if t.schema != nil {
		database = t.schema.url
	}
	return start(ctx, command, []string{"MEANWHILE_DATABASE=" + database}, t.log)
}

// urls returns the URLs of all servers.
func (t *target) urls() []string {
	urls := []string{t.url}
	for _, p := range t.peers {
		urls = append(urls, p.url)
	}
	return urls
}

// client returns a client with default options, and a function that closes it.
func (t *target) client() (*client.Client, func(), error) {
	return dialPlain(context.Background(), t.url)
}

// close stops the servers that the bench started, removes their data and returns their CPU time.
func (t *target) close() (cpu time.Duration) {
	for _, p := range t.peers {
		cpu += p.stop()
	}
	if t.proc != nil {
		cpu += t.proc.stop()
	}
	if t.schema != nil {
		t.schema.drop()
	}
	if t.dir != "" {
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
