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
	notifyTimeout   = time.Minute // until every watcher has heard of an end
)

// watchers measures what it costs that so many look on while nothing happens, and
// how soon all of them know of an end.
func (o *Options) watchers(ctx context.Context, f *Figure) error {
	n := o.scaled(watcherCount)
	f.How = fmt.Sprintf("%d idle watchers of one job, by server-sent events, all told of its end at once", n)
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
	f.goalMax("all told after", got.notifyAll.Seconds(), 1, "s")
	return nil
}

// watcherFloor is what the same crowd costs a server that does nothing else.
func (o *Options) watcherFloor(ctx context.Context, n int) (watcherCost, error) {
	o.Step("the floor: as many watchers of a bare HTTP server")
	p, err := start(ctx, o.Floor, o.Log)
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

// watcherCost is what many watchers cost.
type watcherCost struct {
	memoryEach  float64       // KiB of the server's memory
	connectTime time.Duration // until all had their first event
	idleCores   float64       // cores of the server while nothing happened
	notifyAll   time.Duration // from asking for the end to the last one who knows
	notifyHalf  time.Duration // and to the middle one
}

func (c watcherCost) report(f *Figure, of string) {
	f.fact("memory of one"+of, c.memoryEach, "KiB")
	f.fact("all there after"+of, c.connectTime.Seconds(), "s")
	f.fact("CPU while idle"+of, 100*c.idleCores, "% of a core")
	f.fact("half told after"+of, c.notifyHalf.Seconds(), "s")
	f.fact("all told after"+of, c.notifyAll.Seconds(), "s")
}

// watcherCost lets n watchers look at a path, waits, and brings about the end.
func (o *Options) measureWatchers(ctx context.Context, p *process, n int, path string, end func() error) (watcherCost, error) {
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

// openAll opens n streams and waits for the first event of each. What it opened
// before an error it returns too.
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

// notifyWatchers brings about the end, and says after what time half and all of the streams
// had heard of it.
func notifyWatchers(ctx context.Context, streams []*stream, end func() error) (half, all time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, notifyTimeout, fmt.Errorf("not every watcher was told within %s", notifyTimeout))
	defer cancel()
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
		return 0, 0, fmt.Errorf("a watcher was not told: %w", errors.Join(context.Cause(ctx), err))
	}
	took := make([]time.Duration, len(streams))
	for i, at := range heard {
		took[i] = at.Sub(began)
	}
	slices.Sort(took)
	return percentile(took, 50), took[len(took)-1], nil
}
