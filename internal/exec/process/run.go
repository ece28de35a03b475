package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
)

// run is a running command. Four goroutines serve it: one writes its input, two read its
// outputs, one waits for its exit. All of them end after the command and its group have ended.
type run struct {
	// set once
	cmd        *osexec.Cmd
	attempt    attempt
	timeouts   timeouts
	pipeEnds   []*os.File      // our ends of the command's pipes: stdin, stdout, stderr
	lines      chan outputLine // lines of output; closed when both outputs have ended
	exited     chan struct{}   // closed when the command has exited and state is set
	goroutines sync.WaitGroup

	state *os.ProcessState // set before exited is closed
	// leftoversKilled is true once the remaining processes of the attempt were killed.
	// waitAndRelay's goroutine owns it.
	leftoversKilled bool
}

// outputLine is a line of output, or a part of a long one.
type outputLine struct {
	stderr bool
	data   []byte // owned by the receiver
}

// start starts the command and the goroutines that serve it.
func (e *Executor) start(t exec.Task) (*run, error) {
	r := &run{attempt: newAttempt(), timeouts: e.timeouts, lines: make(chan outputLine), exited: make(chan struct{})}
	r.cmd = e.newCommand(t, &r.attempt)
	theirs, err := r.makePipes()
	if err == nil {
		if err = e.config.PIDFile.addAttempt(&r.attempt); err != nil {
			// A missing PID file must not look like a missing command.
			err = fmt.Errorf("its attempt cannot be recorded: %v", err) //nolint:errorlint // see above
		}
	}
	if err == nil {
		r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = theirs[0], theirs[1], theirs[2]
		err = r.cmd.Start()
	}
	// The command has its own copies; ours would keep the pipes open after it ends.
	closeAll(theirs)
	if err != nil {
		closeAll(r.pipeEnds)
		e.config.PIDFile.removeAttempt(&r.attempt)
		return nil, err
	}
	e.config.PIDFile.addCommand(&r.attempt, r.cmd.Process.Pid)
	r.goroutines.Go(func() { r.writeInput(t.Input) })
	r.goroutines.Go(r.waitForExit)
	r.goroutines.Go(r.readOutputs)
	return r, nil
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

func (r *run) waitForExit() {
	_ = r.cmd.Wait() // the state has the exit status
	r.state = r.cmd.ProcessState
	close(r.exited)
}

func (r *run) readOutputs() {
	var outputs sync.WaitGroup
	outputs.Go(func() { r.readLines(&pipeReader{file: r.pipeEnds[1], grace: r.timeouts.output}, false) })
	outputs.Go(func() { r.readLines(&pipeReader{file: r.pipeEnds[2], grace: r.timeouts.output}, true) })
	outputs.Wait()
	close(r.lines)
}

func (r *run) readLines(from io.Reader, stderr bool) {
	for in := newLineReader(from); ; {
		line := in.next()
		if line == nil {
			return
		}
		r.lines <- outputLine{stderr, line}
	}
}

// waitAndRelay relays the command's output until the command and its remaining processes have
// ended. It stops the command when ctx ends or out returns an error, and returns the cause.
func (r *run) waitAndRelay(ctx context.Context, out *output) (stopCause error) {
	var graceOver <-chan time.Time
	// Each channel is set to nil after its last use.
	done, exited, lines := ctx.Done(), r.exited, r.lines
	stop := func(cause error) {
		if stopCause = cause; exited != nil {
			terminate(r.cmd.Process.Pid)
			graceOver = time.After(r.timeouts.grace)
		}
	}
	for exited != nil || lines != nil {
		select {
		case line, more := <-lines:
			// Read lines after a stop too, so that a full pipe blocks no process.
			if !more {
				lines = nil
			} else if stopCause == nil {
				if err := out.add(line); err != nil {
					stop(err)
				}
			}
		case <-done:
			done = nil
			if stopCause == nil {
				stop(context.Cause(ctx))
			}
		case <-graceOver:
			kill(r.cmd.Process.Pid)
		case <-exited:
			exited, graceOver = nil, nil
			r.cleanUp(stopCause != nil || !r.state.Success())
		}
	}
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
	kill(r.cmd.Process.Pid)
	for _, f := range r.pipeEnds {
		_ = f.SetDeadline(time.Now().Add(r.timeouts.output)) // the input may be closed already
	}
}

// pipeReader reads one of the command's outputs. After the deadline that cleanUp sets, it still
// reads the data that is in the pipe, because the command wrote it in time. It only stops
// waiting for more.
type pipeReader struct {
	file      *os.File
	grace     time.Duration // how long to wait for more data, past the deadline
	lateReads int           // number of reads past the deadline
}

// maxLateReads is more than a full pipe needs. Without it, a process that left the group and
// writes without end would delay the attempt.
const maxLateReads = 16

func (r *pipeReader) Read(p []byte) (int, error) {
	n, err := r.file.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) && r.lateReads < maxLateReads {
		r.lateReads++
		_ = r.file.SetReadDeadline(time.Now().Add(r.grace))
		n, err = r.file.Read(p)
	}
	return n, err
}
