package meanwhile

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/meanwhile-run/meanwhile/client"
)

// These types are documented in package client. That package also has the options of lists
// and the error codes.
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

// ResultOf returns the result of a succeeded job, decoded from JSON into Out. For any other
// job it returns an *[Error]: its Code is [client.CodeNotFinished] or
// [client.CodeConflict], and its Failure says why a job failed.
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
