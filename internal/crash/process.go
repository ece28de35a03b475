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
	"syscall"
	"time"
)

// installation is a built server and its data directory; one process of it runs
// at a time, always at the same address.
type installation struct {
	// set once
	dir    string
	binary string
	listen string
	log    *os.File

	cmd *exec.Cmd // nil while none runs
}

// install picks a port for a server in dir, and builds it there unless a binary is
// given.
func install(ctx context.Context, dir, binary string) (*installation, error) {
	in := &installation{dir: dir, binary: binary}
	if binary == "" {
		in.binary = filepath.Join(dir, "meanwhile")
		build := exec.CommandContext(ctx, "go", "build", "-o", in.binary, "github.com/meanwhile-run/meanwhile/cmd/meanwhile")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			return nil, fmt.Errorf("the server does not build: %w", err)
		}
	}
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	in.listen = port.Addr().String()
	if err := port.Close(); err != nil {
		return nil, err
	}
	in.log, err = os.Create(filepath.Join(dir, "server.log"))
	return in, err
}

func (in *installation) url() string { return "http://" + in.listen }

// start runs the server, with more arguments, and returns how long it took until it was ready.
func (in *installation) start(ctx context.Context, args ...string) (time.Duration, error) {
	in.cmd = exec.Command(in.binary, "serve", "--listen", in.listen, "--data", filepath.Join(in.dir, "data"), "--log-format", "json")
	in.cmd.Args = append(in.cmd.Args, args...)
	in.cmd.Stdout, in.cmd.Stderr = in.log, in.log
	began := time.Now()
	if err := in.cmd.Start(); err != nil {
		return 0, err
	}
	const patience = 30 * time.Second
	for !in.ready(ctx) {
		if ctx.Err() != nil || time.Since(began) > patience {
			return 0, errors.Join(fmt.Errorf("the server was not ready after %v", time.Since(began)), in.kill())
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(began), nil
}

func (in *installation) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, in.url()+"/readyz", nil)
	if err != nil {
		return false
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// stall stops the process for that long, and lets it go on.
func (in *installation) stall(d time.Duration) error {
	if err := in.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	time.Sleep(d)
	return in.cmd.Process.Signal(syscall.SIGCONT)
}

// kill is kill -9: the server gets no chance to do anything. It returns when the
// process is gone.
func (in *installation) kill() error {
	err := in.cmd.Process.Kill()
	_ = in.cmd.Wait() // it was killed, which Wait calls an error
	in.cmd = nil
	return err
}

// stop is SIGTERM. A server that stops as it should returns 0.
func (in *installation) stop() error {
	if err := in.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := in.cmd.Wait()
	in.cmd = nil
	return err
}
