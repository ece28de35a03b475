//go:build !unix

package process

import (
	"os"
	"syscall"
)

// A system without process groups could not be rid of what a command starts, so
// [New] refuses; the rest is there to compile.
const supported = false

func terminate(int)                                {}
func kill(int)                                     {}
func endedBySignal(*os.ProcessState) (int, string) { return 0, "" }
func inOwnGroup() *syscall.SysProcAttr             { return nil }
func holdThread() (release func())                 { return func() {} }
