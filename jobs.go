package meanwhile

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/meanwhile-run/meanwhile/client"
)

// Jobs submits and reads the jobs of one function, with the types of the function. [Handle]
// and [HandleKind] return it. [JobsOf] returns one for a program that only submits. Calls
// that need no type, such as Watch and Cancel, are methods of [client.Client]. Any number of
// goroutines may use it at once.
type Jobs[In, Out any] struct {
	// set once
	client      *client.Client
	queue, kind string
}

// JobsOf returns the jobs of a function that a server runs, this program's or another. c is
// any client of the server. The types must be those of the function. kind is "" for a queue
// without kinds.
func JobsOf[In, Out any](c *client.Client, queue, kind string) *Jobs[In, Out] {
	return &Jobs[In, Out]{client: c, queue: queue, kind: kind}
}

// With returns the same jobs with another client, such as that of [Server.AsUser].
func (j *Jobs[In, Out]) With(c *client.Client) *Jobs[In, Out] {
	return JobsOf[In, Out](c, j.queue, j.kind)
}

// Submit submits a job and returns it once it is on disk. It returns the errors of
// [client.Client.Submit].
func (j *Jobs[In, Out]) Submit(ctx context.Context, in In, options ...SubmitOption) (*Job, error) {
	return j.client.Submit(ctx, j.Submission(in, options...))
}

// SubmitMany submits a job for each input, all or none of them, in one transaction. It
// returns the jobs in the order of the inputs, of which there may be 1,000 with 16 MiB. The
// options hold for each job; [IdempotencyKey] holds for all of them together. Errors of the
// *[Error] name the refused inputs by their index, as in "/jobs/3/input".
func (j *Jobs[In, Out]) SubmitMany(ctx context.Context, inputs []In, options ...SubmitOption) ([]*Job, error) {
	if len(inputs) == 0 {
		return nil, nil
	}
	b := client.Batch{Atomic: true}
	for _, in := range inputs {
		s := j.Submission(in, options...)
		b.IdempotencyKey, s.IdempotencyKey = s.IdempotencyKey, ""
		b.Jobs = append(b.Jobs, s)
	}
	results, err := j.client.SubmitBatch(ctx, b)
	if err != nil {
		return nil, err
	}
	jobs := make([]*Job, len(results))
	for i, r := range results {
		jobs[i] = r.Job
	}
	return jobs, nil
}

// SubmitAndWait submits a job, waits until it has ended and returns its result, as
// [Jobs.Submit] and [Jobs.Wait] do. When ctx ends first, the job runs on.
func (j *Jobs[In, Out]) SubmitAndWait(ctx context.Context, in In, options ...SubmitOption) (Out, error) {
	ended, err := j.client.SubmitAndWait(ctx, j.Submission(in, options...))
	return j.resultOf(ctx, ended, err)
}

// Wait waits until a job has ended and returns its result. The error of a job that ended
// without one is a *[JobError].
func (j *Jobs[In, Out]) Wait(ctx context.Context, id string) (Out, error) {
	ended, err := j.client.Wait(ctx, id)
	return j.resultOf(ctx, ended, err)
}

// Result returns the result of a job and does not wait. Before the job has ended, the error
// is an *[Error] with [client.CodeNotFinished]. The error of a job that ended without a
// result is a *[JobError].
func (j *Jobs[In, Out]) Result(ctx context.Context, id string) (Out, error) {
	read, err := j.client.Get(ctx, id)
	return j.resultOf(ctx, read, err)
}

// Submission returns the submission of a job without submitting it. It is for the calls of
// [client.Client] that take submissions: SubmitFiles and SubmitBatch, which takes jobs of
// several functions.
func (j *Jobs[In, Out]) Submission(in In, options ...SubmitOption) Submission {
	s := Submission{Queue: j.queue, Input: in}
	for _, o := range options {
		o.set(&s)
	}
	if j.kind != "" {
		s.Metadata = maps.Clone(s.Metadata) // an option may have set a map of its caller
		Metadata(KindMetadata, j.kind).set(&s)
	}
	return s
}

// resultOf returns the result of a job, or why it has none.
func (j *Jobs[In, Out]) resultOf(ctx context.Context, of *Job, err error) (out Out, _ error) {
	switch {
	case err != nil:
		return out, err
	case of.Queue != j.queue || j.kind != "" && of.Metadata[KindMetadata] != j.kind:
		return out, fmt.Errorf("meanwhile: the job %s is of the queue %q and the kind %q, not of %q and %q",
			of.ID, of.Queue, of.Metadata[KindMetadata], j.queue, j.kind)
	case of.Status.Ended() && of.Status != Succeeded:
		return out, &JobError{Job: of}
	}
	if raw, ok := any(&out).(*Result); ok {
		r, err := j.client.Result(ctx, of.ID)
		if err != nil {
			return out, err
		}
		*raw = *r
		return out, nil
	}
	body := []byte(of.Result)
	if len(body) == 0 {
		// It is larger than what a job carries, or there is none yet.
		r, err := j.client.Result(ctx, of.ID)
		if err != nil {
			return out, err
		}
		body = r.Body
	}
	if err := json.Unmarshal(body, &out); err != nil {
		return out, fmt.Errorf("meanwhile: the result of %s is no %T: %w", of.ID, out, err)
	}
	return out, nil
}

// JobError is the error of a job that ended without a result: it failed, was cancelled or
// expired.
type JobError struct {
	Job *Job // as it ended
}

// Code returns the code of the job's failure, such as one of [WithCode]. It is "cancelled" or
// "expired" for a job that did not fail.
func (e *JobError) Code() string {
	if e.Job.Status == Failed && e.Job.Error != nil {
		return e.Job.Error.Code
	}
	return string(e.Job.Status)
}

// Error names the job, how it ended and, for a failed one, the message of the failure.
func (e *JobError) Error() string {
	j := e.Job
	switch {
	case j.Status == Failed && j.Error != nil:
		return fmt.Sprintf("meanwhile: %s of the queue %q failed in attempt %d: %s: %s", j.ID, j.Queue, j.Error.Attempt, j.Error.Code, j.Error.Message)
	case j.Status == Expired:
		return fmt.Sprintf("meanwhile: %s of the queue %q expired before it ran", j.ID, j.Queue)
	}
	return fmt.Sprintf("meanwhile: %s of the queue %q was %s", j.ID, j.Queue, j.Status)
}
