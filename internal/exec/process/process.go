// Package process is the executor that runs a command once a job.
//
// The command gets the job's input on its standard input. Each line it writes to
// its standard output is said as output, and all of it is the result: JSON if it
// is a JSON object or array, plain text if it is UTF-8, bytes otherwise. Output
// that is not UTF-8 is not said, from its first such line on. Lines of standard
// error are logged, but for those of the form
//
//	progress 40 Reading page 2
//
// which report progress: a number from 0 to 100 and, if there is more, a status.
//
// The files that came with the job are named to the command by their absolute
// paths, which stand in the variables MEANWHILE_FILE_1, MEANWHILE_FILE_2 and so on
// and, with what else is known of them, in MEANWHILE_FILES, a JSON array. In the
// command's own arguments {file} stands for the path of the job's one file, and an
// argument {files} for the paths of all. The command is to leave them as they are.
//
// Exit status 0 is success. 65, which sysexits.h calls EX_DATAERR, says that the
// input is wrong, and the job fails at once; any other status, like an end by a
// signal, may be tried again.
//
// The command runs without a shell, in the server's working directory, and sees no
// environment variable but those that the configuration names, those that tell of the
// job's files, TRACEPARENT, where the job is part of a trace, and MEANWHILE_ATTEMPT, a
// random value that marks the processes of one attempt. It leads a process group of
// its own. When an attempt is to stop the group gets SIGTERM, and SIGKILL [Grace]
// later; whatever of the group is left when the command has ended is killed at once.
//
// On Linux more is done, so that no process of an attempt runs beside the next one.
// When an attempt was stopped or has failed, whatever else has its mark is killed, in
// whatever group or session. The command is killed when the server is. Whatever it has
// started goes on until the next start: [OpenPIDFile] then kills what is in its
// group, or has its mark, or descends from such a process.
//
// So these escape: a process that leaves the group and has another environment or
// another user, once none of its ancestors is left; what another program starts for
// the command, such as a container; and what leaves the group of a command that
// succeeded. Elsewhere than on Linux whatever leaves the group escapes, and a killed
// server leaves its commands.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	meanwhile "github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Grace is how long a command that was asked to stop may take before it is killed.
// It is well below a queue's cancel grace, so that a command which ignores the
// request is gone before its slot is taken.
const Grace = 3 * time.Second

// Config is the command and what it sees.
type Config struct {
	Command []string // the program and its arguments; the program is looked for in PATH
	Env     []string // names of the server's variables that the command sees as well
	Dir     string   // where it runs; "" for the server's own directory
	PIDFile *PIDFile // where its attempts are noted, together with others'; nil for nowhere
}

// Executor runs the command. It keeps nothing between attempts.
type Executor struct {
	// set once
	config Config
	waits  waits
}

// waits are how long a command is waited for.
type waits struct {
	grace time.Duration // after it was asked to stop, before it is killed
	// lastWords is for its streams, after it has ended and its group was killed: a
	// process that left the group may hold them open.
	lastWords time.Duration
	leftovers time.Duration // what a failed attempt has left, to be gone after it was killed
}

// New makes an executor. Whether there is such a program is looked up by each
// attempt: it may be installed later.
func New(c Config) (*Executor, error) {
	if len(c.Command) == 0 || c.Command[0] == "" {
		return nil, errors.New("a process queue needs a command: the program and its arguments")
	}
	if !supported {
		return nil, errors.New("the executor process needs a system with process groups, such as Linux or macOS")
	}
	return &Executor{config: c, waits: waits{grace: Grace, lastWords: time.Second, leftovers: time.Second}}, nil
}

// CheckInstalled says why the program could not be run now; nil where nothing speaks
// against it.
func (e *Executor) CheckInstalled() error {
	_, err := exec.LookPath(e.config.Command[0])
	return err
}

// Kind is "process".
func (e *Executor) Kind() string { return "process" }

// Check takes any input: what it means is for the command to judge.
func (e *Executor) Check(input []byte) error { return nil }

// Execute runs the command and waits until it and all it left behind are gone.
func (e *Executor) Execute(ctx context.Context, t meanwhile.Task, out meanwhile.Sink) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	defer holdThread()()
	if f := e.lacksFiles(t.Files); f != nil {
		return f
	}
	r, err := e.start(t)
	if err != nil {
		return e.notStarted(err)
	}
	s := speech{out: out}
	stopped := r.attend(ctx, &s)
	if stopped == nil {
		// Not a *job.Fault that is nil: that would be an error.
		if f := e.judge(r.state, s.tail()); f != nil {
			stopped = f
		}
	}
	if stopped != nil && !r.cleared {
		r.attempt.killLeftovers(e.waits.leftovers) // it failed only after the command had ended
	}
	e.config.PIDFile.over(&r.attempt)
	if stopped != nil {
		return stopped
	}
	out.Result(s.result())
	return nil
}

// command is the command for one attempt.
func (e *Executor) command(t meanwhile.Task, a *attempt) *exec.Cmd {
	cmd := exec.Command(e.config.Command[0], withPaths(e.config.Command[1:], t.Files)...)
	cmd.Dir = e.config.Dir
	cmd.Env = []string{attemptVariable + "=" + a.token}
	for _, name := range e.config.Env {
		if value, set := os.LookupEnv(name); set {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Env = append(cmd.Env, aboutFiles(t.Files)...)
	if t.Job.Trace != "" {
		cmd.Env = append(cmd.Env, "TRACEPARENT="+t.Job.Trace)
	}
	cmd.SysProcAttr = inOwnGroup()
	return cmd
}

// notStarted is the fault of a command that could not be run at all.
func (e *Executor) notStarted(err error) *job.Fault {
	f := &job.Fault{Code: "command_not_started", Class: job.Retryable, Err: err,
		Message: fmt.Sprintf("the command %s could not be started", job.Quote(e.config.Command[0]))}
	switch {
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist):
		f.Code, f.Class = "command_not_found", job.Final
		f.Message = fmt.Sprintf("there is no command %s on this server: install it, or correct the queue's command", job.Quote(e.config.Command[0]))
	case errors.Is(err, os.ErrPermission):
		f.Code, f.Class = "command_not_executable", job.Final
		f.Message = fmt.Sprintf("the file %s may not be executed by this server: make it executable", job.Quote(e.config.Command[0]))
	}
	return f
}

// exitDataErr is the status by which a command says that its input is wrong.
const exitDataErr = 65

// judge is the fault of a command that ended as state says; nil for a success.
func (e *Executor) judge(state *os.ProcessState, tail string) *job.Fault {
	if state.Success() {
		return nil
	}
	name := job.Quote(e.config.Command[0])
	f := &job.Fault{Code: fmt.Sprintf("exit_%d", state.ExitCode()), Class: job.Retryable,
		Message: fmt.Sprintf("the command %s ended with exit status %d", name, state.ExitCode())}
	if number, signal := endedBySignal(state); number != 0 {
		f.Code = fmt.Sprintf("signal_%d", number)
		f.Message = fmt.Sprintf("the command %s was ended by signal %d (%s)", name, number, signal)
	}
	if state.ExitCode() == exitDataErr {
		f.Class = job.Final
		f.Message = fmt.Sprintf("the command %s does not accept the input", name)
	}
	if tail != "" {
		f.Message += ": " + tail
	}
	return f
}
