package callback

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// lookupTimeout bounds the look for a secret that this process does not know yet.
const lookupTimeout = 2 * time.Second

// Refs returns the references of a job that is submitted in a tenant: to the callback that the
// submit names, if any, and to the endpoints of the tenant. It refuses a callback that could
// not be delivered. It reads the store only for a secret that this process does not know.
func (b *Book) Refs(tenant string, named *job.Callback) (refs []string, err error) {
	if named != nil {
		if err := b.checkCallback(tenant, named); err != nil {
			return nil, err
		}
		refs = append(refs, reference{events: named.Events, url: named.URL, secretID: named.SecretID}.String())
	}
	return append(refs, b.tenant(tenant).subscribed...), nil
}

// checkCallback refuses a callback with a bad URL or an unknown secret. Field is that of the
// submit.
func (b *Book) checkCallback(tenant string, c *job.Callback) error {
	if err := b.config.CheckURL(c.URL); err != nil {
		return badCallback("/url", err.Error())
	}
	if c.SecretID == "" || c.SecretID == DefaultID {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	_, err := b.find(ctx, tenant, c.SecretID)
	if job.CodeOf(err) == job.NotFound {
		return badCallback("/secret_id", "secret_id is the id of a webhook endpoint, and there is no "+job.Quote(c.SecretID))
	}
	return err
}

func badCallback(field, message string) error {
	return &job.Error{Code: job.BadCallback, Field: "/callback" + field, Message: message}
}
