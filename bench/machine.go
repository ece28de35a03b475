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
