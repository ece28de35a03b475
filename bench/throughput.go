package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

const (
	sampleInterval = 100 * time.Millisecond // of the backlog
	drainTimeout   = time.Minute            // for the end of the last job
	loadGC         = 400                    // GOGC of the bench, which shares its cores with the server
)

// throughput submits jobs as fast as its connections can, and takes the number of done jobs
// from the totals of the server.
func (o *Options) throughput(ctx context.Context, connections int, r *Report) error {
	o.Step(fmt.Sprintf("throughput: %d connections, %s", connections, o.Duration))
	f := Figure{
		Name: "throughput", Clients: connections, Client: leanClientText,
		How: "jobs from their submit to their end; the latency is that of the acknowledged submit",
	}
	if o.Batch > 0 {
		f.How = fmt.Sprintf("jobs from their submit, %d in a request, to their end; the latency is that of the acknowledged request", o.Batch)
	}
	t, err := o.openTarget(ctx)
	if err != nil {
		return err
	}
	err = o.measureFlow(ctx, t.url, &f)
	cpu := t.close()
	if err != nil {
		return err
	}
	f.Flow.ServerCPU = seconds(cpu)
	if f.Floor, err = o.floorWithBatch(ctx, connections, dialLean, max(o.Batch, 1)); err != nil {
		return err
	}
	r.Figures = append(r.Figures, f)
	return nil
}

// measureFlow runs one throughput measurement.
func (o *Options) measureFlow(ctx context.Context, url string, f *Figure) error {
	load, closeLoad, err := dialLean(ctx, url)
	if err != nil {
		return err
	}
	defer closeLoad()
	look, closeLook, err := dialPlain(ctx, url)
	if err != nil {
		return err
	}
	defer closeLook()
	before, err := look.Queue(ctx, "sim")
	if err != nil {
		return err
	}
	defer debug.SetGCPercent(debug.SetGCPercent(loadGC))

	cpu, began := cpuTime(), time.Now()
	g := startBacklogSampler(ctx, look, began)
	submit, requests := o.submitter(load), newBudget(o.MaxJobs/max(o.Batch, 1), o.Duration)
	if o.Batch > 0 {
		submit = o.batchSubmitter(load, look)
	}
	out, err := runLoad(ctx, f.Clients, requests, submit)
	// Take the times before drain, which is not part of the submits.
	submitted, used := time.Since(began), cpuTime()-cpu
	if err := errors.Join(err, g.stop()); err != nil {
		return err
	}
	atEnd, last, err := drain(ctx, look)
	if err != nil {
		return err
	}
	f.Flow = &Flow{
		Done: last.Totals.Succeeded - before.Totals.Succeeded, Refused: out.refused, ClientCPU: seconds(used),
		BacklogMost: max(g.max, atEnd), BacklogEnd: atEnd, Backlog: g.points,
	}
	return o.fillFigure(f, out, submitted, time.Since(began))
}

// fillFigure computes the rates. submitted is the time until the last submit was answered,
// took the time until the last job was done.
func (o *Options) fillFigure(f *Figure, out loadResult, submitted, took time.Duration) error {
	f.Jobs = len(out.samples) * max(o.Batch, 1)
	f.Seconds, f.PerS, f.Latency = seconds(took), perSecond(int(f.Flow.Done), took), latencyOf(out.samples)
	f.Flow.SubmitSeconds, f.Flow.SubmittedPerS = seconds(submitted), perSecond(f.Jobs, submitted)
	f.Flow.DrainSeconds = seconds(took - submitted)
	// An acknowledged job that is not done is a defect, not a figure.
	if f.Flow.Done < int64(f.Jobs) {
		return fmt.Errorf("%d jobs were acknowledged and only %d are done", f.Jobs, f.Flow.Done)
	}
	switch {
	case o.Database == "" && o.Batch >= minGoalBatch:
		f.goalMin("jobs done", f.PerS, 32_000, "a second")
	case o.Database != "" && o.Batch >= minGoalBatch:
		f.goalMin("jobs done", f.PerS, 14_000, "a second")
	case o.Database != "" && o.Batch == 0 && f.Clients == processConnections:
		f.goalMin("jobs done", f.PerS, 8500, "a second")
	}
	return nil
}

