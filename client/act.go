package client

import (
	"context"
	"net/http"
)

// Cancel cancels a job and returns it. A waiting job is cancelled when the call
// returns. A running job has CancelRequestedAt set and is cancelled soon after. A job
// that has ended is returned unchanged. The error is [CodeNotFound] for an unknown job.
func (c *Client) Cancel(ctx context.Context, id string) (*Job, error) {
	return c.act(ctx, &call{method: http.MethodPost, path: jobPath(id, "/cancel")})
}

// Retry queues a failed, cancelled or expired job again and returns it. The error is
// [CodeNotRetryable] for a job in any other status, [CodeNotFound] for an unknown job.
func (c *Client) Retry(ctx context.Context, id string) (*Job, error) {
	return c.act(ctx, &call{method: http.MethodPost, path: jobPath(id, "/retry"), notIdempotent: true})
}

func (c *Client) act(ctx context.Context, k *call) (*Job, error) {
	j := new(Job)
	if _, err := c.json(ctx, k, j); err != nil {
		return nil, err
	}
	return j, nil
}

// Delete removes a job with its input, output, result and files. A running job is
// cancelled first. Deleting a job again is not an error.
func (c *Client) Delete(ctx context.Context, id string) error {
	_, err := c.json(ctx, &call{method: http.MethodDelete, path: jobPath(id, "")}, nil)
	return err
}
