package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// PIDFile says which attempts are under way, in a file: a server that is killed leaves
// them, and the next one finds what the commands have left. nil notes nothing.
//
// The file has slots of one size. The first says which file it is, and what the numbers of
// processes are of; each other one is of one attempt, or blank. It need not outlive the
// machine: it is not synced.
type PIDFile struct {
	path string // set once

	mu sync.Mutex
	// Guarded by mu.
	file *os.File // nil until there is something to note
	free []int64  // slots that are blank
	last int64    // the last slot that was ever used
}

const (
	slotSize = 96
	// leftoversDie is how long the processes of a killed server may take to be gone.
	leftoversDie = 5 * time.Second
)

// OpenPIDFile opens the notes in the file at path, which need not be there, and first
// kills what is left of the attempts that an earlier server noted. It returns when
// that is gone: call it before any command is run. What cannot be killed is told to
// the log.
func OpenPIDFile(path string, log *slog.Logger) (*PIDFile, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	n := &PIDFile{path: path}
	if len(text) == 0 {
		return n, nil
	}
	here, err := identity(path)
	if err != nil {
		return nil, err
	}
	for _, a := range readNotes(text, here) {
		if !a.killLeftovers(leftoversDie) {
			log.Error("processes of an attempt that was cut off cannot be killed: they run beside the next attempt", "attempt", a.token, "command", a.pid)
		}
	}
	return n, os.Remove(path)
}

// readNotes reads the attempts of a file. Those of a copy of it are another server's.
// A note that was cut short names no process: only the token is known. So does one of
// before the machine or the container was started: by now the number may be of a process
// that is no attempt's.
func readNotes(text []byte, here string) (noted []attempt) {
	slot := func() string {
		var s []byte
		s, text = text[:min(slotSize, len(text))], text[min(slotSize, len(text)):]
		return strings.TrimSpace(string(s))
	}
	file, numbers, _ := strings.Cut(slot(), " ")
	if file != here {
		return nil
	}
	known := numbers == numbering()
	for len(text) > 0 {
		var a attempt
		switch n, _ := fmt.Sscan(slot(), &a.token, &a.pid, &a.start, &a.session); {
		case len(a.token) != tokenSize:
		case n < 4 || !known:
			noted = append(noted, attempt{token: a.token})
		default:
			noted = append(noted, a)
		}
	}
	return noted
}

// numbering names what gives processes their numbers: the start of the machine, and the
// namespace of the container.
func numbering() string {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	space, _ := os.Readlink("/proc/self/ns/pid")
	return strings.ReplaceAll(strings.TrimSpace(string(boot)), "-", "") + " " + space
}

// identity tells a file from a copy of it.
func identity(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("%s has no inode", path)
	}
	return fmt.Sprintf("%x-%x", stat.Dev, stat.Ino), nil
}

// Close closes the file. No attempt may be under way.
func (n *PIDFile) Close() error {
	if n == nil || n.file == nil {
		return nil
	}
	return n.file.Close()
}

// begin notes an attempt, before its command is started.
func (n *PIDFile) begin(a *attempt) error {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		if err := n.createLocked(); err != nil {
			return err
		}
	}
	slot := n.last + 1
	if i := len(n.free) - 1; i >= 0 {
		slot = n.free[i]
	}
	if err := n.writeLocked(slot, a.token); err != nil {
		return err
	}
	if a.slot = slot; slot > n.last {
		n.last = slot
	} else {
		n.free = n.free[:len(n.free)-1]
	}
	return nil
}

