package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of the CPU times under /proc.
const tick = 10 * time.Millisecond

// treeCPU returns the CPU time of a process, of all that it has started, and of those of them that
// have ended. It needs Linux.
func treeCPU(root int) (time.Duration, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	type process struct {
		parent int
		ticks  int64
	}
	all := map[int]process{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended meanwhile, and its parent has its time
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		parent, ticks, err := parseStat(text)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		all[pid] = process{parent, ticks}
	}
	if _, ok := all[root]; !ok {
		return 0, fmt.Errorf("the process %d has ended", root)
	}
	var sum int64
	for pid, p := range all {
		at := pid
		for at != root && at > 1 {
			at = all[at].parent
		}
		if at == root {
			sum += p.ticks
		}
	}
	return time.Duration(sum) * tick, nil
}

// parseStat returns a process's parent and its CPU time with that of its ended children: the fields
// ppid, utime, stime, cutime and cstime of proc(5).
func parseStat(text []byte) (parent int, ticks int64, err error) {
	after := text[bytes.LastIndexByte(text, ')')+1:] // the name before it may contain anything
	fields := strings.Fields(string(after))
	if len(fields) < 15 {
		return 0, 0, fmt.Errorf("%d fields after the name", len(fields))
	}
	if parent, err = strconv.Atoi(fields[1]); err != nil {
		return 0, 0, err
	}
	for _, field := range fields[11:15] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		ticks += n
	}
	return parent, ticks, nil
}

// thisMachine describes the machine in a few words.
func thisMachine() string {
	name := runtime.GOARCH
	text, _ := os.ReadFile("/proc/cpuinfo")
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if field, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(field) == "model name" {
			name = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%s, %d cores", name, runtime.NumCPU())
}
