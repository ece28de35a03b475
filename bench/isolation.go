package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

const (
	writingJobs     = 5000
	wordsPerJob     = 60 // at two per second: 30 seconds
	wordsPerSecond  = 2
	maxMemoryPerJob = 24 // KiB
	readers         = 8
	readInterval    = 40 * time.Millisecond // of each reader
	conversations   = 20
	submitters      = 32 // connections
)

// outputIsolation measures the latency of reads while thousands of jobs write output.
func (o *Options) outputIsolation(ctx context.Context, f *Figure) error {
	n := o.scaled(writingJobs)
	f.How = fmt.Sprintf("GET /api/conversations while %d jobs of %d s write %d words a second each, beside an idle server", n, wordsPerJob/wordsPerSecond, wordsPerSecond)
	t, err := o.startTarget(ctx, simQueue(n, 2*n+100))
	if err != nil {
		return err
	}
	defer t.close()
	for i := range conversations {
		if _, err := t.post(ctx, "/api/conversations", fmt.Sprintf(`{"title":"the conversation number %d of this user"}`, i)); err != nil {
			return err
		}
	}
	o.Step("isolation: the idle server")
	// Measure the idle server first: the load is compared with its latency.
	idle, err := o.readAll(ctx, t, conversationsPath, checkConversations)
	if err != nil {
		return err
	}
	before, err := t.proc.usage()
	if err != nil {
		return err
	}
	o.Step(fmt.Sprintf("isolation: %d jobs", n))
	if err := o.startWritingJobs(ctx, t, n); err != nil {
		return err
	}
	start, err := t.proc.usage()
	if err != nil {
		return err
	}
	began := time.Now()
	loaded, err := o.readAll(ctx, t, conversationsPath, checkConversations)
	if err != nil {
		return err
	}
	return o.reportIsolation(ctx, t, f, isolationSamples{n, idle, loaded, before, start, time.Since(began)})
}

// isolationSamples has the measurements of isolation.
type isolationSamples struct {
	jobs                   int
	idle, loaded           []time.Duration
	idleUsage, loadedUsage usage // of the idle server, and while all jobs ran
	duration               time.Duration
}

func (o *Options) reportIsolation(ctx context.Context, t *target, f *Figure, r isolationSamples) error {
	end, err := t.proc.usage()
	if err != nil {
		return err
	}
	late, err := outputDelays(ctx, t, r.jobs)
	if err != nil {
		return err
	}
	f.fact("readers", readers, fmt.Sprintf("connections, a request every %s each, %s long", readInterval, o.Duration))
	idle, loaded := f.spread("idle", r.idle), f.spread("under load", r.loaded)
	f.fact("server's CPU under load", 100*end.cores(r.loadedUsage, r.duration), "% of a core")
	f.fact("written under load", mib(end.written-r.loadedUsage.written)/r.duration.Seconds(), "MiB/s")
	f.spread("words behind their time", late)
	f.goalMax("P99 under load", loaded.P99, 10, "ms")
	f.goalMax("P99 under load beside idle", loaded.P99/idle.P99, 3, "times")
	f.goalMax("memory of a job", kib(end.resident-r.idleUsage.resident)/float64(r.jobs), maxMemoryPerJob, "KiB")
	return nil
}

// startWritingJobs submits the jobs that write output, and returns when all of them run.
func (o *Options) startWritingJobs(ctx context.Context, t *target, n int) error {
	c, closeClient, err := t.client()
	if err != nil {
		return err
	}
	defer closeClient()
	s := client.Submission{Queue: "sim", Input: map[string]any{"tokens": wordsPerJob, "tokens_per_s": wordsPerSecond}}
	_, err = runLoad(ctx, submitters, newBudget(n, 0), func(ctx context.Context) error {
		_, err := c.Submit(ctx, s)
		return err
	})
	if err != nil {
		return err
	}
	for {
		q, err := c.Queue(ctx, "sim")
		if err != nil || q.Counts.Running == int64(n) {
			return err
		}
		// Fewer jobs would write than the figure claims.
		if q.Counts.Unfinished() < int64(n) {
			return fmt.Errorf("of %d jobs some ended before all of them ran: the machine is too slow for so many", n)
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// outputDelays returns the delays of the output of up to 100 running jobs. The result is only
// right while the jobs run.
func outputDelays(ctx context.Context, t *target, n int) ([]time.Duration, error) {
	c, closeClient, err := t.client()
	if err != nil {
		return nil, err
	}
	defer closeClient()
	page, err := c.Page(ctx, client.ListOptions{Filter: client.Filter{Queue: "sim", Status: client.Running}, Limit: min(n, 100)})
	if err != nil {
		return nil, err
	}
	var delays []time.Duration
	for _, j := range page.Jobs {
		now := time.Now()
		j, err := c.Get(ctx, j.ID)
		if err != nil {
			return nil, err
		}
		words := len(strings.Fields(j.OutputText))
		dueAt := j.StartedAt.Add(time.Duration(words) * time.Second / wordsPerSecond) // the next word
		delays = append(delays, max(0, now.Sub(dueAt)))
	}
	return delays, nil
}

const conversationsPath = "/api/conversations"

func checkConversations(body string) bool { return strings.Count(body, `"title"`) == conversations }

// readAll reads a path at fixed intervals with several readers, and returns the duration of
// each read. A slow answer delays only one of the readers. check reports whether a body is the
// expected one.
func (o *Options) readAll(ctx context.Context, t *target, path string, check func(body string) bool) ([]time.Duration, error) {
	rt := newLeanTransport(host(t.url))
	defer rt.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	samples := make([][]time.Duration, readers)
	var all sync.WaitGroup
	began := time.Now()
	for i := range readers {
		all.Go(func() {
			// The readers start at different times, so that their requests do not come together.
			first := began.Add(readInterval * time.Duration(i) / readers)
			var err error
			if samples[i], err = o.readAtInterval(ctx, rt, t.url+path, first, check); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	var joined []time.Duration
	for _, s := range samples {
		joined = append(joined, s...)
	}
	return joined, context.Cause(ctx)
}

func (o *Options) readAtInterval(ctx context.Context, rt *leanTransport, url string, at time.Time, check func(body string) bool) (samples []time.Duration, err error) {
	for end := at.Add(o.Duration); at.Before(end); at = at.Add(readInterval) {
		if err := sleep(ctx, time.Until(at)); err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		start := time.Now()
		res, err := rt.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		samples = append(samples, time.Since(start))
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusOK || !check(string(body)) {
			return nil, fmt.Errorf("GET %s is answered with %s: %.200s", url, res.Status, body)
		}
	}
	return samples, nil
}
