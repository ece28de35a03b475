package bench

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// talkingQueue adds a queue to [simQueue] whose command prints without end, as fast as it may.
const talkingQueue = `  talk:
    executor: process
    command: [sh, -c, "exec yes >&2"]
    env: [PATH]
    concurrency: 1
`

// commandIsolation measures the latency of reads of a status while a command prints without end.
func (o *Options) commandIsolation(ctx context.Context, f *Figure) error {
	f.How = "GET /v1/jobs/{id} while a command prints without end, beside an idle server"
	t, err := o.startTarget(ctx, simQueue(1, 100)+talkingQueue)
	if err != nil {
		return err
	}
	defer t.close()
	c, closeClient, err := t.client()
	if err != nil {
		return err
	}
	defer closeClient()
	read, err := c.Submit(ctx, client.Submission{Queue: "sim", Input: map[string]any{"tokens": 1}})
	if err != nil {
		return err
	}
	path, isJob := "/v1/jobs/"+read.ID, func(body string) bool { return strings.Contains(body, read.ID) }
	o.Step("isolation: the idle server")
	idle, err := o.readAll(ctx, t, path, isJob)
	if err != nil {
		return err
	}
	o.Step("isolation: beside a command that prints")
	talker, err := c.Submit(ctx, client.Submission{Queue: "talk"})
	if err != nil {
		return err
	}
	stat := fmt.Sprintf("/proc/%d/stat", t.proc.cmd.Process.Pid)
	before, err := cpuTicks(stat)
	if err != nil {
		return err
	}
	began := time.Now()
	loaded, err := o.readAll(ctx, t, path, isJob)
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := cpuTicks(stat)
	if err != nil {
		return err
	}
	if talker, err = c.Get(ctx, talker.ID); err != nil {
		return err
	} else if talker.Status != client.Running {
		return fmt.Errorf("the command that prints without end is %s", talker.Status)
	}
	f.fact("readers", readers, fmt.Sprintf("connections, a request every %s each, %s long", readInterval, o.Duration))
	f.fact("server's CPU beside the command", 100*(time.Duration(after-before)*tickTime).Seconds()/took.Seconds(), "% of a core, reads included")
	beside := f.spread("idle", idle)
	under := f.spread("beside the command", loaded)
	f.fact("P99 beside the command, beside idle", under.P99/beside.P99, "times")
	f.goalMax("P99 beside the command", under.P99, 10, "ms")
	return nil
}
