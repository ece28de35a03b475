package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

const (
	watcherCount    = 10_000
	dialConcurrency = 64
	// notifyTimeout limits the wait until every watcher has read the end.
	notifyTimeout = time.Minute
)

// watchers measures the cost of many watchers of a silent job, and how fast all of them
// learn of its end.
func (o *Options) watchers(ctx context.Context, f *Figure) error {
	n := o.scaled(watcherCount)
	f.How = fmt.Sprintf("%d idle watchers of one job, by server-sent events, which all read its end at once", n)
	t, err := o.startTarget(ctx, simQueue(1, 10))
	if err != nil {
		return err
	}
	defer t.close()
	c, closeClient, err := t.client()
	if err != nil {
		return err
	}
	defer closeClient()
	j, err := c.Submit(ctx, client.Submission{Queue: "sim", Input: input(o.Payload), Delay: time.Hour})
	if err != nil {
		return err
	}
	o.Step("watchers: " + f.How)
	got, err := o.measureWatchers(ctx, t.proc, n, "/v1/jobs/"+j.ID+"/events", func() error {
		_, err := c.Cancel(ctx, j.ID)
		return err
	})
	if err != nil {
		return err
	}
	floor, err := o.watcherFloor(ctx, n)
	if err != nil {
		return err
	}
	got.report(f, "")
	floor.report(f, ", bare net/http")
	f.goalMax("memory of a watcher", got.memoryEach, 16, "KiB")
	f.goalMax("all notified after", got.notifyAll.Seconds(), 1, "s")
	return nil
}

// watcherFloor measures the same watchers on a bare HTTP server.
func (o *Options) watcherFloor(ctx context.Context, n int) (watcherCost, error) {
	o.Step("the floor: as many watchers of a bare HTTP server")
	p, err := start(ctx, o.Floor, nil, o.Log)
	if err != nil {
		return watcherCost{}, err
	}
	defer p.stop()
	t := &target{url: p.url}
	return o.measureWatchers(ctx, p, n, floorEvents, func() error {
		_, err := t.post(ctx, floorEnd, "")
		return err
	})
}

// watcherCost is the cost of many watchers.
type watcherCost struct {
	memoryEach  float64       // memory of the server per watcher, in KiB
	connectTime time.Duration // time until all had their first event
	idleCores   float64       // cores used by the server while nothing happened
	notifyAll   time.Duration // time from the call of end until the last watcher has read the end
	notifyHalf  time.Duration // time until half of the watchers have read it
}

func (c watcherCost) report(f *Figure, of string) {
	f.fact("memory of one"+of, c.memoryEach, "KiB")
	f.fact("all there after"+of, c.connectTime.Seconds(), "s")
	f.fact("CPU while idle"+of, 100*c.idleCores, "% of a core")
	f.fact("half notified after"+of, c.notifyHalf.Seconds(), "s")
	f.fact("all notified after"+of, c.notifyAll.Seconds(), "s")
}

// measureWatchers opens n streams of a path, waits for the duration, and calls end, which
// must end all streams.
func (o *Options) measureWatchers(ctx context.Context, p *process, n int, path string, end func() error) (watcherCost, error) {
	// Memory is measured as the difference, because the server itself has some.
	before, err := p.usage()
	if err != nil {
		return watcherCost{}, err
	}
	var c watcherCost
	began := time.Now()
	streams, err := openAll(ctx, n, host(p.url), path)
	defer closeAll(streams)
	if err != nil {
		return c, err
	}
	c.connectTime = time.Since(began)
	quiet, err := p.usage()
	if err != nil {
		return c, err
	}
	began = time.Now()
	if err := sleep(ctx, o.Duration); err != nil {
		return c, err
	}
	during, err := p.usage()
	if err != nil {
		return c, err
	}
	c.idleCores = during.cores(quiet, time.Since(began))
	c.memoryEach = kib(during.resident-before.resident) / float64(n)
	c.notifyHalf, c.notifyAll, err = notifyWatchers(ctx, streams, end)
	return c, err
}

// openAll opens n streams and waits for the first event of each. After an error it also
// returns the streams that it has opened.
func openAll(ctx context.Context, n int, addr, path string) ([]*stream, error) {
	streams := make([]*stream, n)
	dialing, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	dialers := min(n, dialConcurrency)
	var all sync.WaitGroup
	for i := range dialers {
		all.Go(func() {
			for at := i; at < n && dialing.Err() == nil; at += dialers {
				s, err := openStream(ctx, addr, getRequest(addr, path))
				if err == nil {
					streams[at] = s
					err = s.readUntil("snapshot")
				}
				if err != nil {
					stop(fmt.Errorf("watcher %d of %d: %w", at+1, n, err))
				}
			}
		})
	}
	all.Wait()
	return streams, context.Cause(dialing)
}

func closeAll(streams []*stream) {
	for _, s := range streams {
		if s != nil {
			s.close()
		}
	}
}

// notifyWatchers calls end, and returns the times until half and until all of the streams
// have read the last event.
func notifyWatchers(ctx context.Context, streams []*stream, end func() error) (half, all time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, notifyTimeout, fmt.Errorf("not every watcher read the end within %s", notifyTimeout))
	defer cancel()
	// A read cannot be cancelled. Closing the connection ends it.
	defer context.AfterFunc(ctx, func() { closeAll(streams) })()
	heard, errs := make([]time.Time, len(streams)), make([]error, len(streams))
	var listening sync.WaitGroup
	for i, s := range streams {
		listening.Go(func() {
			errs[i] = s.readUntil("done")
			heard[i] = time.Now()
		})
	}
	began := time.Now()
	if err = end(); err != nil {
		cancel()
	}
	listening.Wait()
	if err = errors.Join(err, cmp.Or(errs...)); err != nil {
		return 0, 0, fmt.Errorf("a watcher did not read the end: %w", errors.Join(context.Cause(ctx), err))
	}
	took := make([]time.Duration, len(streams))
	for i, at := range heard {
		took[i] = at.Sub(began)
	}
	slices.Sort(took)
	return percentile(took, 50), took[len(took)-1], nil
}
