package callback

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/webhook"
)

// The codes of deliveries that are not sent.
const (
	codeDisabled = "endpoint_disabled"
	codeDeleted  = "endpoint_deleted"
)

// Target finds where an attempt of a delivery goes, and what signs it. Its error is a
// *[job.Fault] if it is the endpoint's.
func (b *Book) Target(ctx context.Context, owner job.Owner, d *webhook.Delivery) (webhook.Target, error) {
	now := time.Now()
	if d.Endpoint == "" {
		e, err := b.signer(ctx, owner.Tenant, d.SecretID)
		if err != nil {
			return webhook.Target{}, err
		}
		return webhook.Target{URL: d.URL, Secrets: e.signing(now)}, nil
	}
	e, err := b.find(ctx, owner.Tenant, d.Endpoint)
	if err == nil && !e.Disabled.IsZero() {
		// Another process may have enabled it a moment ago.
		if err = b.loadSince(ctx, now); err == nil {
			e, err = b.find(ctx, owner.Tenant, d.Endpoint)
		}
	}
	switch {
	case job.CodeOf(err) == job.NotFound:
		return webhook.Target{}, deleted(d.Endpoint)
	case err != nil:
		return webhook.Target{}, err
	case !e.Disabled.IsZero():
		return webhook.Target{}, &job.Fault{Code: codeDisabled, Class: job.Final,
			Message: "The webhook endpoint " + e.ID + " is disabled: enable it, and retry its deliveries."}
	}
	return webhook.Target{URL: e.URL, Secrets: e.signing(now)}, nil
}

// signer returns the endpoint whose secret signs the delivery to a URL.
func (b *Book) signer(ctx context.Context, tenant, id string) (*Endpoint, error) {
	if id == "" || id == DefaultID {
		return b.defaultSecret(ctx, tenant)
	}
	e, err := b.find(ctx, tenant, id)
	if job.CodeOf(err) == job.NotFound {
		return nil, deleted(id)
	}
	return e, err
}

func deleted(id string) error {
	return &job.Fault{Code: codeDeleted, Class: job.Final, Message: "The webhook endpoint " + id + " was deleted, and its secret with it."}
}
