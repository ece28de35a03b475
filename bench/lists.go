package bench

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

const (
	listedJobs = 1_000_000
	lists      = 64 // connections
)

// listIsolation measures the latency of reads of a status while lists look for jobs that do
// not exist. No index helps them: each looks at all jobs, page by page.
func (o *Options) listIsolation(ctx context.Context, f *Figure) error {
	n := o.scaled(listedJobs)
	f.How = fmt.Sprintf("GET /v1/jobs/{id} while %d connections list by metadata that none of %d jobs has, beside an idle server", lists, n)
	t, err := o.startTarget(ctx, simQueue(1, 100_000_000))
	if err != nil {
		return err
	}
	defer t.close()
	o.Step(fmt.Sprintf("isolation: %d jobs", n))
	c, closeClient, err := t.client()
	if err != nil {
		return err
	}
	defer closeClient()
	if _, err := c.Pause(ctx, "sim"); err != nil {
		return err
	}
	waiting := client.Submission{Queue: "sim", Input: map[string]any{"tokens": 1}, Metadata: map[string]string{"order": "17"}}
	if err := fill(ctx, t.url, n, waiting); err != nil {
		return err
	}
	read, err := c.Submit(ctx, waiting)
	if err != nil {
		return err
	}
	path, isJob := "/v1/jobs/"+read.ID, func(body string) bool { return strings.Contains(body, read.ID) }
	o.Step("isolation: the idle server")
	idle, err := o.readAll(ctx, t, path, isJob)
	if err != nil {
		return err
	}
	o.Step(fmt.Sprintf("isolation: beside %d lists", lists))
	return o.measureBesideLists(ctx, t, f, idle, func() ([]time.Duration, error) { return o.readAll(ctx, t, path, isJob) })
}

// measureBesideLists calls read while the lists run, and compares its samples with the idle ones.
func (o *Options) measureBesideLists(ctx context.Context, t *target, f *Figure, idle []time.Duration, read func() ([]time.Duration, error)) error {
	listing, stop := context.WithCancel(ctx)
	defer stop()
	c, closeClient, err := dialLean(listing, t.url)
	if err != nil {
		return err
	}
	defer closeClient()
	var listed loadResult
	ended := make(chan error, 1)
	go func() {
		var err error
		listed, err = runLoad(listing, lists, newBudget(maxJobs, 0), newLister(c))
		ended <- err
	}()
	began := time.Now()
	loaded, err := read()
	if err != nil {
		return err
	}
	select {
	case err := <-ended: // too early: a list failed
		return fmt.Errorf("the lists ended: %w", err)
	default:
	}
	took := time.Since(began)
	stop()
	<-ended
	f.fact("readers", readers, fmt.Sprintf("connections, a request every %s each, %s long", readInterval, o.Duration))
	f.fact("pages", perSecond(len(listed.samples), took), "a second")
	f.spread("a page", listed.samples)
	beside := f.spread("idle", idle)
	under := f.spread("beside lists", loaded)
	f.fact("P99 beside lists, beside idle", under.P99/beside.P99, "times")
	f.goalMax("P99 beside lists", under.P99, 5, "ms")
	return nil
}

// newLister returns a function that reads the next page of a list that matches nothing. Its
// calls go on from the pages of each other, and begin again at the end.
func newLister(c *client.Client) func(context.Context) error {
	cursors := make(chan string, lists)
	for range lists {
		cursors <- ""
	}
	return func(ctx context.Context) error {
		after := <-cursors
		defer func() { cursors <- after }()
		page, err := c.Page(ctx, client.ListOptions{Filter: client.Filter{Metadata: map[string]string{"order": "none"}}, Limit: 100, After: after})
		if err != nil {
			return err
		}
		if len(page.Jobs) > 0 {
			return fmt.Errorf("a list of no job has %d", len(page.Jobs))
		}
		after = page.Next
		return nil
	}
}
