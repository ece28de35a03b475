//go:build unix && !linux

package process

import "syscall"

// processGroupAttr makes a process lead a group.
func processGroupAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
