package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"time"
)

const (
	readyTimeout = time.Minute      // until a server answers
	stopTimeout  = 40 * time.Second // until it has stopped in good order
)

// process is a server in its own process, on a free port of loopback.
type process struct {
	url    string // set by ready
	cmd    *exec.Cmd
	output *outputTail
	exited chan struct{} // closed after the process has ended and Wait has returned
}

// start starts the command and returns when it answers requests. The command chooses a
// free port and prints it. A port chosen here could be in use before the command starts.
func start(ctx context.Context, command, env []string, log io.Writer) (*process, error) {
	p := &process{output: &outputTail{next: log, addr: make(chan string, 1)}, exited: make(chan struct{})}
	p.cmd = exec.Command(command[0], append(command[1:len(command):len(command)], "--listen", "127.0.0.1:0")...)
	p.cmd.Env = append(os.Environ(), env...)
	// The address may be printed to either stream.
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("the server cannot be started: %w", err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // ProcessState says how it ended
	}()
	if err := p.waitUntilReady(ctx); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// waitUntilReady waits until the server has printed its address and answers there.
func (p *process) waitUntilReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("the server was not ready within %s", readyTimeout))
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for p.url == "" || !isReady(ctx, p.url+"/readyz") {
		select {
		case p.url = <-p.output.addr:
		case <-tick.C:
		case <-p.exited:
			return fmt.Errorf("the server ended at once (%s) with the log:\n%s", p.cmd.ProcessState, p.output)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// isReady reports whether the server answers without a server error (5xx).
func isReady(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	// A server that is measured must have no connection left from the probe.
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode < http.StatusInternalServerError
}

// stop stops the process in good order, kills it after stopTimeout, and returns its CPU
// time.
func (p *process) stop() time.Duration {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(stopTimeout, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	<-p.exited
	state := p.cmd.ProcessState
	return state.UserTime() + state.SystemTime()
}

// kill kills the process, as a crash would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// outputTail keeps the end of the output and passes all of it on. It also finds the
// address in it.
type outputTail struct {
	next io.Writer   // set once
	addr chan string // set once; receives the first address in the output; never closed

	mu sync.Mutex
	// guarded by mu
	last      []byte
	addrFound bool // the address was sent
}

const tailBytes = 4 << 10

// addressPattern matches the URL at which a server listens, and the next character. Without
// that character, more digits of the port may follow.
var addressPattern = regexp.MustCompile(`(http://127\.0\.0\.1:[0-9]+)[^0-9]`)

func (t *outputTail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	t.last = t.last[max(0, len(t.last)-tailBytes):]
	if !t.addrFound {
		t.findAddrLocked()
	}
	return t.next.Write(p)
}

// findAddrLocked sends the address as soon as the output contains it.
func (t *outputTail) findAddrLocked() {
	if at := addressPattern.FindSubmatch(t.last); at != nil {
		t.addrFound = true
		t.addr <- string(at[1])
	}
}

func (t *outputTail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.last))
}
