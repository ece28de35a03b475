package config

import (
	"fmt"
	"runtime"
	"strings"
)

// Process is the executor that runs a command.
const Process = "process"

// ProcessOptions are the keys of a queue whose executor is process.
type ProcessOptions struct {
	Command []string `yaml:"command"` // the program and its arguments; no shell
	Env     []string `yaml:"env"`     // names of the server's variables that the command gets; it gets no others
	User    string   `yaml:"user"`    // the user that the command runs as; "" for the server's own

	// Limits of each process of the command, on Linux; 0 for none.
	MaxMemory    int64 `yaml:"max_memory_bytes"`
	MaxProcesses int64 `yaml:"max_processes"`
}

func processKind() executorKind {
	return executorKind{
		name:     Process,
		defaults: func(q *Queue) { q.Concurrency = runtime.GOMAXPROCS(0) },
		options:  func(q *Queue) any { return &q.Process },
		check:    checkProcess,
	}
}

func checkProcess(l *loader, q *Queue, key string, _ *Config) {
	p := q.Process
	l.must(len(p.Command) > 0 && p.Command[0] != "", key+".command", "a process queue needs a command: a list, the program first")
	for i, arg := range p.Command {
		at := fmt.Sprintf("%s.command[%d]", key, i)
		l.must(i > 0 || arg != "{file}" && arg != "{files}", at, "this is the program to run; {file} and {files} stand among its arguments")
		l.must(arg == "{files}" || !strings.Contains(arg, "{files}"), at,
			"{files} stands for several arguments, and so is one of its own; the path of a job's one file is {file}")
	}
	l.must(p.MaxMemory >= 0, key+".max_memory_bytes", "this is a number of bytes, or 0 for no limit")
	l.must(p.MaxProcesses >= 0, key+".max_processes", "this is a number of processes, or 0 for no limit")
	for i, name := range p.Env {
		l.must(name != "" && !strings.ContainsAny(name, "=\x00"), fmt.Sprintf("%s.env[%d]", key, i),
			"this must be the name of a variable of the server's own environment, without a value")
	}
}
