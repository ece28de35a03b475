package client

import (
	"context"
	"net/http"
	"net/url"
)

// Queue is a queue as the server sees it now.
type Queue struct {
	Name          string      `json:"name"`
	Object        string      `json:"object"`       // "queue"
	Executor      string      `json:"executor"`     // how its jobs are done: "sim", "llm", "process"
	Concurrency   int         `json:"concurrency"`  // jobs running at once in the server's process
	Paused        bool        `json:"paused"`       // it gives no jobs to workers
	HeldBackBy    HoldReason  `json:"held_back_by"` // of its next job
	Counts        QueueCounts `json:"counts"`
	Totals        QueueTotals `json:"totals"`
	OldestQueuedS float64     `json:"oldest_queued_s"` // for how long the longest waiting job has been ready, queued or parked, in seconds
	// WaitingBytes are the waiting jobs' input and files.
	WaitingBytes int64         `json:"waiting_bytes"`
	Limits       QueueLimits   `json:"limits"`
	Estimate     QueueEstimate `json:"estimate"`
}

// QueueCounts are the unfinished jobs of a queue, now.
type QueueCounts struct {
	Scheduled int64 `json:"scheduled"`
	Queued    int64 `json:"queued"`
	Parked    int64 `json:"parked"`
	Running   int64 `json:"running"`
}

// Unfinished is how many jobs have yet to end.
func (c QueueCounts) Unfinished() int64 { return c.Scheduled + c.Queued + c.Parked + c.Running }

// QueueTotals are how many jobs of a queue ever ended in each way, or were tried
// again.
type QueueTotals struct {
	Succeeded int64 `json:"succeeded"`
	Failed    int64 `json:"failed"`
	Cancelled int64 `json:"cancelled"`
	Expired   int64 `json:"expired"`
	Retried   int64 `json:"retried"`
}

// QueueLimits are what a queue takes; 0 is no limit.
type QueueLimits struct {
	MaxRunning  int       `json:"max_running"` // jobs running at once over all of the servers on one database
	MaxDepth    int       `json:"max_depth"`   // waiting jobs; one more is refused with CodeQueueFull
	MaxBytes    int64     `json:"max_bytes"`   // of the waiting jobs' input and files; past it CodeQueueFull
	PerKey      KeyLimits `json:"per_key"`
	MaxAttempts int       `json:"max_attempts"` // of a job that asks for no other
}

// KeyLimits are what one key may have in a queue; 0 is no limit.
type KeyLimits struct {
	Running int `json:"running"` // jobs at once; the others are parked
	Waiting int `json:"waiting"` // jobs; one more is refused with CodeKeyFull
}

// QueueEstimate is what a job submitted now would wait and run, in seconds, learned
// from what really happened; nil before the first job has ended.
type QueueEstimate struct {
	WaitS *float64 `json:"wait_s"`
	RunS  *float64 `json:"run_s"`
}

// Queues returns every queue of the server, by name.
func (c *Client) Queues(ctx context.Context) ([]Queue, error) {
	var list struct {
		Data []Queue `json:"data"`
	}
	_, err := c.json(ctx, &call{method: http.MethodGet, path: "/v1/queues"}, &list)
	return list.Data, err
}

// Queue returns one queue; [CodeUnknownQueue] when there is none of that name.
func (c *Client) Queue(ctx context.Context, name string) (*Queue, error) {
	q := new(Queue)
	if _, err := c.json(ctx, &call{method: http.MethodGet, path: "/v1/queues/" + url.PathEscape(name)}, q); err != nil {
		return nil, err
	}
	return q, nil
}

// Pause stops a queue from giving jobs to workers until [Client.Resume], also
// through restarts of the server. What runs goes on, and submits are taken.
func (c *Client) Pause(ctx context.Context, queue string) (*Queue, error) {
	return c.actOnQueue(ctx, queue, "/pause")
}

// Resume lets a paused queue go on.
func (c *Client) Resume(ctx context.Context, queue string) (*Queue, error) {
	return c.actOnQueue(ctx, queue, "/resume")
}

func (c *Client) actOnQueue(ctx context.Context, queue, verb string) (*Queue, error) {
	q := new(Queue)
	if _, err := c.json(ctx, &call{method: http.MethodPost, path: "/v1/queues/" + url.PathEscape(queue) + verb}, q); err != nil {
		return nil, err
	}
	return q, nil
}
