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

// Machine describes the machine of a measurement.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"` // usable by this process
	Memory int64  `json:"memory_bytes"`
	OS     string `json:"os"`
	Go     string `json:"go"`
}

// thisMachine describes this machine. Unknown values stay empty.
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

// procField returns the value of the first "name: value" line of a file under /proc. It
// returns "" without such a line, and on systems other than Linux.
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

// cpuTime returns the CPU time of this process, on all cores.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// processTreeTime returns the CPU time of this process and of the servers that it started
// and that have ended.
func processTreeTime() time.Duration {
	var children syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &children); err != nil {
		return cpuTime()
	}
	return cpuTime() + time.Duration(children.Utime.Nano()+children.Stime.Nano())
}

// machineTime returns the CPU time of all programs since the machine started; false where
// the kernel does not provide it (proc(5), /proc/stat).
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
		// Programs used the time of every field except the idle ones.
		if i != 3 && i != 4 { // idle and iowait
			ticks += n
		}
	}
	return time.Duration(ticks) * tickTime, true
}

// otherLoad measures how many cores other programs use while a bench runs. A figure with
// much other load is not reliable.
type otherLoad struct {
	began     time.Time
	own, busy time.Duration
}

func startOtherLoad() otherLoad {
	busy, _ := machineTime()
	return otherLoad{time.Now(), processTreeTime(), busy}
}

// cores returns how many cores other programs used; 0 when unknown.
func (c otherLoad) cores() float64 {
	busy, known := machineTime()
	if !known {
		return 0
	}
	others := (busy - c.busy) - (processTreeTime() - c.own)
	return max(0, others.Seconds()/time.Since(c.began).Seconds())
}
