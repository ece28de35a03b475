//go:build unix

package process

import (
	"os"
	"syscall"
)

const supported = true

// signalGroup sends a signal to a process group. That nobody is left to get it is
// no error.
func signalGroup(leader int, signal syscall.Signal) { _ = syscall.Kill(-leader, signal) }

// terminate asks a group to stop; kill makes it.
func terminate(leader int) { signalGroup(leader, syscall.SIGTERM) }
func kill(leader int)      { signalGroup(leader, syscall.SIGKILL) }

// endedBySignal is the signal that ended a process, with its name; 0 if none did.
func endedBySignal(state *os.ProcessState) (number int, name string) {
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return 0, ""
	}
	return int(status.Signal()), status.Signal().String()
}
