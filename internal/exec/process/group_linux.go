package process

import "syscall"

// processGroupAttr makes a process lead a group and be killed when its parent thread ends.
func processGroupAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
