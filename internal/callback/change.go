package callback

import (
	"context"
	"maps"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/webhook"
)

// Settings are the settings of an endpoint that its tenant chooses. A nil field of an update
// leaves the setting as it is.
type Settings struct {
	Name   *string
	URL    *string
	Events *job.Events
}

// Create makes an endpoint with a new secret. Name, URL and Events must be set.
func (b *Book) Create(ctx context.Context, tenant string, s Settings) (Endpoint, error) {
	if err := b.check(&s); err != nil {
		return Endpoint{}, err
	}
	now := time.Now().UTC()
	e := Endpoint{ID: job.NewUUID().Text(idPrefix), Created: now, Updated: now, Secret: webhook.NewSecret()}
	s.applyTo(&e)
	err := b.change(ctx, tenant, func(t *endpoints) (*Endpoint, store.Action, error) {
		if _, hasDefault := t.byID[DefaultID]; len(t.byID) >= MaxEndpoints+btoi(hasDefault) {
			return nil, 0, job.Errorf(job.Conflict, "there are %d webhook endpoints, the most that a tenant may have: delete one first", MaxEndpoints)
		}
		return &e, store.Insert, nil
	})
	return e, err
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// check refuses settings that no endpoint may have. Field is that of the request.
func (b *Book) check(s *Settings) error {
	switch {
	case s.Name != nil && (*s.Name == "" || len(*s.Name) > MaxName):
		return &job.Error{Code: job.Invalid, Field: "/name", Message: "name is a text of 1 to 200 bytes"}
	case s.Events != nil && *s.Events == 0:
		return &job.Error{Code: job.Invalid, Field: "/event_types", Message: "event_types names at least one event"}
	case s.URL != nil:
		if err := b.config.CheckURL(*s.URL); err != nil {
			return &job.Error{Code: job.Invalid, Field: "/url", Message: err.Error()}
		}
	}
	return nil
}

func (s *Settings) applyTo(e *Endpoint) (changed bool) {
	before := *e
	if s.Name != nil {
		e.Name = *s.Name
	}
	if s.URL != nil {
		e.URL = *s.URL
	}
	if s.Events != nil {
		e.Events = *s.Events
	}
	return e.Name != before.Name || e.URL != before.URL || e.Events != before.Events
}

// Update changes settings of an endpoint.
func (b *Book) Update(ctx context.Context, tenant, id string, s Settings) (Endpoint, error) {
	if err := b.check(&s); err != nil {
		return Endpoint{}, err
	}
	return b.update(ctx, tenant, id, func(e *Endpoint, now time.Time) bool {
		if !s.applyTo(e) {
			return false
		}
		e.Updated = now
		return true
	})
}

// Rotate gives an endpoint, or the default secret of the tenant, a new secret. The old one
// signs beside it for [KeepOldSecret], if keepOld is set.
func (b *Book) Rotate(ctx context.Context, tenant, id string, keepOld bool) (Endpoint, error) {
	if id == DefaultID {
		if _, err := b.defaultSecret(ctx, tenant); err != nil {
			return Endpoint{}, err
		}
	}
	return b.update(ctx, tenant, id, func(e *Endpoint, now time.Time) bool {
		e.rotate(now, keepOld)
		return true
	})
}

// Disable stops the deliveries to an endpoint: those that are due fail.
func (b *Book) Disable(ctx context.Context, tenant, id, reason string) (Endpoint, error) {
	return b.update(ctx, tenant, id, func(e *Endpoint, now time.Time) bool { return e.disable(now, reason) })
}

func (e *Endpoint) disable(now time.Time, reason string) bool {
	if !e.Disabled.IsZero() {
		return false
	}
	e.Disabled, e.DisabledReason = now, reason
	return true
}

// Enable allows deliveries to an endpoint again.
func (b *Book) Enable(ctx context.Context, tenant, id string) (Endpoint, error) {
	return b.update(ctx, tenant, id, func(e *Endpoint, _ time.Time) bool {
		changed := !e.Disabled.IsZero() || !e.FailingSince.IsZero()
		e.Disabled, e.DisabledReason, e.FailingSince = time.Time{}, "", time.Time{}
		return changed
	})
}

// update changes an endpoint. change returns false if it changed nothing.
func (b *Book) update(ctx context.Context, tenant, id string, change func(e *Endpoint, now time.Time) bool) (e Endpoint, err error) {
	err = b.change(ctx, tenant, func(t *endpoints) (*Endpoint, store.Action, error) {
		known := t.byID[id]
		if known == nil {
			return nil, 0, unknownEndpoint(id)
		}
		e = *known
		if !change(&e, time.Now().UTC()) {
			return nil, 0, nil
		}
		return &e, store.Put, nil
	})
	return e, err
}

// Delete deletes an endpoint with its secrets. Its deliveries that are not sent yet fail.
func (b *Book) Delete(ctx context.Context, tenant, id string) error {
	return b.change(ctx, tenant, func(t *endpoints) (*Endpoint, store.Action, error) {
		e := t.byID[id]
		if e == nil || id == DefaultID {
			return nil, 0, unknownEndpoint(id)
		}
		return e, store.Remove, nil
	})
}

// defaultSecret returns the default secret of a tenant. It makes one for a tenant without.
func (b *Book) defaultSecret(ctx context.Context, tenant string) (e *Endpoint, err error) {
	if e = b.tenant(tenant).byID[DefaultID]; e != nil {
		return e, nil
	}
	err = b.change(ctx, tenant, func(t *endpoints) (*Endpoint, store.Action, error) {
		if e = t.byID[DefaultID]; e != nil {
			return nil, 0, nil
		}
		now := time.Now().UTC()
		e = &Endpoint{ID: DefaultID, Name: "default", Created: now, Updated: now, Secret: webhook.NewSecret()}
		return e, store.Insert, nil
	})
	return e, err
}

// maxTries is how often a change is made again because another one came first.
const maxTries = 10

// change changes one endpoint of a tenant. decide gets the endpoints as they are, and returns
// the endpoint to write or remove, nil for none. It is called again when another change came
// first.
func (b *Book) change(ctx context.Context, tenant string, decide func(*endpoints) (*Endpoint, store.Action, error)) error {
	for try := 1; ; try++ {
		t := b.tenant(tenant)
		e, action, err := decide(t)
		if err != nil && try == 1 {
			// Another process may have made the endpoint, or deleted one.
			if err := b.Load(ctx); err != nil {
				return err
			}
			if t = b.tenant(tenant); t != nil {
				e, action, err = decide(t)
			}
		}
		if e == nil || err != nil {
			return err
		}
		err = b.config.Write(ctx, append(nextVersion(tenant, t.version), e.row(tenant, action))...)
		switch code := job.CodeOf(err); {
		case err == nil:
			b.set(tenant, t.with(e, action))
			return nil
		case code != job.Conflict && code != job.NotFound || try == maxTries:
			return err
		}
		if err := b.Load(ctx); err != nil {
			return err
		}
	}
}

// with returns the endpoints after a change.
func (t *endpoints) with(e *Endpoint, action store.Action) *endpoints {
	byID := maps.Clone(t.byID)
	if byID == nil {
		byID = map[string]*Endpoint{}
	}
	if action == store.Remove {
		delete(byID, e.ID)
	} else {
		byID[e.ID] = e
	}
	return newEndpoints(t.version+1, byID)
}
