package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

// notifier tells a service manager about this process: the datagrams of sd_notify(3). A nil
// notifier does nothing.
type notifier struct {
	// set once
	conn     net.Conn
	watchdog time.Duration // within which the manager expects a sign of life; 0 for none
	log      *slog.Logger
}

// newNotifier returns the notifier for the socket that the environment names; nil for none.
// A server works without it, so a socket that cannot be used is only logged.
func newNotifier(getenv func(string) string, log *slog.Logger) *notifier {
	path := getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		log.Error("the service manager cannot be notified: it may end this server as one that did not start", "socket", path, "error", err)
		return nil
	}
	n := &notifier{conn: conn, log: log}
	// The variables of the watchdog may be another process's, from which this one has them.
	if pid := getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		usec, _ := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
		n.watchdog = time.Duration(max(usec, 0)) * time.Microsecond
	}
	return n
}

// send sends a state. STATUS is what `systemctl status` shows.
func (n *notifier) send(state string) {
	if n == nil {
		return
	}
	if _, err := io.WriteString(n.conn, state); err != nil {
		n.log.Warn("the service manager cannot be notified", "state", state, "error", err)
	}
}

func (n *notifier) ready(url string) {
	n.send("READY=1\nSTATUS=ready at " + url)
}

func (n *notifier) stopping() {
	n.send("STOPPING=1\nSTATUS=stopping: running work may finish")
}

// keepAlive sends a sign of life in each half of the watchdog's time, until ctx ends. It sends
// none while check returns an error: then the manager restarts the server.
func (n *notifier) keepAlive(ctx context.Context, check func(context.Context) error) error {
	if n == nil || n.watchdog == 0 {
		<-ctx.Done()
		return nil
	}
	every := n.watchdog / 2
	tick := time.NewTicker(every)
	defer tick.Stop()
	failed := false
	for {
		checking, cancel := context.WithTimeout(ctx, every/2)
		err := check(checking)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			failed = false
			n.send("WATCHDOG=1")
		case !failed:
			failed = true
			n.log.Error("the server does not answer itself: without an answer the service manager restarts it", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (n *notifier) close() {
	if n != nil {
		_ = n.conn.Close()
	}
}

// checkAlive returns an error if the server is stuck: its listener does not answer, or its
// engine stands still. A disk that hangs is no reason: a restart would not mend it and would
// lose the running work.
func (c *components) checkAlive(ctx context.Context) error {
	if c.engine.Stalled() {
		return fmt.Errorf("the engine stands still")
	}
	if c.listener == nil {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url()+"/healthz", nil)
	if err != nil {
		return err
	}
	// A connection of its own: one that is kept open would not show that no more are accepted.
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("/healthz answers %s", res.Status)
	}
	return nil
}
