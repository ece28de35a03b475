package process

import (
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"syscall"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// startFault returns the fault of a command that could not be started.
func (e *Executor) startFault(err error) *job.Fault {
	program := e.config.Command[0]
	name := job.Quote(program)
	f := &job.Fault{Code: "command_not_started", Class: job.Retryable, Err: err}
	_, lookErr := osexec.LookPath(program)
	switch {
	case errors.Is(err, osexec.ErrDot):
		f.Code, f.Class = "command_not_found", job.Final
		f.Message = fmt.Sprintf("the command %s was found only in the working directory: write ./ before it in the queue's command", name)
	case errors.Is(err, osexec.ErrNotFound), errors.Is(err, os.ErrNotExist) && lookErr != nil:
		f.Code, f.Class = "command_not_found", job.Final
		f.Message = fmt.Sprintf("there is no command %s on this server: install it, or correct the queue's command", name)
	case errors.Is(err, os.ErrPermission) && lookErr != nil, errors.Is(lookErr, syscall.EISDIR):
		f.Code, f.Class = "command_not_executable", job.Final
		f.Message = fmt.Sprintf("the file %s may not be executed by this server: make it executable", name)
	default:
		reason, final := startReason(err)
		if final {
			f.Class = job.Final
		}
		f.Message = fmt.Sprintf("the command %s could not be started: %s", name, reason)
	}
	return f
}

// startReason explains why a program that exists could not be started. It is final if the next
// attempt would fail in the same way.
func startReason(err error) (reason string, final bool) {
	var path *os.PathError
	switch inCommand := errors.As(err, &path) && path.Op == "fork/exec"; {
	case errors.Is(err, syscall.E2BIG):
		return "its arguments and its environment are too long for the system; give the job fewer files, or files with shorter names", true
	case errors.Is(err, syscall.ENOEXEC):
		return "it is neither a program of this system nor a script whose first line names its interpreter (#!)", true
	case inCommand && errors.Is(err, os.ErrNotExist):
		return "the interpreter in its first line, or the loader that it is linked with, does not exist", true
	case inCommand && errors.Is(err, os.ErrPermission):
		return "the system does not allow it to be executed (its mode, its interpreter's, or a disk that is mounted with noexec)", true
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "too many files are open; raise the limit of open files (LimitNOFILE, ulimit -n)", false
	case errors.Is(err, syscall.EAGAIN):
		return "too many processes are running; raise the limit of processes (TasksMax, ulimit -u)", false
	case errors.Is(err, syscall.ENOMEM):
		return "there is not enough memory", false
	}
	return printableReason(err), false
}

// maxReasonRunes is the maximum number of characters of an error of the system in a fault.
const maxReasonRunes = 300

func printableReason(err error) string { return truncate(oneLine(err.Error()), maxReasonRunes) }

// exitDataErr is the exit status of a command that refuses its input.
const exitDataErr = 65

// exitFault returns the fault for an exit status, with the end of standard error in its message.
// It returns nil for a success.
func (e *Executor) exitFault(state *os.ProcessState, tail string) *job.Fault {
	name := job.Quote(e.config.Command[0])
	if state == nil {
		return &job.Fault{Code: "exit_unknown", Class: job.Retryable,
			Message: fmt.Sprintf("the command %s has ended, and another part of the server's program took its exit status: it must wait for its own children only", name)}
	}
	if state.Success() {
		return nil
	}
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
