package process

import (
	"runtime"
	"syscall"
)

// processGroupAttr makes a process lead a group and be killed when its parent thread ends.
func processGroupAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// lockThread keeps the current thread alive until release is called. The kernel treats the
// thread that started a process as its parent, and kills the process when that thread ends.
func lockThread() (release func()) {
	runtime.LockOSThread()
	return runtime.UnlockOSThread
}
