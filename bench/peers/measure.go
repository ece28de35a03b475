package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/meanwhile-run/meanwhile/bench"
)

// The variables that a load gets, whatever its language.
const (
	urlVariable      = "PEER_URL"
	durationVariable = "PEER_MILLISECONDS"
)

// stopTime is what the processes of a peer have to end.
const stopTime = 10 * time.Second

// measure runs the peer on a place of its own.
func (p *peer) measure(ctx context.Context, s *servers, o *options) error {
	url, pid, closePlace, err := s.open(p.Place)
	if err != nil {
		return err
	}
	defer closePlace()
	if p.command == nil {
		return p.measureMeanwhile(ctx, url, pid, o)
	}
	if _, err := os.Stat(p.command[0]); err != nil {
		return fmt.Errorf("it is not installed (bench/peers/install): %w", err)
	}
	return p.measureLoad(ctx, url, pid, o)
}

// measureMeanwhile runs 'meanwhile bench throughput', which starts a server.
func (p *peer) measureMeanwhile(ctx context.Context, url string, pid int, o *options) error {
	args := append([]string{"bench", "throughput", "--json", "--data", os.TempDir(), "--duration", o.duration.String()}, p.args...)
	if url != "" {
		args = append(args, "--database", url)
	}
	before := databaseCPU(pid)
	cmd := exec.CommandContext(ctx, o.server, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%w: %s", err, said.String())
	}
	p.Database = (databaseCPU(pid) - before).Seconds()
	var r bench.Report
	if err := json.Unmarshal(out, &r); err != nil {
		return err
	}
	f := r.Figures[0]
	if p.Version, err = versionOf(ctx, o.server); err != nil {
		return fmt.Errorf("its version: %w", err)
	}
	p.Jobs, p.Seconds, p.PerS, p.P50, p.P99 = f.Jobs, f.Seconds, f.PerS, f.Latency.P50, f.Latency.P99
	p.CPU = f.Flow.ClientCPU + f.Flow.ServerCPU
	return nil
}

func versionOf(ctx context.Context, program string) (string, error) {
	out, err := exec.CommandContext(ctx, program, "version", "--json").Output()
	var said struct {
		Version string `json:"version"`
	}
	return said.Version, errors.Join(err, json.Unmarshal(out, &said))
}

// databaseCPU returns what the process that keeps the jobs has used; 0 for none.
func databaseCPU(pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	used, err := treeCPU(pid)
	if err != nil {
		return 0
	}
	return used
}

// measureLoad runs the program of a peer. It prints its version when it is warm and ready, begins
// when its input says so, and prints a result when its last job is done. It ends with its input.
func (p *peer) measureLoad(ctx context.Context, url string, pid int, o *options) error {
	cmd := exec.Command(p.command[0], p.command[1:]...)
	cmd.Env = append(os.Environ(), urlVariable+"="+url, fmt.Sprintf("%s=%d", durationVariable, o.duration.Milliseconds()))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that its workers can be ended with it
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	killGroup := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	stop := context.AfterFunc(ctx, killGroup)
	err = p.talk(in, bufio.NewReader(out), cmd.Process.Pid, pid)
	stop()
	_ = in.Close()
	late := time.AfterFunc(stopTime, killGroup)
	waitErr := cmd.Wait()
	late.Stop()
	killGroup() // what it has left
	if err != nil {
		return fmt.Errorf("%w: %w: %s", err, waitErr, tail(said.Bytes()))
	}
	return nil
}

// talk speaks with the program, and reads the CPU times around the load.
func (p *peer) talk(in io.Writer, out *bufio.Reader, load, database int) error {
	var ready struct {
		Version string `json:"version"`
	}
	if err := readLine(out, &ready); err != nil {
		return err
	}
	p.Version = ready.Version
	used, err := treeCPU(load)
	if err != nil {
		return err
	}
	db := databaseCPU(database)
	if _, err := io.WriteString(in, "go\n"); err != nil {
		return err
	}
	if err := readLine(out, &p.result); err != nil {
		return err
	}
	after, err := treeCPU(load)
	if err != nil {
		return err
	}
	p.CPU, p.Database = (after - used).Seconds(), (databaseCPU(database) - db).Seconds()
	p.PerS = float64(p.Jobs) / p.Seconds
	return nil
}

func readLine(r *bufio.Reader, v any) error {
	line, err := r.ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		return errors.New("the program ended early")
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(line, v)
}

// tail returns the end of what a program has printed.
func tail(said []byte) []byte {
	const most = 2000
	return bytes.TrimSpace(said[max(0, len(said)-most):])
}
