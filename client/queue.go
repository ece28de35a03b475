package client

import (
	"context"
	"net/http"
	"net/url"
)

// Queue is the current state of a queue.
type Queue struct {
	Name          string      `json:"name"`
	Object        string      `json:"object"`       // "queue"
	Configured    bool        `json:"configured"`   // false: the server has only its stored jobs, and does not run them
	Executor      string      `json:"executor"`     // how its jobs run: "sim", "llm", "process" …
	Concurrency   int         `json:"concurrency"`  // maximum of running jobs in the answering server process
	Paused        bool        `json:"paused"`       // whether it gives no jobs to workers
	HeldBackBy    HeldBackBy  `json:"held_back_by"` // why its next job does not run yet; "" for none
	Counts        QueueCounts `json:"counts"`
	Totals        QueueTotals `json:"totals"`
	OldestQueuedS float64     `json:"oldest_queued_s"` // how long the oldest ready job has waited, in seconds; a ready job is queued or parked
	// WaitingBytes is the size of the input and files of all waiting jobs.
	WaitingBytes int64         `json:"waiting_bytes"`
	Limits       QueueLimits   `json:"limits"`
	Estimate     QueueEstimate `json:"estimate"`
}

// QueueCounts is the number of unfinished jobs of a queue in each status, of all tenants. With an
// API key that lacks the scope admin all numbers of a [Queue] that count jobs are zero.
type QueueCounts struct {
	Scheduled int64 `json:"scheduled"`
	Queued    int64 `json:"queued"`
	Parked    int64 `json:"parked"`
	Running   int64 `json:"running"`
}

// Unfinished returns the number of jobs that have not ended.
func (c QueueCounts) Unfinished() int64 { return c.Scheduled + c.Queued + c.Parked + c.Running }

// QueueTotals counts how many jobs of a queue ever ended in each status, and how often
// one was retried.
type QueueTotals struct {
	Succeeded int64 `json:"succeeded"`
	Failed    int64 `json:"failed"`
	Cancelled int64 `json:"cancelled"`
	Expired   int64 `json:"expired"`
	Retried   int64 `json:"retried"`
}

// QueueLimits are the limits of a queue; 0 means no limit.
type QueueLimits struct {
	MaxRunning  int       `json:"max_running"` // running jobs, over all servers on one database
	MaxDepth    int       `json:"max_depth"`   // waiting jobs; the next submission is refused with CodeQueueFull
	MaxBytes    int64     `json:"max_bytes"`   // bytes of input and files of the waiting jobs; beyond it CodeQueueFull
	PerKey      KeyLimits `json:"per_key"`
	MaxAttempts int       `json:"max_attempts"` // default of Submission.MaxAttempts
}

// KeyLimits are the limits of each key in a queue; 0 means no limit.
type KeyLimits struct {
	Running int `json:"running"` // running jobs; further ones are parked
	Waiting int `json:"waiting"` // waiting jobs; the next submission is refused with CodeKeyFull
}

// QueueEstimate is how long a new job would wait and run, in seconds,
// learned from earlier jobs. The fields are nil until the first job has ended.
type QueueEstimate struct {
	WaitS *float64 `json:"wait_s"`
	RunS  *float64 `json:"run_s"`
}

// Queues returns every queue of the server, ordered by name.
func (c *Client) Queues(ctx context.Context) ([]Queue, error) {
	var list struct {
		Data []Queue `json:"data"`
	}
	_, err := c.json(ctx, &call{method: http.MethodGet, path: "/v1/queues"}, &list)
	return list.Data, err
}

// Queue returns one queue. The error is [CodeUnknownQueue] for an unknown name.
func (c *Client) Queue(ctx context.Context, name string) (*Queue, error) {
	q := new(Queue)
	if _, err := c.json(ctx, &call{method: http.MethodGet, path: "/v1/queues/" + url.PathEscape(name)}, q); err != nil {
		return nil, err
	}
	return q, nil
}

// Pause stops a queue from giving jobs to workers until [Client.Resume], also across
// restarts of the server. Running jobs continue, and the queue accepts submissions. The
// error is [CodeUnknownQueue] for an unknown name.
func (c *Client) Pause(ctx context.Context, queue string) (*Queue, error) {
	return c.actOnQueue(ctx, queue, "/pause")
}

// Resume lets a paused queue give jobs to workers again. Resuming a queue that is not
// paused is not an error.
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
