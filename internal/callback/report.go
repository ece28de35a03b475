package callback

import (
	"context"
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/webhook"
)

// maxReports is how many reports may wait to be stored.
const maxReports = 256

// report is what an attempt says about an endpoint that is new to it.
type report struct {
	tenant, id string
	ok         bool
	gone       bool // the receiver answered 410: it wants no more
}

// Sent takes the outcome of an attempt. It does not block. Most attempts say what is known.
func (b *Book) Sent(owner job.Owner, d *webhook.Delivery, o webhook.Outcome) {
	if d.Endpoint == "" {
		return
	}
	e := b.tenant(owner.Tenant).byID[d.Endpoint]
	r := report{tenant: owner.Tenant, id: d.Endpoint, ok: o.OK, gone: o.Gone}
	if e == nil || !b.isNews(e, r) {
		return
	}
	b.mu.Lock()
	waits := b.pending[r.id]
	b.pending[r.id] = true
	b.mu.Unlock()
	if waits {
		return
	}
	select {
	case b.reports <- r:
	default: // a later attempt says it again
		b.reported(r.id)
	}
}

func (b *Book) reported(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.pending, id)
}

// isNews reports whether an attempt changes what is stored of the endpoint.
func (b *Book) isNews(e *Endpoint, r report) bool {
	switch {
	case !e.Disabled.IsZero():
		return false
	case r.ok:
		return !e.FailingSince.IsZero()
	default:
		return r.gone || e.FailingSince.IsZero() || b.failedTooLong(e, time.Now())
	}
}

func (b *Book) failedTooLong(e *Endpoint, now time.Time) bool {
	return now.Sub(e.FailingSince) >= b.config.DisableAfter
}

// apply stores a report.
func (b *Book) apply(ctx context.Context, r report) {
	defer b.reported(r.id)
	reason := ""
	e, err := b.update(ctx, r.tenant, r.id, func(e *Endpoint, now time.Time) bool {
		reason = ""
		if !b.isNews(e, r) {
			return false
		}
		switch {
		case r.ok:
			e.FailingSince = time.Time{}
			return true
		case r.gone:
			reason = "the receiver answered 410 Gone"
		case e.FailingSince.IsZero():
			e.FailingSince = now
			return true
		default:
			reason = fmt.Sprintf("every attempt has failed since %s", e.FailingSince.Format(time.RFC3339))
		}
		return e.disable(now, reason)
	})
	switch {
	case err != nil && job.CodeOf(err) != job.NotFound && ctx.Err() == nil:
		b.config.Log.Error("the state of a webhook endpoint cannot be stored: a later delivery tries again", "endpoint", r.id, "error", err)
	case err == nil && reason != "":
		b.config.Log.Warn("a webhook endpoint was disabled: enable it once its receiver works, and retry its deliveries", "endpoint", e.ID, "name", e.Name, "tenant", r.tenant, "reason", reason)
	}
}
