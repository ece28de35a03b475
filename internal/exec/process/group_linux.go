package process

import (
	"runtime"
	"syscall"
)

// inOwnGroup makes a process lead a group, and be killed when its parent is.
func inOwnGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// holdThread keeps the thread that starts a process until release is called: to
// the system, the thread is the parent whose death kills.
func holdThread() (release func()) {
	runtime.LockOSThread()
	return runtime.UnlockOSThread
}
