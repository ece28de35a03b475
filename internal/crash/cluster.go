package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/cutproxy"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// servers is the number of servers on the database.
const servers = 3

// lease is how long a lease lasts. A pause of a server may be longer.
const lease = 3 * time.Second

// cluster is three servers on one private PostgreSQL server, which syncs.
type cluster struct {
	db    *pgtest.Server // set once
	nodes [servers]*node // set once
	dbMu  sync.Mutex     // held by the one that stops and starts the database
}

// node is a server of the cluster. It reaches the database through a proxy of its own.
type node struct {
	*serverProcess
	number int
	proxy  *cutproxy.Proxy
	args   []string
	faults sync.Mutex // held by the one fault that the server has at a time
}

func newCluster(ctx context.Context, dir, binary string, h *holders) (_ *cluster, err error) {
	c := &cluster{}
	if c.db, err = pgtest.Run(pgtest.Options{TCP: true}); err != nil {
		return nil, err
	}
	database, err := c.db.Owned()
	if err != nil {
		return c, err
	}
	for i := range c.nodes {
		n := &node{number: i}
		c.nodes[i] = n
		own := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(own, 0o755); err != nil {
			return c, err
		}
		if n.serverProcess, err = newServerProcess(ctx, own, binary); err != nil {
			return c, err
		}
		binary = n.binary
		if n.proxy, err = cutproxy.Listen(); err != nil {
			return c, err
		}
		n.proxy.SetTarget(c.db.Addr())
		n.proxy.SetReply(loseNotices)
		config := filepath.Join(own, "config.yaml")
		n.args = []string{"--config", config, "--database", database.NetworkURL(n.proxy.Addr())}
		if err := os.WriteFile(config, fmt.Appendf(nil, clusterConfig, h.url(i), maxRunningWork, maxRunningPerKey, lease.Seconds()), 0o600); err != nil {
			return c, err
		}
	}
	return c, nil
}

const clusterConfig = `
models:
  - name: holders
    base_url: %[1]s
queues:
  sim:
    timeouts: {lease_s: %[4]v}
  work:
    executor: llm
    model: holders
    concurrency: 6
    max_running: %[2]d
    per_key: {running: %[3]d}
    timeouts: {lease_s: %[4]v}
`

// start starts every server that does not run.
func (c *cluster) start(ctx context.Context) error {
	var all sync.WaitGroup
	errs := make([]error, servers)
	for i, n := range c.nodes {
		if n.cmd == nil {
			all.Go(func() { _, errs[i] = n.start(ctx, n.args...) })
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

// stop stops all servers in good order.
func (c *cluster) stop() error {
	var errs []error
	for _, n := range c.nodes {
		errs = append(errs, n.stop())
	}
	return errors.Join(errs...)
}

// remove ends whatever is left.
func (c *cluster) remove() {
	for _, n := range c.nodes {
		if n == nil {
			continue
		}
		if n.serverProcess != nil && n.cmd != nil {
			_ = n.kill()
		}
		if n.proxy != nil {
			n.proxy.Close()
		}
	}
	c.db.Remove()
}

// transport returns a transport whose connections each go to any server that runs.
func (c *cluster) transport() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		var running []string
		for _, n := range c.nodes {
			if at := n.address(); at != "" {
				running = append(running, at)
			}
		}
		if len(running) == 0 {
			return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
		}
		return new(net.Dialer).DialContext(ctx, network, running[rand.IntN(len(running))])
	}
	return t
}

// lossRate is the part of the notices between the servers that is lost.
const lossRate = 0.5

// loseNotices copies what the database sends, without some of the notices.
func loseNotices(to io.Writer, from io.Reader) error {
	var head [5]byte // the type of a message, and its length with these four bytes
	for {
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return err
		}
		message := make([]byte, 1+int(binary.BigEndian.Uint32(head[1:])))
		copy(message, head[:])
		if _, err := io.ReadFull(from, message[len(head):]); err != nil {
			return err
		}
		if head[0] == 'A' && rand.Float64() < lossRate {
			continue
		}
		if _, err := to.Write(message); err != nil {
			return err
		}
	}
}
