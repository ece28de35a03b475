package process

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reapInterval is the shortest time between two searches for orphans, each of which reads /proc.
const reapInterval = time.Second

// ReapOrphans waits for the processes that commands have left behind and that have ended, until
// ctx ends. The kernel gives orphans to the first process of a container, PID 1, and they stay as
// zombies until that waits for them. In any other process it returns at once. It is for a process
// whose only children are commands: it would take the exit status of others.
func ReapOrphans(ctx context.Context) {
	if os.Getpid() == 1 {
		reapUntil(ctx)
	}
}

func reapUntil(ctx context.Context) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	for {
		reapOrphans()
		select {
		case <-ended:
		case <-ctx.Done():
			return
		}
		select { // signals in quick succession are one search
		case <-time.After(reapInterval):
		case <-ctx.Done():
			return
		}
	}
}

// reapOrphans waits for every zombie of this process that no one else waits for.
func reapOrphans() {
	// A command that is being started is not among the known children yet.
	children.starting.Lock()
	defer children.starting.Unlock()
	for pid, p := range allProcesses() {
		if p.parent == os.Getpid() && p.dead && !isChild(pid) {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
	}
}
