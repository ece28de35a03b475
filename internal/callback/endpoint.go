package callback

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/webhook"
)

// The bounds of endpoints.
const (
	MaxEndpoints = 20  // of a tenant
	MaxName      = 200 // bytes
	// KeepOldSecret is how long an old secret signs beside the new one.
	KeepOldSecret = 24 * time.Hour
)

// idPrefix begins the id of an endpoint.
const idPrefix = "whe_"

// DefaultID is the id of the default secret of a tenant. It is an endpoint without a URL: it
// signs the deliveries to URLs that stand in submits and name no other secret.
const DefaultID = "default"

// Endpoint receives the ends of all jobs of its tenant.
type Endpoint struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	URL     string     `json:"url"`
	Events  job.Events `json:"events"`
	Created time.Time  `json:"created"`
	Updated time.Time  `json:"updated"` // of its settings or its secret

	Secret    webhook.Secret `json:"-"`
	OldSecret webhook.Secret `json:"-"`                  // signs beside Secret until OldUntil
	OldUntil  time.Time      `json:"old_until,omitzero"` // zero without an old secret

	Disabled       time.Time `json:"disabled,omitzero"` // zero while it is enabled
	DisabledReason string    `json:"disabled_reason,omitempty"`
	// FailingSince is the time of the first failed attempt since the last success.
	FailingSince time.Time `json:"failing_since,omitzero"`
}

// signing returns the secrets that sign now, the present one first.
func (e *Endpoint) signing(now time.Time) []webhook.Secret {
	if now.Before(e.OldUntil) {
		return []webhook.Secret{e.Secret, e.OldSecret}
	}
	return []webhook.Secret{e.Secret}
}

// rotate gives the endpoint a new secret.
func (e *Endpoint) rotate(now time.Time, keepOld bool) {
	e.OldSecret, e.OldUntil = webhook.Secret{}, time.Time{}
	if keepOld {
		e.OldSecret, e.OldUntil = e.Secret, now.Add(KeepOldSecret)
	}
	e.Secret, e.Updated = webhook.NewSecret(), now
}

// The rows of endpoints belong to their tenant, under a user whose name no request can have.
const (
	reservedUser = "\x01webhooks"
	kindEndpoint = "webhook_endpoint"
)

func endpointRows(tenant string) store.RowSet {
	return store.RowSet{Owner: job.Owner{Tenant: tenant, User: reservedUser}, Kind: kindEndpoint}
}

// storedEndpoint is the body of an endpoint's row. Nothing else writes the text of a secret.
type storedEndpoint struct {
	Endpoint
	Secret    string `json:"secret"`
	OldSecret string `json:"old_secret,omitempty"`
}

func (e *Endpoint) row(tenant string, action store.Action) store.Row {
	s := storedEndpoint{Endpoint: *e, Secret: e.Secret.Reveal()}
	if !e.OldUntil.IsZero() {
		s.OldSecret = e.OldSecret.Reveal()
	}
	body, err := json.Marshal(s)
	if err != nil {
		panic("callback: an endpoint cannot be encoded: " + err.Error())
	}
	of := endpointRows(tenant)
	return store.Row{Owner: of.Owner, Kind: of.Kind, ID: e.ID, Body: body, Action: action}
}

func parseEndpoint(r *store.Row) (*Endpoint, error) {
	var s storedEndpoint
	err := json.Unmarshal(r.Body, &s)
	if err == nil {
		s.Endpoint.Secret, err = webhook.ParseSecret(s.Secret)
	}
	if err == nil && s.OldSecret != "" {
		s.Endpoint.OldSecret, err = webhook.ParseSecret(s.OldSecret)
	}
	return &s.Endpoint, err
}

// newestFirst sorts endpoints for a list. Ids begin with their time.
func newestFirst(list []Endpoint) {
	slices.SortFunc(list, func(a, b Endpoint) int { return strings.Compare(b.ID, a.ID) })
}
