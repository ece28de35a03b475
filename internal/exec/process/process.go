// Package process is the executor that runs a command for each job.
//
// The command reads the job's input from its standard input. Each line of its standard output
// is written as output. All of standard output is the result: JSON if it is a JSON object or
// array, plain text if it is UTF-8, bytes otherwise. From the first line that is not UTF-8 on,
// no line is written as output. Lines of standard error are logged, except for lines of the
// form
//
//	progress 40 Reading page 2
//
// which report progress: a number from 0 to 100 and an optional status.
//
// The command gets the absolute paths of the job's files in the variables MEANWHILE_FILE_1,
// MEANWHILE_FILE_2 and so on. MEANWHILE_FILES is a JSON array with their names, paths, content
// types and sizes. In the command's configured arguments, {file} stands for the path of the
// job's only file, and an argument {files} for the paths of all. The command must not change
// the files.
//
// Exit status 0 is success. Status 65, which sysexits.h calls EX_DATAERR, means that the input
// is wrong: the job fails at once. After any other status, and after an end by a signal, the
// job may be tried again.
//
// The command runs without a shell, in the server's working directory or the configured one.
// Of the server's environment it sees only the variables that the configuration names. It also
// sees the variables for the job's files, TRACEPARENT if the job is part of a trace, and
// MEANWHILE_ATTEMPT, a random token that marks the processes of one attempt. The command leads
// a process group. When an attempt must stop, the group gets SIGTERM, and SIGKILL after
// [Grace]. When the command has ended, the rest of its group is killed at once.
//
// On Linux the executor does more, so that no process of an attempt runs beside the next
// attempt. After an attempt was stopped or has failed, every process with its token is killed,
// in any group and session. The kernel kills the command when the server is killed, but not
// what the command has started. At the next start, [OpenPIDFile] kills those processes: the
// ones in the command's group, the ones with its token, and their descendants.
//
// These processes escape: one that leaves the group and changes its environment or user, once
// no ancestor of it is left; one that another program starts for the command, such as a
// container; and one that leaves the group of a command that succeeds. On other systems every
// process that leaves the group escapes, and a killed server leaves its commands running.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Grace is the time between SIGTERM and SIGKILL. It is well below a queue's cancel grace, so
// that a command which ignores SIGTERM has ended before its slot is freed.
const Grace = 3 * time.Second

// Config configures an executor.
type Config struct {
	Command []string // the program, looked up in PATH, and its arguments
	Env     []string // names of the server's variables that the command gets too
	Dir     string   // working directory; "" for the server's own
	PIDFile *PIDFile // records the running attempts; several executors may share it; nil for none
}

// Executor runs the command. It keeps no state between attempts.
type Executor struct {
	// set once
	config   Config
	timeouts timeouts
}

// timeouts are how long the executor waits for a command.
type timeouts struct {
	grace time.Duration // between SIGTERM and SIGKILL
	// output is how long to read the outputs after the command has ended and its group was
	// killed. A process that left the group may keep them open.
	output    time.Duration
	leftovers time.Duration // how long to wait for the end of a failed attempt's killed processes
}

// New makes an executor. It does not check that the program exists, because it may be
// installed later; each attempt looks it up.
func New(c Config) (*Executor, error) {
	if len(c.Command) == 0 || c.Command[0] == "" {
		return nil, errors.New("a process queue needs a command: the program and its arguments")
	}
	if !supported {
		return nil, errors.New("the executor process needs a system with process groups, such as Linux or macOS")
	}
	return &Executor{config: c, timeouts: timeouts{grace: Grace, output: time.Second, leftovers: time.Second}}, nil
}

// CheckInstalled returns an error if the program does not exist or cannot be executed now.
func (e *Executor) CheckInstalled() error {
	_, err := osexec.LookPath(e.config.Command[0])
	return err
}

// Kind is "process".
func (e *Executor) Kind() string { return "process" }

