package bench

import (
	"context"
	"time"
)

// settleTime is the wait after a start before a server is measured.
const settleTime = 2 * time.Second

// idle measures a server without work.
func (o *Options) idle(ctx context.Context, f *Figure) error {
	f.How = "a server with nothing to do, " + o.Duration.String() + " of it"
	o.Step("idle: " + f.How)
	t, err := o.startTarget(ctx, "")
	if err != nil {
		return err
	}
	defer t.close()
	// The work of the start, such as opening the database, is not idle time.
	if err := sleep(ctx, min(settleTime, o.Duration)); err != nil {
		return err
	}
	before, err := t.proc.usage()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := sleep(ctx, o.Duration); err != nil {
		return err
	}
	after, err := t.proc.usage()
	if err != nil {
		return err
	}
	f.fact("calls that wrote anything", float64(after.writes-before.writes), "")
	f.goalMax("memory", mib(after.resident), 30, "MiB")
	f.goalMax("written to the disk", float64(after.written-before.written), 0, "bytes")
	f.goalMax("CPU", 100*after.cores(before, time.Since(began)), 1, "% of a core")
	return nil
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
