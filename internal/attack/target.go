package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// target is a server that is attacked.
type target struct {
	cmd    *exec.Cmd
	addr   string // host:port
	file   string // of its log
	client *http.Client
	open   []net.Conn // of the attacker
}

func build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "meanwhile")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/meanwhile-run/meanwhile/cmd/meanwhile").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("the program does not build: %w\n%s", err, out)
	}
	return binary, nil
}

// configuration has budgets that an attack fills in seconds.
const configuration = `
log: {format: text}
bodies: {max_bytes: 100000000, caller_bytes: 50000000}
queues:
  long: {executor: process, command: [sh, -c, "head -c 20000000 /dev/zero | tr '\\0' x"], env: [PATH], concurrency: 2}
  short: {executor: process, command: ["true"], env: [PATH], concurrency: 4, max_attempts: 1}
`

// start starts a server on a free port, which may open so many files.
func start(ctx context.Context, binary, dir string, files int) (*target, error) {
	data, err := os.MkdirTemp(dir, "data-")
	if err != nil {
		return nil, err
	}
	t := &target{file: data + ".log", client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}}
	config := data + ".yaml"
	if err := os.WriteFile(config, []byte(configuration), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(t.file)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	limit := ""
	if files > 0 {
		limit = fmt.Sprintf("ulimit -n %d; ", files)
	}
	t.cmd = exec.CommandContext(ctx, "sh", "-c", limit+`exec "$0" serve --listen 127.0.0.1:0 --data "$1" --config "$2"`, binary, filepath.Join(data, "d"), config)
	t.cmd.Stdout, t.cmd.Stderr = log, log
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	if t.addr, err = t.awaitReady(ctx); err != nil {
		t.stop()
		return nil, fmt.Errorf("%w\n%s", err, t.log())
	}
	return t, nil
}

var ready = regexp.MustCompile(`msg=ready url=http://(\S+)`)

// awaitReady returns the address that the log names.
func (t *target) awaitReady(ctx context.Context) (string, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for {
		if m := ready.FindStringSubmatch(t.log()); m != nil {
			return m[1], nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", ctx.Err()
		case <-deadline:
			return "", errors.New("the server was not ready within a minute")
		}
	}
}

func (t *target) log() string {
	text, _ := os.ReadFile(t.file)
	return string(text)
}

// stop closes the attacker's connections and ends the server.
func (t *target) stop() {
	for _, conn := range t.open {
		_ = conn.Close()
	}
	_ = t.cmd.Process.Signal(syscall.SIGKILL)
	_ = t.cmd.Wait()
}

// dial opens a connection of the attacker and writes a text on it. A server may have refused
// and closed it before all of it was written.
func (t *target) dial(text string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", t.addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	t.open = append(t.open, conn)
	_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(conn, text)
	return conn, nil
}

// call makes a request of somebody else.
func (t *target) call(method, path, body string, headers ...string) (status int, text string, err error) {
	req, err := http.NewRequest(method, "http://"+t.addr+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	res, err := t.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	return res.StatusCode, string(all), err
}

var jobID = regexp.MustCompile(`"id": ?"(job_[0-9a-z]+)"`)

// submit submits a job and returns its id.
func (t *target) submit(queue, prefer string) (id, answer string, err error) {
	status, text, err := t.call("POST", "/v1/jobs", `{"queue":"`+queue+`","input":{}}`, "Prefer", prefer)
	m := jobID.FindStringSubmatch(text)
	if err == nil && m == nil {
		err = fmt.Errorf("a submit: %d %s", status, text)
	}
	if err != nil {
		return "", "", err
	}
	return m[1], text, nil
}

// memory returns how much memory the server has, in MiB.
func (t *target) memory() (float64, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", t.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if kib, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			n, err := strconv.ParseFloat(strings.Fields(kib)[0], 64)
			return n / 1024, err
		}
	}
	return 0, errors.New("the memory of the server is not known")
}

// statusP99 reads the status of a job 200 times and returns the 99th percentile in ms.
func (t *target) statusP99(id string) (float64, error) {
	kept := &http.Client{Timeout: time.Minute}
	defer kept.CloseIdleConnections()
	var took []float64
	for range 200 {
		began := time.Now()
		res, err := kept.Get("http://" + t.addr + "/v1/jobs/" + id)
		if err != nil {
			return 0, err
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		took = append(took, float64(time.Since(began).Microseconds())/1000)
	}
	slices.Sort(took)
	return took[len(took)*99/100], nil
}
