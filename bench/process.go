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
	readyWait = time.Minute      // until a server answers
	stopWait  = 40 * time.Second // until it has stopped in good order
)

// process is a server in a process of its own, on a free port of loopback.
type process struct {
	url  string // set by ready
	cmd  *exec.Cmd
	said *tail
	gone chan struct{} // closed when it has ended and been waited for
}

// start starts the command and returns when it answers. The command takes a port that
// is free, and says which: a port chosen for it could be another's by then.
func start(ctx context.Context, command []string, log io.Writer) (*process, error) {
	p := &process{said: &tail{also: log, told: make(chan string, 1)}, gone: make(chan struct{})}
	p.cmd = exec.Command(command[0], append(command[1:len(command):len(command)], "--listen", "127.0.0.1:0")...)
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

// ready waits until the server says where it listens, and answers there.
func (p *process) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWait, fmt.Errorf("the server was not ready within %s", readyWait))
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for p.url == "" || !answers(ctx, p.url+"/readyz") {
		select {
		case p.url = <-p.said.told:
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
	also io.Writer   // set once
	told chan string // set once; has the address that was written first, when there was one; nobody closes it

	mu sync.Mutex
	// Guarded by mu.
	last  []byte
	found bool // the address was told
}

const tailBytes = 4 << 10

// address is where a server of this machine says that it listens, with what ends it.
var address = regexp.MustCompile(`(http://127\.0\.0\.1:[0-9]+)[^0-9]`)

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	t.last = t.last[max(0, len(t.last)-tailBytes):]
	if !t.found {
		t.lookLocked()
	}
	return t.also.Write(p)
}

// lookLocked tells the address once it has been written.
func (t *tail) lookLocked() {
	if at := address.FindSubmatch(t.last); at != nil {
		t.found = true
		t.told <- string(at[1])
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.last))
}
