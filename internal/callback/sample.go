package callback

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/webhook"
)

// Test sends an endpoint the event of a job that does not exist, once and at once, also if it is
// disabled. It returns the status of the answer, or [job.ReceiverFailed] without one. What the
// test finds changes nothing at the endpoint.
func (b *Book) Test(ctx context.Context, tenant, id string, end job.State) (status int, err error) {
	e, err := b.find(ctx, tenant, id)
	if err != nil {
		return 0, err
	}
	if e.URL == "" {
		return 0, job.Errorf(job.Invalid, "%s is a secret without a URL: test an endpoint", job.Quote(id))
	}
	now := time.Now()
	sample := job.Job{
		ID: job.NewID(), Queue: "test", State: end, Attempt: 1, MaxAttempts: 1, Metadata: map[string]string{"test": "true"},
		CreatedAt: now, StartedAt: now, FinishedAt: now,
	}
	var result *job.Result
	switch end {
	case job.Succeeded:
		result = &job.Result{ContentType: "application/json", Body: []byte(`{"test":true}`)}
	case job.Failed:
		sample.Failure = &job.Failure{Code: "test", Message: "This is a test.", Attempt: 1}
	}
	body := webhook.Event(&sample, result, b.config.PublicURL)
	o := b.config.Send(ctx, webhook.Target{URL: e.URL, Secrets: e.signing(now)}, job.NewID().String(), body)
	if o.Status == 0 {
		return 0, job.Errorf(job.ReceiverFailed, "no answer came from the endpoint: %s", o.Message)
	}
	return o.Status, nil
}
