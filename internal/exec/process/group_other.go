//go:build !unix

package process

import (
	"os"
	"syscall"
)

// supported is false because [New] refuses systems without process groups: there the executor
// could not stop the processes that a command starts. The rest of this file exists to compile.
const supported = false

func terminate(*os.Process)                     {}
func kill(*os.Process)                          {}
func exitSignal(*os.ProcessState) (int, string) { return 0, "" }
func processGroupAttr() *syscall.SysProcAttr    { return nil }
