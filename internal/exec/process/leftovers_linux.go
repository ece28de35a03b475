package process

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// killLeftovers kills the attempt's processes until it finds none. It returns false if some
// still exist after the time limit.
//
// It stops all of them before it kills the first one, for two reasons. A stopped process starts
// no other processes. And a new process is found through its parent, which must not be killed
// before the search for its children.
func (a *attempt) killLeftovers(within time.Duration) bool {
	pause := time.Millisecond
	stopped := map[process]bool{}
	for start := time.Now(); ; {
		left := a.processes()
		if len(left) == 0 {
			left = a.processes() // one may have been started while the first list was made
		}
		if len(left) == 0 {
			return true
		}
		late, found := time.Since(start) > within, false
		for _, p := range left {
			if id := (process{pid: p.pid, start: p.start}); !stopped[id] {
				stopped[id], found = true, true
				p.signal(syscall.SIGSTOP)
			}
		}
		// A process that was not stopped before may have started others since, so search again.
		if found && !late {
			continue
		}
		for _, p := range left {
			p.signal(syscall.SIGKILL)
		}
		// Some processes cannot be killed, such as a process that the kernel blocks in I/O.
		if late {
			return false
		}
		time.Sleep(pause)
		pause = min(2*pause, 100*time.Millisecond)
	}
}

// processes returns the running processes of the attempt: those with its token in their
// environment, those in its command's group, and the descendants of both. This process and its
// ancestors are never among them.
func (a *attempt) processes() (found []process) {
	all := allProcesses()
	excluded := map[int]bool{} // this process and its ancestors
	for pid := os.Getpid(); pid > 0 && !excluded[pid]; pid = all[pid].parent {
		excluded[pid] = true
	}
	ours := map[int]bool{}
	for pid, p := range all {
		ours[pid] = !excluded[pid] && (a.inGroup(p) || a.hasToken(pid))
	}
	// Add descendants until there are no more.
	for added := true; added; {
		added = false
		for pid, p := range all {
			if ours[p.parent] && !ours[pid] && !excluded[pid] {
				ours[pid], added = true, true
			}
		}
	}
	for pid, p := range all {
		if ours[pid] && !p.dead {
			found = append(found, p)
		}
	}
	return found
}

// inGroup reports whether a process is in the group of the attempt's command. The kernel reuses
// a group's number after its end, so the session must be the same, and the process must not be
// older than the command.
func (a *attempt) inGroup(p process) bool {
	return a.pid > 0 && p.group == a.pid && p.session == a.session && p.start >= a.start
}

// hasToken reports whether a process was started with the attempt's token in its environment.
func (a *attempt) hasToken(pid int) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false // it has ended, or belongs to another user
	}
	return slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool {
		return string(v) == attemptVar+"="+a.token
	})
}

// process is an entry of /proc (see proc_pid_stat(5)).
type process struct {
	pid, parent, group, session int
	start                       uint64 // in clock ticks since boot
	dead                        bool   // a zombie
}

func allProcesses() map[int]process {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	all := make(map[int]process, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if p, ok := readProcess(pid); ok {
				all[pid] = p
			}
		}
	}
	return all
}

// readProcess reads a process from /proc; ok is false if it does not exist.
func readProcess(pid int) (process, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, false
	}
	// The program's name is in parentheses and may contain parentheses itself.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const state, parent, group, session, start = 0, 1, 2, 3, 19
	if len(fields) <= start {
		return process{}, false
	}
	number := func(i int) int {
		n, _ := strconv.Atoi(fields[i])
		return n
	}
	p := process{pid: pid, parent: number(parent), group: number(group), session: number(session)}
	p.start, err = strconv.ParseUint(fields[start], 10, 64)
	p.dead = fields[state] == "Z" || fields[state] == "X"
	return p, err == nil
}

// signal sends a signal to this process. It sends nothing if another process has its number by
// now.
func (p process) signal(signal syscall.Signal) {
	// A pidfd refers to one process, even if its number is reused.
	handle, err := os.FindProcess(p.pid)
	if err != nil {
		return
	}
	defer handle.Release()
	if now, ok := readProcess(p.pid); ok && now.start == p.start {
		_ = handle.Signal(signal)
	}
}
