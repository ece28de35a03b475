package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	meanwhile "github.com/meanwhile-run/meanwhile/internal/exec"
)

// run is a command under way. Four goroutines serve it: one feeds its input, two
// read its outputs, one waits for its end. All of them end when the command and
// its group have.
type run struct {
	// set once
	cmd     *exec.Cmd
	attempt attempt
	waits   waits
	ours    []*os.File    // our ends of its pipes: in, out, err
	pieces  chan piece    // what it wrote; closed when both outputs are at their end
	ended   chan struct{} // closed when the command has ended and state is set
	helpers sync.WaitGroup

	state *os.ProcessState // set before ended is closed
	// cleared says that nothing of the attempt was left when the command had ended. Of
	// the goroutine that attends.
	cleared bool
}

// piece is a line that the command wrote, or a part of a long one.
type piece struct {
	stderr bool
	data   []byte // the receiver's
}

func (e *Executor) start(t meanwhile.Task) (*run, error) {
	r := &run{attempt: newAttempt(), waits: e.waits, pieces: make(chan piece), ended: make(chan struct{})}
	r.cmd = e.command(t, &r.attempt)
	theirs, err := r.pipes()
	if err == nil {
		if err = e.config.PIDFile.begin(&r.attempt); err != nil {
			err = fmt.Errorf("its attempt cannot be noted: %v", err) // %v: it is not the command that is missing
		}
	}
	if err == nil {
		r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = theirs[0], theirs[1], theirs[2]
		err = r.cmd.Start()
	}
	closeAll(theirs)
	if err != nil {
		closeAll(r.ours)
		e.config.PIDFile.over(&r.attempt)
		return nil, err
	}
	e.config.PIDFile.started(&r.attempt, r.cmd.Process.Pid)
	r.helpers.Go(func() { r.feed(t.Input) })
	r.helpers.Go(r.wait)
	r.helpers.Go(r.read)
	return r, nil
}

// pipes makes a pipe for each of the three streams, and returns the command's ends.
func (r *run) pipes() (theirs []*os.File, err error) {
	for stream := range 3 {
		reader, writer, err := os.Pipe()
		if err != nil {
			return theirs, err
		}
		if stream == 0 {
			reader, writer = writer, reader
		}
		r.ours, theirs = append(r.ours, reader), append(theirs, writer)
	}
	return theirs, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// feed writes the input. A command that does not read all of it is within its rights.
func (r *run) feed(input []byte) {
	_, _ = io.Copy(r.ours[0], bytes.NewReader(input))
	_ = r.ours[0].Close()
}

func (r *run) wait() {
	_ = r.cmd.Wait() // the state says how it ended
	r.state = r.cmd.ProcessState
	close(r.ended)
}

func (r *run) read() {
	var outputs sync.WaitGroup
	outputs.Go(func() { r.readLines(&stream{file: r.ours[1], patience: r.waits.lastWords}, false) })
	outputs.Go(func() { r.readLines(&stream{file: r.ours[2], patience: r.waits.lastWords}, true) })
	outputs.Wait()
	close(r.pieces)
}

func (r *run) readLines(from io.Reader, stderr bool) {
	for in := newLines(from); ; {
		line := in.next()
		if line == nil {
			return
		}
		r.pieces <- piece{stderr, line}
	}
}

// attend is with the command until it is gone with all it left. It relays what the
// command says, until it is to stop: because ctx ended or because the speech says
// so. The error is why.
func (r *run) attend(ctx context.Context, s *speech) (stopped error) {
	var tooLong <-chan time.Time
	done, ended, pieces := ctx.Done(), r.ended, r.pieces
	stop := func(why error) {
		if stopped = why; ended != nil {
			terminate(r.cmd.Process.Pid)
			tooLong = time.After(r.waits.grace)
		}
	}
	for ended != nil || pieces != nil {
		select {
		case p, more := <-pieces:
			if !more {
				pieces = nil
			} else if stopped == nil {
				if err := s.say(p); err != nil {
					stop(err)
				}
			}
		case <-done:
			done = nil
			if stopped == nil {
				stop(context.Cause(ctx))
			}
		case <-tooLong:
			kill(r.cmd.Process.Pid)
		case <-ended:
			ended, tooLong = nil, nil
			r.bury(stopped != nil || !r.state.Success())
		}
	}
	r.helpers.Wait()
	closeAll(r.ours)
	return stopped
}

// bury kills what the command has left of its group, and sets an end to the wait
// for its streams. After a failure another attempt may follow, and nothing of this one
// may run beside it: whatever left the group is killed too, before it is waited for.
func (r *run) bury(failed bool) {
	if failed { // first, while what is in the group still tells what it has started
		r.attempt.killLeftovers(r.waits.leftovers)
		r.cleared = true
	}
	kill(r.cmd.Process.Pid)
	for _, f := range r.ours {
		_ = f.SetDeadline(time.Now().Add(r.waits.lastWords)) // the input may be closed already
	}
}

// stream reads one of the command's outputs. When the deadline that bury sets has
// passed, what the pipe still holds is read all the same: we may have been too slow
// to read it, not the command to write it. Only waiting longer is pointless then.
type stream struct {
	file     *os.File
	patience time.Duration // for the pipe to say more, past the deadline
	late     int           // reads past the deadline
}

// maxLate is how often we may be late: more often than a full pipe needs, so that
// a process which left the group cannot hold us by talking.
const maxLate = 16

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.file.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) && s.late < maxLate {
		s.late++
		_ = s.file.SetReadDeadline(time.Now().Add(s.patience))
		n, err = s.file.Read(p)
	}
	return n, err
}
