package bench

import (
	"context"
	"time"
)

// restTime is how long a server that has just started is left alone before it is
// looked at.
const restTime = 2 * time.Second

// idle measures a server that has nothing to do.
func (o *Options) idle(ctx context.Context, f *Figure) error {
	f.How = "a server with nothing to do, " + o.Duration.String() + " of it"
	o.Step("idle: " + f.How)
	t, err := o.openOwn(ctx, "")
	if err != nil {
		return err
	}
	defer t.close()
	if err := pause(ctx, min(restTime, o.Duration)); err != nil {
		return err
	}
	before, err := t.proc.usage()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := pause(ctx, o.Duration); err != nil {
		return err
	}
	after, err := t.proc.usage()
	if err != nil {
		return err
	}
	f.fact("calls that wrote anything", float64(after.writes-before.writes), "")
	f.most("memory", mib(after.resident), 30, "MiB")
	f.most("written to the disk", float64(after.written-before.written), 0, "bytes")
	f.most("CPU", 100*after.cores(before, time.Since(began)), 1, "% of a core")
	return nil
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