// submitter returns a function that submits one job.
func (o *Options) submitter(c *client.Client) func(context.Context) error {
	template := o.submission()
	var n atomic.Int64
	return func(ctx context.Context) error {
		s := template
		s.Key = o.key(n.Add(1))
		if o.Idempotent {
			s.IdempotencyKey = rand.Text()
		}
		_, err := c.Submit(ctx, s)
		return err
	}
}

// key returns the key of the n-th job. Consecutive jobs have different keys.
func (o *Options) key(n int64) string {
	if o.Keys == 0 {
		return ""
	}
	return "key " + strconv.FormatInt(n%int64(o.Keys), 10)
}

const (
	// maxBacklog is the maximum of unfinished jobs at which batches are submitted.
	maxBacklog = 5000
	// minGoalBatch is the smallest batch for which the goal holds.
	minGoalBatch = 100
)

// batchSubmitter returns a function that submits one batch, after a wait while the backlog
// is too long. It builds the batch only once, because encoding the same jobs each time
// would be a cost of the bench and not of the server.
func (o *Options) batchSubmitter(c, look *client.Client) func(context.Context) error {
	template := o.submission()
	batch := make([]client.Submission, o.Batch)
	for i := range batch {
		batch[i] = template
		batch[i].Key = o.key(int64(i))
	}
	var limit backlogLimit
	return func(ctx context.Context) error {
		if err := limit.wait(ctx, look, o.Batch); err != nil {
			return err
		}
		return submitBatch(ctx, c, batch)
	}
}

// backlogLimit delays submits while too many jobs are unfinished.
type backlogLimit struct {
	mu     sync.Mutex // locked while one caller reads the queue; the others wait for its result
	credit int        // guarded by mu: jobs that may be submitted before the queue is read again
}

func (b *backlogLimit) wait(ctx context.Context, c *client.Client, n int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	// Only one caller reads the queue at a time. Reads by all callers would be an
	// additional load.
	for b.credit < n {
		q, err := c.Queue(ctx, "sim")
		if err != nil {
			return err
		}
		if b.credit = maxBacklog - int(q.Counts.Unfinished()); b.credit >= n {
			break
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	b.credit -= n
	return nil
}

// backlogSampler reads the backlog at fixed intervals while a load runs, and at least
// once.
type backlogSampler struct {
	quit    chan struct{} // closed by stop
	stopped chan struct{} // closed when the goroutine has ended

	// owned by the goroutine until stopped is closed
	points []Point
	max    int64
	err    error
}

func startBacklogSampler(ctx context.Context, c *client.Client, began time.Time) *backlogSampler {
	g := &backlogSampler{quit: make(chan struct{}), stopped: make(chan struct{})}
	go func() {
		defer close(g.stopped)
		g.run(ctx, c, began)
	}()
	return g
}

func (g *backlogSampler) run(ctx context.Context, c *client.Client, began time.Time) {
	tick := time.NewTicker(sampleInterval)
	defer tick.Stop()
	for {
		q, err := c.Queue(ctx, "sim")
		if err != nil {
			g.err = err
			return
		}
		n := q.Counts.Unfinished()
		g.points = append(g.points, Point{seconds(time.Since(began)), n})
		g.max = max(g.max, n)
		select {
		case <-tick.C:
		case <-g.quit:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (g *backlogSampler) stop() error {
	close(g.quit)
	<-g.stopped
	return g.err
}

// drain waits until no job is left, and returns how many were left at its start.
func drain(ctx context.Context, c *client.Client) (atFirst int64, last *client.Queue, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, drainTimeout, fmt.Errorf("the backlog was not done within %s", drainTimeout))
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for first := true; ; first = false {
		q, err := c.Queue(ctx, "sim")
		if err != nil {
			return atFirst, nil, err
		}
		n := q.Counts.Unfinished()
		if first {
			atFirst = n
		}
		if n == 0 {
			return atFirst, q, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return atFirst, nil, context.Cause(ctx)
		}
	}
}
