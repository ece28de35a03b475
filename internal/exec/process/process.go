// Package process is the executor that runs a command for each job. docs/commands.md describes
// what a command gets and what becomes of its output and of its exit status.
//
// The command runs without a shell and leads a process group. When an attempt must stop, the group
// gets SIGTERM, and SIGKILL after [Grace]. When the command has ended, the rest of its group is
// killed at once.
//
// On Linux the executor does more, so that no process of an attempt runs beside the next attempt.
// After an attempt was stopped or has failed, every process with its token in the environment is
// killed, in any group and session. The kernel kills the command when the server is killed, but
// not what the command has started. At the next start, [OpenPIDFile] kills those processes: the
// ones in the command's group, the ones with its token, and their descendants.
//
// These processes escape: one that leaves the group and changes its environment or user, once no
// ancestor of it is left; one that another program starts for the command, such as a container;
// and one that leaves the group of a command that succeeded. On other systems every process that
// leaves the group escapes, and a killed server leaves its commands running.
//
// A command must take neither the server's processor time nor its secrets. Its output is read in
// large pieces at a limited rate (pipe.go). It starts on a thread of its own, from which rights
// are taken that the command then does not inherit (harden_linux.go); [Protect] makes the
// server's process unreadable.
package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	osexec "os/exec"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
)

// Grace is the time between SIGTERM and SIGKILL. It is well below a queue's cancel grace, so
// that a command which ignores SIGTERM has ended before its slot is freed. It ends early if the
// attempt's sink says so: [exec.Sink.Killed].
const Grace = 3 * time.Second

// Config configures an executor.
type Config struct {
	Command []string // the program, looked up in PATH, and its arguments
	Env     []string // names of the server's variables that the command gets too
	Dir     string   // working directory; "" for the server's own
	User    string   // name of the user that the command runs as; "" for the server's own
	Limits  Limits   // of each process of the command
	Scratch string   // holds the scratch directories of attempts; "" for the system's directory
	PIDFile *PIDFile // records the running attempts; several executors may share it; nil for none
	Log     *slog.Logger
}

// Limits are limits of a process of a command, which its children inherit. 0 is no limit. Only
// Linux has them.
type Limits struct {
	// Memory is the number of bytes of memory that one process may write to, apart from its
	// stacks and from memory that it shares (RLIMIT_DATA).
	Memory int64
	// Processes is the number of processes and threads that the command's user may have,
	// counting all of that user on the machine (RLIMIT_NPROC). It does not hold for root.
	Processes int64
}

// Executor runs the command. It keeps no state between attempts.
type Executor struct {
	// set once
	config   Config
	user     user
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
	if c.Limits != (Limits{}) && !limitsSupported {
		return nil, errors.New("limits of memory and processes need Linux")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Scratch == "" {
		c.Scratch = os.TempDir()
	}
	u, err := lookupUser(c.User)
	if err != nil {
		return nil, err
	}
	return &Executor{config: c, user: u, timeouts: timeouts{grace: Grace, output: time.Second, leftovers: time.Second}}, nil
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
	if f := e.filesFault(t.Files); f != nil {
		return f
	}
	if f := changedFault(t.Files); f != nil {
		return f
	}
	a := newAttempt()
	files, err := e.makeScratch(&a, t.Files)
	defer e.removeScratch(&a)
	if err != nil {
		return e.startFault(fmt.Errorf("its scratch directory cannot be made: %w", err))
	}
	t.Files = files
	r, err := e.start(t, a)
	if err != nil {
		return e.startFault(err)
	}
	o := newOutput(out, &t.Job, e.secrets())
	err = r.waitAndRelay(ctx, &o)
	if err == nil {
		// A nil *job.Fault must not become an error that is not nil.
		if f := e.exitFault(r.state, o.stderr.tailText()); f != nil {
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
	cmd.Env = []string{}
	for _, name := range e.config.Env {
		if value, set := os.LookupEnv(name); set {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Env = append(cmd.Env, fileEnv(t.Files)...)
	if t.Job.Trace != "" {
		cmd.Env = append(cmd.Env, "TRACEPARENT="+t.Job.Trace)
	}
	// Last, so that none of the server's variables replaces them: the server may be a command of
	// another server.
	cmd.Env = append(cmd.Env, attemptVar+"="+a.token, "TMPDIR="+a.scratch)
	cmd.SysProcAttr = processGroupAttr()
	e.user.apply(cmd.SysProcAttr)
	return cmd
}
