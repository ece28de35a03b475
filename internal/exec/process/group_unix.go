//go:build unix

package process

import (
	"os"
	"syscall"
)

const supported = true

// signalGroup sends a signal to a process group. A group without processes is no error.
func signalGroup(leader int, signal syscall.Signal) { _ = syscall.Kill(-leader, signal) }

// terminate asks a group to stop; kill forces it.
func terminate(leader int) { signalGroup(leader, syscall.SIGTERM) }
func kill(leader int)      { signalGroup(leader, syscall.SIGKILL) }

// exitSignal returns the signal that ended a process, and its name; 0 if none did.
func exitSignal(state *os.ProcessState) (number int, name string) {
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return 0, ""
	}
	return int(status.Signal()), status.Signal().String()
}
