package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// usage is the resource usage of a process since its start, and its current memory.
type usage struct {
	resident int64 // bytes of memory
	cpu      time.Duration
	written  int64 // bytes written to a disk because of it
	writes   int64 // number of write system calls
}

// tickTime is the unit of the CPU times under /proc.
const tickTime = 10 * time.Millisecond

// usage reads the resource usage of the process from /proc. It needs Linux.
func (p *process) usage() (usage, error) {
	dir := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	resident, _, _ := strings.Cut(procField(dir+"status", "VmRSS"), " ")
	kib, e1 := strconv.ParseInt(resident, 10, 64)
	written, e2 := strconv.ParseInt(procField(dir+"io", "write_bytes"), 10, 64)
	writes, e3 := strconv.ParseInt(procField(dir+"io", "syscw"), 10, 64)
	ticks, e4 := cpuTicks(dir + "stat")
	if err := errors.Join(e1, e2, e3, e4); err != nil {
		return usage{}, fmt.Errorf("this bench needs /proc and cannot read the server's usage from it: %w", err)
	}
	return usage{resident: kib << 10, cpu: time.Duration(ticks) * tickTime, written: written, writes: writes}, nil
}

// cpuTicks returns the sum of the fields utime and stime, the 14th and 15th (proc(5)).
func cpuTicks(file string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	after := text[bytes.LastIndexByte(text, ')')+1:] // the program name before it may contain spaces and parentheses
	fields := strings.Fields(string(after))
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s has %d fields after the name", file, len(fields))
	}
	user, e1 := strconv.ParseInt(fields[11], 10, 64)
	system, e2 := strconv.ParseInt(fields[12], 10, 64)
	return user + system, errors.Join(e1, e2)
}

// cores returns how many cores the process used between two readings.
func (u usage) cores(before usage, duration time.Duration) float64 {
	return (u.cpu - before.cpu).Seconds() / duration.Seconds()
}

// usages reads the usage of several processes.
func usages(processes ...*process) ([]usage, error) {
	all := make([]usage, len(processes))
	for i, p := range processes {
		var err error
		if all[i], err = p.usage(); err != nil {
			return nil, err
		}
	}
	return all, nil
}
