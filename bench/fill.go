package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// The batches and connections that fill a queue.
const (
	fillBatch       = 500
	fillConnections = 4
)

// fill submits n equal jobs.
func fill(ctx context.Context, url string, n int, s client.Submission) error {
	c, closeClient, err := dialLean(ctx, url)
	if err != nil {
		return err
	}
	defer closeClient()
	batches := (n + fillBatch - 1) / fillBatch
	_, err = runLoad(ctx, fillConnections, newBudget(batches-1, 0), func(ctx context.Context) error {
		return submitBatch(ctx, c, repeatJob(s, fillBatch))
	})
	if err != nil {
		return err
	}
	// The last batch has the rest, so that exactly n jobs are submitted.
	return submitBatch(ctx, c, repeatJob(s, n-(batches-1)*fillBatch))
}

func repeatJob(s client.Submission, n int) []client.Submission {
	jobs := make([]client.Submission, n)
	for i := range jobs {
		jobs[i] = s
	}
	return jobs
}

// submitBatch submits a batch and returns an error if one of its jobs is refused.
func submitBatch(ctx context.Context, c *client.Client, jobs []client.Submission) error {
	answers, err := c.SubmitBatch(ctx, client.Batch{Jobs: jobs})
	if err != nil {
		return err
	}
	for i, a := range answers {
		if a.Err != nil {
			return fmt.Errorf("job %d of the batch: %w", i, a.Err)
		}
	}
	return nil
}

// waitUntilDone waits until the queue has no unfinished job.
func waitUntilDone(ctx context.Context, c *client.Client) (*client.Queue, error) {
	return waitForQueue(ctx, c, func(q *client.Queue) bool { return q.Counts.Unfinished() == 0 })
}

// waitForQueue polls the queue until done returns true.
func waitForQueue(ctx context.Context, c *client.Client, done func(*client.Queue) bool) (*client.Queue, error) {
	for {
		q, err := c.Queue(ctx, "sim")
		if err != nil || done(q) {
			return q, err
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return nil, err
		}
	}
}
