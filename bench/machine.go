package bench

import (
	"bufio"
	"bytes"
	"cmp"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Machine is what a figure was measured on.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"` // that this process may use
	Memory int64  `json:"memory_bytes"`
	OS     string `json:"os"`
	Go     string `json:"go"`
}

// thisMachine describes itself as far as it can: what is not known is left out.
func thisMachine() Machine {
	memory, _, _ := strings.Cut(procField("/proc/meminfo", "MemTotal"), " ")
	kib, _ := strconv.ParseInt(memory, 10, 64)
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return Machine{
		CPU:    cmp.Or(procField("/proc/cpuinfo", "model name"), runtime.GOARCH),
		Cores:  runtime.GOMAXPROCS(0),
		Memory: kib << 10,
		OS:     strings.TrimSpace(runtime.GOOS + "/" + runtime.GOARCH + " " + string(bytes.TrimSpace(kernel))),
		Go:     runtime.Version(),
	}
}

// procField is the first "name: value" of a file under /proc; "" elsewhere.
func procField(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		field, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(field) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// cpuTime is what this process has used up to now, on all cores.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// processTreeTime is what this process and the servers that it has started and seen end
// have used up to now.
func processTreeTime() time.Duration {
	var children syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &children); err != nil {
		return cpuTime()
	}
	return cpuTime() + time.Duration(children.Utime.Nano()+children.Stime.Nano())
}

// machineTime is what all programs of the machine have used of its processors since it
// started; false where the kernel does not say (proc(5), /proc/stat).
func machineTime() (time.Duration, bool) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, false
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, false
	}
	var ticks int64
	for i, field := range fields[1:9] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, false
		}
		if i != 3 && i != 4 { // idle, and idle while a disk works
			ticks += n
		}
	}
	return time.Duration(ticks) * tickTime, true
}

// otherLoad measures what other programs take of the processors while a bench runs:
// a figure that was taken in company says less.
type otherLoad struct {
	began     time.Time
	own, busy time.Duration
}

func startOtherLoad() otherLoad {
	busy, _ := machineTime()
	return otherLoad{time.Now(), processTreeTime(), busy}
}

// cores is how many processors were busy with others; 0 where that is unknown.
func (c otherLoad) cores() float64 {
	busy, known := machineTime()
	if !known {
		return 0
	}
	others := (busy - c.busy) - (processTreeTime() - c.own)
	return max(0, others.Seconds()/time.Since(c.began).Seconds())
}