func (n *PIDFile) createLocked() error {
	file, err := os.OpenFile(n.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	here, err := identity(n.path)
	if err == nil {
		n.file = file
		err = n.writeLocked(0, here+" "+numbering())
	}
	if err != nil {
		n.file = nil
		_ = file.Close()
	}
	return err
}

func (n *PIDFile) writeLocked(slot int64, text string) error {
	_, err := n.file.WriteAt(fmt.Appendf(nil, "%-*s\n", slotSize-1, text), slot*slotSize)
	return err
}

// started adds the command to the attempt and to its note. Without it what keeps the token in its
// environment is found all the same.
func (n *PIDFile) started(a *attempt, pid int) {
	if p, ok := processOf(pid); ok {
		a.pid, a.start, a.session = pid, p.start, p.session
		if n == nil {
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		_ = n.writeLocked(a.slot, fmt.Sprint(a.token, " ", a.pid, " ", a.start, " ", a.session))
	}
}

// over takes the note away.
func (n *PIDFile) over(a *attempt) {
	if n == nil || a.slot == 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.writeLocked(a.slot, "") == nil {
		n.free = append(n.free, a.slot)
	}
	a.slot = 0
}

// killLeftovers kills every process of the attempt that it finds, until it finds none.
// False when some are still there after that time.
//
// It stops them all before it kills the first: one that is just being started is told
// by what started it, which must not be gone before it was looked for; and what is
// stopped starts no more.
func (a *attempt) killLeftovers(within time.Duration) bool {
	pause := time.Millisecond
	stopped := map[process]bool{}
	for begun := time.Now(); ; {
		left := a.processes()
		if len(left) == 0 {
			left = a.processes() // one may have been started while the first list was made
		}
		if len(left) == 0 {
			return true
		}
		late, more := time.Since(begun) > within, false
		for _, p := range left {
			if id := (process{pid: p.pid, start: p.start}); !stopped[id] {
				stopped[id], more = true, true
				p.signal(syscall.SIGSTOP)
			}
		}
		if more && !late {
			continue
		}
		for _, p := range left {
			p.signal(syscall.SIGKILL)
		}
		if late {
			return false
		}
		time.Sleep(pause)
		pause = min(2*pause, 100*time.Millisecond)
	}
}

// processes are those of the attempt that live: those with its token in their
// environment, those in the group that its command leads, and all that descend from
// them. This process and those that it descends from are never among them.
func (a *attempt) processes() (found []process) {
	all := allProcesses()
	spared := map[int]bool{}
	for pid := os.Getpid(); pid > 0 && !spared[pid]; pid = all[pid].parent {
		spared[pid] = true
	}
	of := map[int]bool{}
	for pid, p := range all {
		of[pid] = !spared[pid] && (a.leads(p) || a.marks(pid))
	}
	for more := true; more; {
		more = false
		for pid, p := range all {
			if of[p.parent] && !of[pid] && !spared[pid] {
				of[pid], more = true, true
			}
		}
	}
	for pid, p := range all {
		if of[pid] && !p.dead {
			found = append(found, p)
		}
	}
	return found
}

// leads says whether a process is in the group of the attempt's command. The number of
// a group is used again when all of it are gone; so the session must be the same, and
// the process not older than the command.
func (a *attempt) leads(p process) bool {
	return a.pid > 0 && p.group == a.pid && p.session == a.session && p.start >= a.start
}

// marks says whether a process has the attempt's token in the environment that it was
// started with.
func (a *attempt) marks(pid int) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false // gone, or another user's
	}
	return slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool {
		return string(v) == attemptVariable+"="+a.token
	})
}

// process is a process as /proc shows it (proc_pid_stat(5)).
type process struct {
	pid, parent, group, session int
	start                       uint64 // in ticks since the machine was started
	dead                        bool   // and not waited for
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
			if p, ok := processOf(pid); ok {
				all[pid] = p
			}
		}
	}
	return all
}

// processOf reads of a process; false when there is none.
func processOf(pid int) (process, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, false
	}
	// The name of the program is in brackets and may hold some itself.
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

// signal signals the process and no other: its number may have been given to another one
// since it was read.
func (p process) signal(signal syscall.Signal) {
	handle, err := os.FindProcess(p.pid) // from here on it is this one, whatever its number
	if err != nil {
		return
	}
	defer handle.Release()
	if now, ok := processOf(p.pid); ok && now.start == p.start {
		_ = handle.Signal(signal)
	}
}
