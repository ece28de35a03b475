package client

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// CancelAll cancels every job that f selects, as [Client.Cancel] does. It returns the
// number of cancelled jobs, without those that had ended before. Jobs cancelled before an
// error stay cancelled.
func (c *Client) CancelAll(ctx context.Context, f Filter) (int, error) {
	return c.changeAll(ctx, &call{path: "/v1/jobs/cancel"}, f)
}

// RetryAll queues every failed, cancelled or expired job that f selects again and
// returns their number. Jobs queued before an error stay queued.
func (c *Client) RetryAll(ctx context.Context, f Filter) (int, error) {
	return c.changeAll(ctx, &call{path: "/v1/jobs/retry", notIdempotent: true}, f)
}

// DeleteAll removes every job that f selects, as [Client.Delete] does, and returns their
// number. Jobs removed before an error stay removed.
func (c *Client) DeleteAll(ctx context.Context, f Filter) (int, error) {
	return c.changeAll(ctx, &call{path: "/v1/jobs/delete"}, f)
}

// changeAll repeats the call until the server reports that no job is left. The server
// limits the time of one request, so a large change takes several.
func (c *Client) changeAll(ctx context.Context, k *call, f Filter) (done int, err error) {
	k.method = http.MethodPost
	if k.body, err = json.Marshal(f.wire()); err != nil {
		return 0, err
	}
	for {
		var count struct {
			Done int  `json:"done"`
			More bool `json:"more"`
		}
		if _, err := c.json(ctx, k, &count); err != nil {
			return done, err
		}
		done += count.Done
		switch {
		case !count.More:
			return done, nil
		case count.Done == 0:
			// The server searched for its whole time and found nothing. Another request
			// would start the same search again.
			return done, &Error{Code: CodeOverloaded, Message: "the server found none of the jobs in its time; a narrower filter is found sooner"}
		}
	}
}

// wireFilter is the JSON form of a filter in a request body.
type wireFilter struct {
	Queue         string            `json:"queue,omitempty"`
	Status        Status            `json:"status,omitempty"`
	Key           *string           `json:"key,omitempty"`
	ErrorCode     string            `json:"error_code,omitempty"`
	CreatedAfter  time.Time         `json:"created_after,omitzero"`
	CreatedBefore time.Time         `json:"created_before,omitzero"`
	Metadata      map[string]string `json:"metadata,omitempty"`
	All           bool              `json:"all,omitempty"`
}

func (f *Filter) wire() wireFilter {
	return wireFilter{
		Queue: f.Queue, Status: f.Status, Key: f.Key, ErrorCode: f.ErrorCode,
		CreatedAfter: f.CreatedAfter.UTC(), CreatedBefore: f.CreatedBefore.UTC(), Metadata: f.Metadata, All: f.All,
	}
}
