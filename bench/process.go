package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

const (
	readyWait = 20 * time.Second // until a server answers
	stopWait  = 40 * time.Second // until it has stopped in good order
)

// process is a server in a process of its own, on a free port of loopback.
type process struct {
	url  string
	cmd  *exec.Cmd
	said *tail
	gone chan struct{} // closed when it has ended and been waited for
}

// start starts the command and returns when it answers.
func start(ctx context.Context, command []string, log io.Writer) (*process, error) {
	listen, err := freePort()
	if err != nil {
		return nil, err
	}
	p := &process{url: "http://" + listen, said: &tail{also: log}, gone: make(chan struct{})}
	p.cmd = exec.Command(command[0], append(command[1:len(command):len(command)], "--listen", listen)...)
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("the server cannot be started: %w", err)
	}
	go func() {
		defer close(p.gone)
		_ = p.cmd.Wait() // its state says how it ended
	}()
	if err := p.ready(ctx); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// freePort finds a port that nobody listens on. Another program may take it before
// the server does; the server then fails to start, and says so.
func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// ready waits until the server says that it is.
func (p *process) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWait, fmt.Errorf("the server was not ready within %s", readyWait))
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !answers(ctx, p.url+"/readyz") {
		select {
		case <-tick.C:
		case <-p.gone:
			return fmt.Errorf("the server ended at once (%s); it said:\n%s", p.cmd.ProcessState, p.said)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// answers says whether somebody is there who does not ask to wait.
func answers(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode < http.StatusInternalServerError
}

// stop ends the process in good order, by force when it does not, and returns the
// CPU time that it used.
func (p *process) stop() time.Duration {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(stopWait, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	<-p.gone
	state := p.cmd.ProcessState
	return state.UserTime() + state.SystemTime()
}

// kill ends the process as a crash would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.gone
}

// tail keeps the last of what is written to it, and hands all of it on.
type tail struct {
	also io.Writer // set once

	mu   sync.Mutex
	last []byte
}

const tailBytes = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	t.last = t.last[max(0, len(t.last)-tailBytes):]
	return t.also.Write(p)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.last))
}
