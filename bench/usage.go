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

// usage is what a process has used up to now, and the memory that it holds.
type usage struct {
	resident int64 // bytes of memory
	cpu      time.Duration
	written  int64 // bytes that it caused to be written to a disk
	writes   int64 // calls that wrote to anything
}

// tickTime is the unit of the CPU times under /proc.
const tickTime = 10 * time.Millisecond

// usage reads what the kernel knows of the process. Only Linux tells.
func (p *process) usage() (usage, error) {
	dir := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	resident, _, _ := strings.Cut(procField(dir+"status", "VmRSS"), " ")
	kib, e1 := strconv.ParseInt(resident, 10, 64)
	written, e2 := strconv.ParseInt(procField(dir+"io", "write_bytes"), 10, 64)
	writes, e3 := strconv.ParseInt(procField(dir+"io", "syscw"), 10, 64)
	ticks, e4 := cpuTicks(dir + "stat")
	if err := errors.Join(e1, e2, e3, e4); err != nil {
		return usage{}, fmt.Errorf("what the server uses cannot be read from /proc, which this bench needs: %w", err)
	}
	return usage{resident: kib << 10, cpu: time.Duration(ticks) * tickTime, written: written, writes: writes}, nil
}

// cpuTicks are the fields utime and stime, the 14th and 15th (proc(5)).
func cpuTicks(file string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	after := text[bytes.LastIndexByte(text, ')')+1:] // the name before it may hold anything
	fields := strings.Fields(string(after))
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s has %d fields after the name", file, len(fields))
	}
	user, e1 := strconv.ParseInt(fields[11], 10, 64)
	system, e2 := strconv.ParseInt(fields[12], 10, 64)
	return user + system, errors.Join(e1, e2)
}

// cores is how many processors were busy with the process between two readings.
func (u usage) cores(before usage, took time.Duration) float64 {
	return (u.cpu - before.cpu).Seconds() / took.Seconds()
}

// usages reads what several processes use.
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
