package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// manager is a service manager that receives the states of one process.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "mw") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &manager{t: t, path: filepath.Join(dir, "notify")}
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.conn.Close() })
	return m
}

func (m *manager) next() string {
	m.t.Helper()
	_ = m.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	state := make([]byte, 1000)
	n, err := m.conn.Read(state)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(state[:n])
}

// environ returns the variables that the manager sets.
func (m *manager) environ(watchdog time.Duration, pid string) func(string) string {
	return func(name string) string {
		return map[string]string{"NOTIFY_SOCKET": m.path, "WATCHDOG_USEC": strconv.FormatInt(watchdog.Microseconds(), 10), "WATCHDOG_PID": pid}[name]
	}
}

// The manager learns when the server is ready, that it lives, and when it stops.
func TestServiceManagerIsNotified(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	cfg := config.Default()
	cfg.Listen, cfg.Data = "127.0.0.1:0", t.TempDir()
	log := slog.New(slog.DiscardHandler)
	s, err := Open(t.Context(), cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	s.components.notifier = newNotifier(m.environ(2*time.Second, strconv.Itoa(os.Getpid())), log)
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error)
	go func() { ran <- s.Run(ctx) }()
	if got := m.next(); got != "READY=1\nSTATUS=ready at "+s.URL() {
		t.Errorf("first the server says %q", got)
	}
	if got := m.next(); got != "WATCHDOG=1" {
		t.Errorf("then it says %q", got)
	}
	stop()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	for got := m.next(); !strings.HasPrefix(got, "STOPPING=1\n"); got = m.next() {
		if got != "WATCHDOG=1" {
			t.Errorf("before it stops it says %q", got)
		}
	}
}

// There is a sign of life in each half of the watchdog's time, but none while the server does
// not answer itself.
func TestUnhealthyServerShowsNoSignOfLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		there, here := net.Pipe()
		n := &notifier{conn: here, watchdog: 10 * time.Second, log: slog.New(slog.DiscardHandler)}
		began := time.Now()
		go func() {
			_ = n.keepAlive(ctx, func(ctx context.Context) error {
				switch at := time.Since(began); {
				case at >= 15*time.Second && at < 20*time.Second:
					<-ctx.Done() // an answer that never comes
					return ctx.Err()
				case at >= 10*time.Second && at < 20*time.Second:
					return errors.New("it does not answer")
				}
				return nil
			})
		}()
		for _, want := range []time.Duration{0, 5, 20, 25} {
			state := make([]byte, 100)
			k, err := there.Read(state)
			if at := time.Since(began); err != nil || string(state[:k]) != "WATCHDOG=1" || at != want*time.Second {
				t.Errorf("%q came at %v, want a sign of life at %d s (%v)", state[:k], at, want, err)
			}
		}
		stop()
		synctest.Wait()
	})
}

func TestNotifierReadsEnvironment(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	log := slog.New(slog.DiscardHandler)
	mine := strconv.Itoa(os.Getpid())
	for rule, tt := range map[string]struct {
		getenv   func(string) string
		watchdog time.Duration
	}{
		"a watchdog":                    {m.environ(30*time.Second, mine), 30 * time.Second},
		"a watchdog for any process":    {m.environ(time.Minute, ""), time.Minute},
		"a watchdog of another process": {m.environ(time.Minute, "1"), 0},
		"no watchdog":                   {m.environ(0, mine), 0},
	} {
		n := newNotifier(tt.getenv, log)
		if n == nil || n.watchdog != tt.watchdog {
			t.Errorf("%s: %+v", rule, n)
		}
		n.close()
	}
	var none *notifier = newNotifier(func(string) string { return "" }, log)
	none.ready("nothing is sent")
	none.close()
	if newNotifier(func(string) string { return "/does/not/exist" }, log) != nil {
		t.Error("there is a notifier without a socket")
	}
}

func TestCheckAlive(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	if err := s.components.checkAlive(t.Context()); err != nil {
		t.Error(err)
	}
	s.quit()
	if s.components.checkAlive(t.Context()) == nil {
		t.Error("a server without a listener is alive")
	}
}
