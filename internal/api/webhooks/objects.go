package webhooks

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/callback"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// endpointObject is the JSON of an endpoint. Its times are seconds since 1970.
type endpointObject struct {
	ID             string   `json:"id"`
	Object         string   `json:"object"`
	Name           string   `json:"name"`
	URL            string   `json:"url"`
	EventTypes     []string `json:"event_types"`
	CreatedAt      int64    `json:"created_at"`
	UpdatedAt      int64    `json:"updated_at"`
	Secret         string   `json:"signing_secret,omitempty"` // only of a new one
	SecretHint     string   `json:"signing_secret_hint"`
	OldSecretUntil *int64   `json:"old_secret_until"` // null: no old secret signs
	Status         string   `json:"status"`           // "enabled" or "disabled"
	DisabledAt     *int64   `json:"disabled_at"`
	DisabledReason *string  `json:"disabled_reason"`
	FailingSince   *int64   `json:"failing_since"` // null: the last attempt succeeded
}

func newEndpointObject(e *callback.Endpoint) endpointObject {
	o := endpointObject{
		ID: e.ID, Object: "webhook_endpoint", Name: e.Name, URL: e.URL, EventTypes: e.Events.Names(),
		CreatedAt: e.Created.Unix(), UpdatedAt: e.Updated.Unix(), SecretHint: e.Secret.Hint(), Status: "enabled",
		DisabledAt: seconds(e.Disabled), FailingSince: seconds(e.FailingSince),
	}
	if e.OldUntil.After(time.Now()) {
		o.OldSecretUntil = seconds(e.OldUntil)
	}
	if o.DisabledAt != nil {
		o.Status, o.DisabledReason = "disabled", &e.DisabledReason
	}
	return o
}

func seconds(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	s := t.Unix()
	return &s
}

type deletedObject struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Deleted bool   `json:"deleted"`
}

type testObject struct {
	Object     string `json:"object"`
	Endpoint   string `json:"webhook_endpoint_id"`
	EventType  string `json:"event_type"`
	StatusCode int    `json:"status_code"`
	Success    bool   `json:"success"` // the receiver answered; StatusCode says what
}

type typeList struct {
	Object string   `json:"object"`
	Data   []string `json:"data"`
}

// endpointList is the JSON of a page of endpoints.
type endpointList struct {
	Object  string           `json:"object"`
	Data    []endpointObject `json:"data"`
	FirstID *string          `json:"first_id"`
	LastID  *string          `json:"last_id"`
	HasMore bool             `json:"has_more"`
}

// answer returns a function that writes an endpoint, or returns the error.
func answer(w http.ResponseWriter) func(callback.Endpoint, error) error {
	return func(e callback.Endpoint, err error) error {
		if err != nil {
			return err
		}
		api.WriteJSON(w, http.StatusOK, newEndpointObject(&e))
		return nil
	}
}

// answerWithSecret writes an endpoint with its new secret, which no other call shows.
func answerWithSecret(w http.ResponseWriter, e callback.Endpoint, err error) error {
	if err != nil {
		return err
	}
	o := newEndpointObject(&e)
	o.Secret = e.Secret.Reveal()
	w.Header().Set("Cache-Control", "no-store")
	api.WriteJSON(w, http.StatusOK, o)
	return nil
}

// list writes a page of the tenant's endpoints, newest first.
func (a *API) list(w http.ResponseWriter, r *http.Request) error {
	q, err := api.ParseQuery(r, "after", "limit")
	if err != nil {
		return err
	}
	limit := 20
	if text := q.Get("limit"); text != "" {
		n, ok := api.ParseNumber(text)
		if !ok || n < 1 || n > job.MaxListPage {
			return job.Errorf(job.Invalid, "limit is 1 to %d", job.MaxListPage)
		}
		limit = int(n)
	}
	tenant, _ := named(r)
	all, err := a.endpoints.List(r.Context(), tenant)
	if err != nil {
		return err
	}
	if after := q.Get("after"); after != "" {
		// Ids sort by time, so the cursor may be an endpoint that was deleted.
		all = slices.DeleteFunc(all, func(e callback.Endpoint) bool { return e.ID >= after })
	}
	page := endpointList{Object: "list", Data: []endpointObject{}, HasMore: len(all) > limit}
	for i := range all[:min(limit, len(all))] {
		page.Data = append(page.Data, newEndpointObject(&all[i]))
	}
	if n := len(page.Data); n > 0 {
		page.FirstID, page.LastID = &page.Data[0].ID, &page.Data[n-1].ID
	}
	api.WriteJSON(w, http.StatusOK, page)
	return nil
}

// maxBody is the longest body of a call, in bytes.
const maxBody = 16 << 10

// maxEvents bounds the events of a request.
const maxEvents = 16

// settingsRequest is the body of the calls that make and change endpoints.
type settingsRequest struct {
	Name       *string  `json:"name"`
	URL        *string  `json:"url"`
	EventTypes []string `json:"event_types"`
}

func readSettings(r *http.Request) (s callback.Settings, err error) {
	var in settingsRequest
	if err := readOptional(r, &in); err != nil {
		return s, err
	}
	s.Name, s.URL = in.Name, in.URL
	if in.EventTypes == nil {
		return s, nil
	}
	if len(in.EventTypes) == 0 || len(in.EventTypes) > maxEvents {
		return s, invalid("/event_types", "event_types lists 1 to %d events", maxEvents)
	}
	events, err := job.ParseEvents(in.EventTypes)
	if err != nil {
		return s, invalid("/event_types", "%s", err.Error())
	}
	s.Events = &events
	return s, nil
}

// readOptional reads a JSON body. Without a body it changes nothing.
func readOptional(r *http.Request, into any) error {
	if _, err := api.ParseQuery(r); err != nil {
		return err
	}
	body, err := api.ReadBody(r, maxBody)
	if err != nil || len(body) == 0 {
		return err
	}
	return api.DecodeJSON(body, into)
}

func invalid(field, format string, args ...any) error {
	return &job.Error{Code: job.Invalid, Field: field, Message: fmt.Sprintf(format, args...)}
}