// TakesFiles is true: a command gets the paths of its job's files.
func (e *Executor) TakesFiles() bool { return true }

// Check accepts any input: the command checks it.
func (e *Executor) Check(input []byte) error { return nil }

// Execute runs the command. It returns when the command and its remaining processes have ended.
func (e *Executor) Execute(ctx context.Context, t exec.Task, out exec.Sink) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	defer lockThread()() // the command is killed when this thread ends, so keep the thread
	if f := e.filesFault(t.Files); f != nil {
		return f
	}
	r, err := e.start(t)
	if err != nil {
		return e.startFault(err)
	}
	o := output{sink: out}
	err = r.waitAndRelay(ctx, &o)
	if err == nil {
		// A nil *job.Fault must not become an error that is not nil.
		if f := e.exitFault(r.state, o.stderrTail()); f != nil {
			err = f
		}
	}
	// The attempt may have failed after the command had exited successfully.
	if err != nil && !r.leftoversKilled {
		r.attempt.killLeftovers(e.timeouts.leftovers)
	}
	e.config.PIDFile.removeAttempt(&r.attempt)
	if err != nil {
		return err
	}
	out.Result(o.result())
	return nil
}

func (e *Executor) newCommand(t exec.Task, a *attempt) *osexec.Cmd {
	cmd := osexec.Command(e.config.Command[0], expandArgs(e.config.Command[1:], t.Files)...)
	cmd.Dir = e.config.Dir
	// Env must not stay nil: os/exec would pass on the server's whole environment.
	cmd.Env = []string{attemptVar + "=" + a.token}
	for _, name := range e.config.Env {
		if value, set := os.LookupEnv(name); set {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Env = append(cmd.Env, fileEnv(t.Files)...)
	if t.Job.Trace != "" {
		cmd.Env = append(cmd.Env, "TRACEPARENT="+t.Job.Trace)
	}
	cmd.SysProcAttr = processGroupAttr()
	return cmd
}

// startFault returns the fault of a command that could not be started.
func (e *Executor) startFault(err error) *job.Fault {
	f := &job.Fault{Code: "command_not_started", Class: job.Retryable, Err: err,
		Message: fmt.Sprintf("the command %s could not be started", job.Quote(e.config.Command[0]))}
	switch {
	case errors.Is(err, osexec.ErrNotFound) || errors.Is(err, os.ErrNotExist):
		f.Code, f.Class = "command_not_found", job.Final
		f.Message = fmt.Sprintf("there is no command %s on this server: install it, or correct the queue's command", job.Quote(e.config.Command[0]))
	case errors.Is(err, os.ErrPermission):
		f.Code, f.Class = "command_not_executable", job.Final
		f.Message = fmt.Sprintf("the file %s may not be executed by this server: make it executable", job.Quote(e.config.Command[0]))
	}
	return f
}

// exitDataErr is the exit status of a command that refuses its input.
const exitDataErr = 65

// exitFault returns the fault for an exit status, with the end of standard error in its message.
// It returns nil for a success.
func (e *Executor) exitFault(state *os.ProcessState, tail string) *job.Fault {
	if state.Success() {
		return nil
	}
	name := job.Quote(e.config.Command[0])
	f := &job.Fault{Code: fmt.Sprintf("exit_%d", state.ExitCode()), Class: job.Retryable,
		Message: fmt.Sprintf("the command %s ended with exit status %d", name, state.ExitCode())}
	if number, signal := exitSignal(state); number != 0 {
		f.Code = fmt.Sprintf("signal_%d", number)
		f.Message = fmt.Sprintf("the command %s was ended by signal %d (%s)", name, number, signal)
	}
	// Another attempt would fail the same way.
	if state.ExitCode() == exitDataErr {
		f.Class = job.Final
		f.Message = fmt.Sprintf("the command %s does not accept the input", name)
	}
	if tail != "" {
		f.Message += ": " + tail
	}
	return f
}
