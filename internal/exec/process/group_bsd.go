//go:build unix && !linux

package process

import "syscall"

// inOwnGroup makes a process lead a group.
func inOwnGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// holdThread is needed on Linux only.
func holdThread() (release func()) { return func() {} }
