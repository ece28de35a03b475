package meanwhile

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/meanwhile-run/meanwhile/client"
)

// The types of package client, which speaks of the same things with a server
// elsewhere. That package has more of them: what to list, the codes of errors.
type (
	Submission  = client.Submission
	Timeouts    = client.Timeouts
	RetryPolicy = client.RetryPolicy
	Job         = client.Job
	Status      = client.Status
	Progress    = client.Progress
	Failure     = client.Failure
	Result      = client.Result
	Event       = client.Event
	Error       = client.Error
)

// The statuses of a job.
const (
	Scheduled = client.Scheduled
	Queued    = client.Queued
	Parked    = client.Parked
	Running   = client.Running
	Succeeded = client.Succeeded
	Failed    = client.Failed
	Cancelled = client.Cancelled
	Expired   = client.Expired
)

// The types of an [Event].
const (
	SnapshotEvent = client.SnapshotEvent
	OutputEvent   = client.OutputEvent
	ProgressEvent = client.ProgressEvent
	AttemptEvent  = client.AttemptEvent
	DoneEvent     = client.DoneEvent
)

// ResultOf reads what a succeeded job came to. Of a job that has not ended, or ended
// otherwise, the error is an *[Error], with the job's Failure where it failed.
func ResultOf[Out any](ctx context.Context, s *Server, jobID string) (out Out, err error) {
	r, err := s.Result(ctx, jobID)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(r.Body, &out); err != nil {
		return out, fmt.Errorf("meanwhile: the result is no %T: %w", out, err)
	}
	return out, nil
}
