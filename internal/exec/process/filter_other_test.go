//go:build unix && !linux

package process

func filterPtrace(int) { panic("only Linux has filters of system calls") }
