package process

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"runtime"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
)

// run is a running command. Four goroutines serve it: one starts it and waits for its exit, one
// writes its input, two read its outputs. All of them end after the command and its group have
// ended.
type run struct {
	// set once
	cmd        *osexec.Cmd
	attempt    attempt
	timeouts   timeouts
	pipeEnds   []*os.File    // our ends of the command's pipes: stdin, stdout, stderr
	pieces     chan piece    // what the readers have read; closed when both outputs have ended
	exited     chan struct{} // closed when the command has exited and state is set
	goroutines sync.WaitGroup

	state *os.ProcessState // set before exited is closed; nil if it cannot be known
	// leftoversKilled is true once the remaining processes of the attempt were killed.
	// waitAndRelay's goroutine owns it.
	leftoversKilled bool
}

// start starts the command and the goroutines that serve it.
func (e *Executor) start(t exec.Task, a attempt) (*run, error) {
	r := &run{attempt: a, timeouts: e.timeouts, pieces: make(chan piece), exited: make(chan struct{})}
	r.cmd = e.newCommand(t, &r.attempt)
	theirs, err := r.makePipes()
	if err == nil {
		err = e.user.own(theirs)
	}
	if err == nil {
		if err = e.config.PIDFile.addAttempt(&r.attempt); err != nil {
			// A missing PID file must not look like a missing command.
			err = fmt.Errorf("its attempt cannot be recorded: %v", err) //nolint:errorlint // see above
		}
	}
	if err == nil {
		r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = theirs[0], theirs[1], theirs[2]
		err = r.startOnThread(e.config.Limits)
	}
	// The command has its own copies; ours would keep the pipes open after it ends.
	closeAll(theirs)
	if err != nil {
		closeAll(r.pipeEnds)
		r.goroutines.Wait()
		e.config.PIDFile.removeAttempt(&r.attempt)
		return nil, err
	}
	e.config.PIDFile.addCommand(&r.attempt, r.cmd.Process.Pid)
	r.goroutines.Go(func() { r.writeInput(t.Input) })
	r.goroutines.Go(r.readOutputs)
	return r, nil
}

// startOnThread starts the command on a thread of its own, which then waits for its exit. The
// kernel takes the thread for the command's parent and kills the command when the thread ends.
func (r *run) startOnThread(limits Limits) error {
	started := make(chan error, 1)
	r.goroutines.Go(func() {
		// The thread is never unlocked, so it ends with this goroutine: the restrictions, which
		// the command inherits, must not stay on a thread of other goroutines.
		runtime.LockOSThread()
		err := restrictThread()
		if err == nil {
			err = startLimited(r.cmd, limits)
		}
		started <- err
		if err != nil {
			return
		}
		_ = r.cmd.Wait() // the state has the exit status; it is nil if another took it from us
		forgetChild(r.cmd.Process.Pid)
		r.state = r.cmd.ProcessState
		close(r.exited)
	})
	return <-started
}

// makePipes makes a pipe for each of the three streams and returns the command's ends.
func (r *run) makePipes() (theirs []*os.File, err error) {
	for stream := range 3 {
		reader, writer, err := os.Pipe()
		if err != nil {
			return theirs, err
		}
		if stream == 0 {
			reader, writer = writer, reader
		}
		r.pipeEnds, theirs = append(r.pipeEnds, reader), append(theirs, writer)
	}
	return theirs, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// writeInput writes the input. It ignores errors, because a command need not read all of its
// input.
func (r *run) writeInput(input []byte) {
	_, _ = io.Copy(r.pipeEnds[0], bytes.NewReader(input))
	_ = r.pipeEnds[0].Close()
}

func (r *run) readOutputs() {
	var outputs sync.WaitGroup
	for i, file := range r.pipeEnds[1:] {
		in := pipeReader{file: file, stderr: i == 1, grace: r.timeouts.output, exited: r.exited}
		outputs.Go(func() { in.relay(r.pieces) })
	}
	outputs.Wait()
	close(r.pieces)
}

// waitAndRelay relays the command's output until the command and its remaining processes have
// ended. It stops the command when ctx ends or out returns an error, and returns the cause.
func (r *run) waitAndRelay(ctx context.Context, out *output) (stopCause error) {
	var graceOver <-chan time.Time
	var killed <-chan struct{}
	quiet := time.NewTimer(time.Hour)
	defer quiet.Stop()
	// Each channel is set to nil after its last use.
	done, exited, pieces := ctx.Done(), r.exited, r.pieces
	stop := func(cause error) {
		if stopCause = cause; exited != nil {
			terminate(r.cmd.Process)
			graceOver, killed = time.After(r.timeouts.grace), out.sink.Killed()
		}
	}
	// write passes output on, until something has stopped the attempt.
	write := func(add func() error) {
		if stopCause != nil {
			return
		}
		if err := add(); err != nil {
			stop(err)
		}
		if at := out.flushAt(); !at.IsZero() {
			quiet.Reset(time.Until(at))
		}
	}
	for exited != nil || pieces != nil {
		select {
		case p, more := <-pieces:
			// Read after a stop too, so that a full pipe blocks no process.
			if !more {
				pieces = nil
				continue
			}
			write(func() error { return out.add(p.stderr, p.data, time.Now()) })
			p.taken <- struct{}{}
		case now := <-quiet.C:
			write(func() error { return out.flush(now) })
		case <-done:
			done = nil
			if stopCause == nil {
				stop(context.Cause(ctx))
			}
		case <-graceOver:
			kill(r.cmd.Process)
		case <-killed:
			killed = nil
			kill(r.cmd.Process)
		case <-exited:
			exited, graceOver, killed = nil, nil, nil
			r.cleanUp(stopCause != nil || r.state == nil || !r.state.Success())
		}
	}
	write(out.end)
	r.goroutines.Wait()
	closeAll(r.pipeEnds)
	return stopCause
}

// cleanUp kills the rest of the command's group, and limits the time for reading its outputs. If
// the attempt has failed, another may follow, so it also kills the processes that left the
// group.
func (r *run) cleanUp(failed bool) {
	if failed { // before the group is killed, because the others are found through its processes
		r.attempt.killLeftovers(r.timeouts.leftovers)
		r.leftoversKilled = true
	}
	kill(r.cmd.Process)
	for _, f := range r.pipeEnds {
		_ = f.SetDeadline(time.Now().Add(r.timeouts.output)) // the input may be closed already
	}
}
