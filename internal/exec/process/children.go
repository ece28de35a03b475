package process

import (
	osexec "os/exec"
	"sync"
)

// children are the processes that this package waits for. The reaper leaves them alone.
var children struct {
	starting sync.RWMutex // read-locked while a command starts and is not in pids yet

	mu   sync.Mutex
	pids map[int]struct{} // guarded by mu
}

// startChild starts a command, for which the caller then waits. It calls forgetChild after that.
func startChild(cmd *osexec.Cmd) error {
	children.starting.RLock()
	defer children.starting.RUnlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	children.mu.Lock()
	defer children.mu.Unlock()
	if children.pids == nil {
		children.pids = map[int]struct{}{}
	}
	children.pids[cmd.Process.Pid] = struct{}{}
	return nil
}

func forgetChild(pid int) {
	children.mu.Lock()
	defer children.mu.Unlock()
	delete(children.pids, pid)
}

func isChild(pid int) bool {
	children.mu.Lock()
	defer children.mu.Unlock()
	_, known := children.pids[pid]
	return known
}
