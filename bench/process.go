package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
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

// process is a server in a process of its own, on a free port of loopback.
type process struct {
	url    string // set by ready
	cmd    *exec.Cmd
	output *outputTail
	exited chan struct{} // closed when it has ended and been waited for
}

// start starts the command and returns when it answers. The command takes a port that
// is free, and says which: a port chosen for it could be another's by then.
func start(ctx context.Context, command []string, log io.Writer) (*process, error) {
	p := &process{output: &outputTail{next: log, addr: make(chan string, 1)}, exited: make(chan struct{})}
	p.cmd = exec.Command(command[0], append(command[1:len(command):len(command)], "--listen", "127.0.0.1:0")...)
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("the server cannot be started: %w", err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // its state says how it ended
	}()
	if err := p.waitUntilReady(ctx); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// waitUntilReady waits until the server says where it listens, and answers there.
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
			return fmt.Errorf("the server ended at once (%s); it said:\n%s", p.cmd.ProcessState, p.output)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// isReady says whether somebody is there who does not ask to wait.
func isReady(ctx context.Context, url string) bool {
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
	late := time.AfterFunc(stopTimeout, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	<-p.exited
	state := p.cmd.ProcessState
	return state.UserTime() + state.SystemTime()
}

// kill ends the process as a crash would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// outputTail keeps the last of what is written to it, and hands all of it on.
type outputTail struct {
	next io.Writer   // set once
	addr chan string // set once; has the address that was written first, when there was one; nobody closes it

	mu sync.Mutex
	// Guarded by mu.
	last      []byte
	addrFound bool // the address was told
}

const tailBytes = 4 << 10

// addressPattern is where a server of this machine says that it listens, with what ends it.
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

// findAddrLocked tells the address once it has been written.
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
