package meanwhile

import "github.com/meanwhile-run/meanwhile/client"

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
