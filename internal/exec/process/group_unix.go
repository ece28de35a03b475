//go:build unix

package process

import (
	"os"
	"syscall"
)

const supported = true

// signalGroup sends a signal to the group that the command led when it started, and to the command
// itself, which may have joined another group. Nothing to send it to is no error.
func signalGroup(command *os.Process, signal syscall.Signal) {
	_ = syscall.Kill(-command.Pid, signal)
	if group, err := syscall.Getpgid(command.Pid); err == nil && group != command.Pid {
		_ = command.Signal(signal) // sends nothing once the command was waited for
	}
}

// terminate asks a command's group to stop; kill forces it.
func terminate(command *os.Process) {
	signalGroup(command, syscall.SIGTERM)
	signalGroup(command, syscall.SIGCONT) // a stopped process would not see the first signal
}

func kill(command *os.Process) { signalGroup(command, syscall.SIGKILL) }

// exitSignal returns the signal that ended a process, and its name; 0 if none did.
func exitSignal(state *os.ProcessState) (number int, name string) {
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return 0, ""
	}
	return int(status.Signal()), status.Signal().String()
}
