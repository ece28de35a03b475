package client

import (
	"context"
	"net/http"
)

// Cancel asks for a job's end. A job that waits is cancelled when the call returns;
// a running one has CancelRequestedAt set and ends as cancelled soon; one that has
// ended is returned unchanged.
func (c *Client) Cancel(ctx context.Context, id string) (*Job, error) {
	return c.act(ctx, &call{method: http.MethodPost, path: jobPath(id, "/cancel")})
}

// Retry queues a failed, cancelled or expired job again; [CodeNotRetryable] for any
// other.
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

// Delete removes a job with all that it left; a running one is cancelled first.
// Deleting a job again is no error.
func (c *Client) Delete(ctx context.Context, id string) error {
	_, err := c.json(ctx, &call{method: http.MethodDelete, path: jobPath(id, "")}, nil)
	return err
}
