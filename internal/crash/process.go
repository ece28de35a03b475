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

// serverProcess is a built server and its data directory. One process runs at a time. Each
// process chooses a free port and logs it; a port chosen here could be in use before the
// process starts. The transport connects to the current port.
type serverProcess struct {
	// set once
	dir       string
	binary    string
	log       *os.File
	transport *http.Transport // connects to the current process, for any URL

	cmd *exec.Cmd // nil while no process runs

	mu   sync.Mutex
	addr string // guarded by mu: address of the current process; "" until it is known
}

// newServerProcess prepares a server in dir. It builds the program unless a binary is
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

// baseURL is the URL of every server process. The transport replaces its address by the
// current one.
const baseURL = "http://127.0.0.1"

// client creates a client that connects to the current process.
func (in *serverProcess) client(options ...client.Option) (*client.Client, error) {
	return client.New(baseURL, append(options, client.WithTransport(in.transport))...)
}

// address returns the address of the current process; "" while none listens.
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

// logReader passes on the log of a process and finds the address in it.
type logReader struct {
	*serverProcess
	head      []byte // the log up to the address
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

// startTimeout is how long a start may take before the run fails.
const startTimeout = 2 * time.Minute

// start starts the server with additional arguments and returns the time until it was
// ready.
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

// suspend stops the process for d with SIGSTOP, and continues it.
func (in *serverProcess) suspend(d time.Duration) error {
	if err := in.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	time.Sleep(d)
	return in.cmd.Process.Signal(syscall.SIGCONT)
}

// kill kills the process with SIGKILL, so that the server can do nothing more. It returns
// when the process has ended.
func (in *serverProcess) kill() error {
	in.setAddress("") // another program may soon use the port
	err := in.cmd.Process.Kill()
	_ = in.cmd.Wait() // Wait returns an error for a killed process
	in.cmd = nil
	return err
}

// stop sends SIGTERM and waits. A server that stops in good order exits with status 0.
func (in *serverProcess) stop() error {
	if err := in.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := in.cmd.Wait()
	in.cmd = nil
	return err
}
