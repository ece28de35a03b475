package process

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// PIDFile records the running attempts in a file. When a server is killed, the file remains, and
// the next server finds the attempts' processes with it. A nil PIDFile records nothing.
//
// The file consists of slots of equal size. Slot 0 identifies the file and the PID space of its
// process numbers. Every other slot records one attempt or is blank. The file is not synced,
// because it is not needed after a reboot.
type PIDFile struct {
	path string // set once

	mu sync.Mutex
	// guarded by mu
	file *os.File // nil until there is an attempt to record
	free []int64  // blank slots
	last int64    // the largest number of a slot used so far
}

const (
	slotSize = 96
	// leftoversTimeout is how long the next server waits for the end of the killed processes.
	leftoversTimeout = 5 * time.Second
)

// OpenPIDFile first kills the remaining processes of the attempts that an earlier server
// recorded in the file at path, waits for their end, and removes the file. Call it before any
// command runs. It logs the processes that it cannot kill. The file need not exist.
func OpenPIDFile(path string, log *slog.Logger) (*PIDFile, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	p := &PIDFile{path: path}
	if len(text) == 0 {
		return p, nil
	}
	here, err := fileIdentity(path)
	if err != nil {
		return nil, err
	}
	for _, a := range parseAttempts(text, here) {
		if !a.killLeftovers(leftoversTimeout) {
			log.Error("processes of an interrupted attempt cannot be killed; they run beside the next attempt", "attempt", a.token, "command", a.pid)
		}
	}
	return p, os.Remove(path)
}

// parseAttempts parses the attempts in a PID file. It returns none if the file is a copy,
// because then the attempts belong to another server. It returns only the token of an incomplete
// entry, and of an entry from before the last boot of the machine or container: the process
// number may belong to an unrelated process now.
func parseAttempts(text []byte, here string) (attempts []attempt) {
	slot := func() string {
		var s []byte
		s, text = text[:min(slotSize, len(text))], text[min(slotSize, len(text)):]
		return strings.TrimSpace(string(s))
	}
	file, space, _ := strings.Cut(slot(), " ")
	if file != here {
		return nil
	}
	samePIDs := space == pidSpace()
	for len(text) > 0 {
		var a attempt
		switch n, _ := fmt.Sscan(slot(), &a.token, &a.pid, &a.start, &a.session); {
		case len(a.token) != tokenSize: // blank or invalid
		case n < 4 || !samePIDs:
			attempts = append(attempts, attempt{token: a.token})
		default:
			attempts = append(attempts, a)
		}
	}
	return attempts
}

// pidSpace identifies the space of process numbers: the boot of the machine, and the PID
// namespace of the container.
func pidSpace() string {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	namespace, _ := os.Readlink("/proc/self/ns/pid")
	return strings.ReplaceAll(strings.TrimSpace(string(boot)), "-", "") + " " + namespace
}

// fileIdentity returns an identity of the file that differs from that of a copy.
func fileIdentity(path string) (string, error) {
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

// Close closes the file. No attempt may be running.
func (p *PIDFile) Close() error {
	if p == nil || p.file == nil {
		return nil
	}
	return p.file.Close()
}

// addAttempt records an attempt before its command starts.
func (p *PIDFile) addAttempt(a *attempt) error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file == nil {
		if err := p.createLocked(); err != nil {
			return err
		}
	}
	slot := p.last + 1
	// Reuse a blank slot, so that the file has no more slots than attempts ran at once.
	if i := len(p.free) - 1; i >= 0 {
		slot = p.free[i]
	}
	if err := p.writeLocked(slot, a.token); err != nil {
		return err
	}
	if a.slot = slot; slot > p.last {
		p.last = slot
	} else {
		p.free = p.free[:len(p.free)-1]
	}
	return nil
}

func (p *PIDFile) createLocked() error {
	file, err := os.OpenFile(p.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	here, err := fileIdentity(p.path)
	if err == nil {
		p.file = file
		err = p.writeLocked(0, here+" "+pidSpace())
	}
	if err != nil {
		p.file = nil
		_ = file.Close()
	}
	return err
}

func (p *PIDFile) writeLocked(slot int64, text string) error {
	_, err := p.file.WriteAt(fmt.Appendf(nil, "%-*s\n", slotSize-1, text), slot*slotSize)
	return err
}

// addCommand adds the command to the attempt and to its entry. If it fails, the next server
// still finds the processes that have the token in their environment.
func (p *PIDFile) addCommand(a *attempt, pid int) {
	if proc, ok := readProcess(pid); ok {
		a.pid, a.start, a.session = pid, proc.start, proc.session
		if p == nil {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		_ = p.writeLocked(a.slot, fmt.Sprint(a.token, " ", a.pid, " ", a.start, " ", a.session))
	}
}

// removeAttempt blanks the entry of an attempt.
func (p *PIDFile) removeAttempt(a *attempt) {
	if p == nil || a.slot == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.writeLocked(a.slot, "") == nil {
		p.free = append(p.free, a.slot)
	}
	a.slot = 0
}
