//go:build unix

package process

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// voidSink drops all output.
type voidSink struct{ exec.Sink }

func (voidSink) Alive()                      {}
func (voidSink) Text(string) error           { return nil }
func (voidSink) Log(string) error            { return nil }
func (voidSink) Progress(job.Progress) error { return nil }
func (voidSink) Killed() <-chan struct{}     { return nil }

// BenchmarkTalkativeCommand measures how much of the server's time a command takes that prints
// without end.
func BenchmarkTalkativeCommand(b *testing.B) {
	for name, script := range map[string]string{
		"standard error": `exec yes >&2`,
		"single writes":  `while :; do printf 'tick\n' >&2; done`,
		"no lines":       `exec tr '\0' x < /dev/zero >&2`,
		"rewound lines":  `yes x | exec tr '\n' '\r' >&2`,
		"progress":       `exec yes 'progress 1' >&2`,
		"bad characters": `exec tr '\0' '\377' < /dev/zero >&2`,
	} {
		b.Run(name, func(b *testing.B) {
			e, err := New(Config{Command: []string{"sh"}})
			if err != nil {
				b.Fatal(err)
			}
			ctx, stop := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() { done <- e.Execute(ctx, exectest.Task([]byte(script)), voidSink{}) }()
			<-time.After(time.Second) // its log is full then
			before, began := cpuTime(b), time.Now()
			for b.Loop() {
				<-time.After(time.Second)
			}
			b.ReportMetric((cpuTime(b)-before).Seconds()/time.Since(began).Seconds(), "cores")
			stop()
			<-done
		})
	}
}

// cpuTime is the processor time of this process.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
