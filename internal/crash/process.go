package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// serverProcess is a built server and its data directory; one process of it runs
// at a time. Each takes a port that is free and says which: one chosen for it could
// be another program's by then. Its clients find it all the same.
type serverProcess struct {
	// set once
	dir       string
	binary    string
	log       *os.File
	transport *http.Transport // leads to the process that runs, whatever the address

	cmd *exec.Cmd // nil while none runs

	mu   sync.Mutex
	addr string // where the process that was started last listens; "" until it says so. Guarded by mu
}

// newServerProcess makes a place for a server in dir, and builds it there unless a binary is
// given.
func newServerProcess(ctx context.Context, dir, binary string) (*serverProcess, error) {
	in := &serverProcess{dir: dir, binary: binary, transport: http.DefaultTransport.(*http.Transport).Clone()}
	in.transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, in.address())
	}
	if binary == "" {
		in.binary = filepath.Join(dir, "meanwhile")
		build := exec.CommandContext(ctx, "go", "build", "-o", in.binary, "github.com/meanwhile-run/meanwhile/cmd/meanwhile")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			return nil, fmt.Errorf("the server does not build: %w", err)
		}
	}
	var err error
	in.log, err = os.Create(filepath.Join(dir, "server.log"))
	return in, err
}

// baseURL is the server's URL for whoever goes by the installation's transport.
const baseURL = "http://127.0.0.1"

// client makes a client that finds the server wherever it listens.
func (in *serverProcess) client(options ...client.Option) (*client.Client, error) {
	return client.New(baseURL, append(options, client.WithTransport(in.transport))...)
}

// address is where the server listens; nobody does at "".
func (in *serverProcess) address() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.addr
}

func (in *serverProcess) setAddress(at string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.addr = at
}

// logReader passes on what a process says, and learns from it where that listens.
type logReader struct {
	*serverProcess
	head      []byte // until it is known
	addrFound bool
}

var readyAt = regexp.MustCompile(`"msg":"ready","url":"http://([^"]+)"`)

func (t *logReader) Write(p []byte) (int, error) {
	if !t.addrFound {
		t.head = append(t.head, p...)
		if at := readyAt.FindSubmatch(t.head); at != nil {
			t.setAddress(string(at[1]))
			t.head, t.addrFound = nil, true
		}
	}
	return t.log.Write(p)
}

// startTimeout is how long a start may take before it is held to have failed.
const startTimeout = 2 * time.Minute

// start runs the server, with more arguments, and returns how long it took until it was ready.
func (in *serverProcess) start(ctx context.Context, args ...string) (time.Duration, error) {
	in.setAddress("")
	in.cmd = exec.Command(in.binary, "serve", "--listen", "127.0.0.1:0", "--data", filepath.Join(in.dir, "data"), "--log-format", "json")
	in.cmd.Args = append(in.cmd.Args, args...)
	in.cmd.Stdout, in.cmd.Stderr = in.log, &logReader{serverProcess: in}
	began := time.Now()
	if err := in.cmd.Start(); err != nil {
		return 0, err
	}
	for in.address() == "" || !in.ready(ctx) {
		if ctx.Err() != nil || time.Since(began) > startTimeout {
			return 0, errors.Join(fmt.Errorf("the server was not ready after %v", time.Since(began)), in.kill())
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(began), nil
}

func (in *serverProcess) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, baseURL+"/readyz", nil)
	if err != nil {
		return false
	}
	req.Close = true
	res, err := in.transport.RoundTrip(req)
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// suspend stops the process for that long, and lets it go on.
func (in *serverProcess) suspend(d time.Duration) error {
	if err := in.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	time.Sleep(d)
	return in.cmd.Process.Signal(syscall.SIGCONT)
}

// kill is kill -9: the server gets no chance to do anything. It returns when the
// process is gone.
func (in *serverProcess) kill() error {
	in.setAddress("") // its port may be another program's soon
	err := in.cmd.Process.Kill()
	_ = in.cmd.Wait() // it was killed, which Wait calls an error
	in.cmd = nil
	return err
}

// stop is SIGTERM. A server that stops as it should returns 0.
func (in *serverProcess) stop() error {
	if err := in.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := in.cmd.Wait()
	in.cmd = nil
	return err
}
