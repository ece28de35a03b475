// Package webhooks is the HTTP API of webhook endpoints, under /v1/webhook_endpoints. Its routes
// and shapes are those that the official SDKs of OpenAI call. Beside them it enables and
// disables endpoints, and says why one is disabled.
package webhooks

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/callback"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Endpoints is the part of [callback.Book] that the API calls.
type Endpoints interface {
	Create(ctx context.Context, tenant string, s callback.Settings) (callback.Endpoint, error)
	Get(ctx context.Context, tenant, id string) (callback.Endpoint, error)
	List(ctx context.Context, tenant string) ([]callback.Endpoint, error)
	Update(ctx context.Context, tenant, id string, s callback.Settings) (callback.Endpoint, error)
	Rotate(ctx context.Context, tenant, id string, keepOld bool) (callback.Endpoint, error)
	Disable(ctx context.Context, tenant, id, reason string) (callback.Endpoint, error)
	Enable(ctx context.Context, tenant, id string) (callback.Endpoint, error)
	Delete(ctx context.Context, tenant, id string) error
	Test(ctx context.Context, tenant, id string, end job.State) (status int, err error)
}

// API serves the routes.
type API struct {
	endpoints Endpoints
	log       *slog.Logger
}

// New returns an API.
func New(endpoints Endpoints, log *slog.Logger) *API { return &API{endpoints, log} }

// Register adds the API's routes to a mux. No token opens them.
func (a *API) Register(mux gate.Routes) {
	for _, route := range []struct {
		pattern string
		handle  api.Handler
	}{
		{"POST /v1/webhook_endpoints", a.create},
		{"GET /v1/webhook_endpoints", a.list},
		{"GET /v1/webhook_endpoints/{endpoint}", a.get},
		{"POST /v1/webhook_endpoints/{endpoint}", a.update},
		{"DELETE /v1/webhook_endpoints/{endpoint}", a.delete},
		{"POST /v1/webhook_endpoints/{endpoint}/rotate_secret", a.rotate},
		{"POST /v1/webhook_endpoints/{endpoint}/test", a.test},
		{"POST /v1/webhook_endpoints/{endpoint}/disable", a.disable},
		{"POST /v1/webhook_endpoints/{endpoint}/enable", a.enable},
		{"GET /v1/webhook_event_types", a.eventTypes},
	} {
		mux.Handle(route.pattern, gate.Scope(access.Webhooks), api.Wrap(a.log, api.WriteProblem, route.handle))
	}
}

// Wait returns at once: no call outlives its request.
func (a *API) Wait() {}

// named returns the tenant of a request and the endpoint in its path.
func named(r *http.Request) (tenant, id string) {
	return gate.CallerFrom(r).Owner().Tenant, r.PathValue("endpoint")
}

func (a *API) get(w http.ResponseWriter, r *http.Request) error {
	tenant, id := named(r)
	return answer(w)(a.endpoints.Get(r.Context(), tenant, id))
}

func (a *API) enable(w http.ResponseWriter, r *http.Request) error {
	tenant, id := named(r)
	return answer(w)(a.endpoints.Enable(r.Context(), tenant, id))
}

func (a *API) disable(w http.ResponseWriter, r *http.Request) error {
	tenant, id := named(r)
	return answer(w)(a.endpoints.Disable(r.Context(), tenant, id, "it was disabled by request"))
}

func (a *API) delete(w http.ResponseWriter, r *http.Request) error {
	tenant, id := named(r)
	if err := a.endpoints.Delete(r.Context(), tenant, id); err != nil {
		return err
	}
	api.WriteJSON(w, http.StatusOK, deletedObject{ID: id, Object: "webhook_endpoint.deleted", Deleted: true})
	return nil
}

func (a *API) create(w http.ResponseWriter, r *http.Request) error {
	s, err := readSettings(r)
	switch {
	case err != nil:
		return err
	case s.Name == nil:
		return invalid("/name", "name is missing: it is what people call the endpoint")
	case s.URL == nil:
		return invalid("/url", "url is missing: it is where deliveries go")
	case s.Events == nil:
		return invalid("/event_types", "event_types is missing: it lists the events that are delivered")
	}
	tenant, _ := named(r)
	e, err := a.endpoints.Create(r.Context(), tenant, s)
	return answerWithSecret(w, e, err)
}

func (a *API) update(w http.ResponseWriter, r *http.Request) error {
	s, err := readSettings(r)
	if err != nil {
		return err
	}
	tenant, id := named(r)
	if id == callback.DefaultID {
		return job.Errorf(job.Invalid, "the default secret has no settings: only rotate_secret changes it")
	}
	return answer(w)(a.endpoints.Update(r.Context(), tenant, id, s))
}

// rotateRequest is the body of a call that makes a new secret.
type rotateRequest struct {
	// KeepOld is true unless the body says false: receivers need time to learn the new secret.
	KeepOld *bool `json:"keep_old_secret_active_for_24_hours"`
}

func (a *API) rotate(w http.ResponseWriter, r *http.Request) error {
	var in rotateRequest
	if err := readOptional(r, &in); err != nil {
		return err
	}
	tenant, id := named(r)
	e, err := a.endpoints.Rotate(r.Context(), tenant, id, in.KeepOld == nil || *in.KeepOld)
	return answerWithSecret(w, e, err)
}

// testRequest is the body of a call that sends a sample.
type testRequest struct {
	EventType string `json:"event_type"`
}

func (a *API) test(w http.ResponseWriter, r *http.Request) error {
	var in testRequest
	if err := readOptional(r, &in); err != nil {
		return err
	}
	end := job.Succeeded
	if in.EventType != "" {
		var ok bool
		if end, ok = job.ParseEvent(in.EventType); !ok {
			return invalid("/event_type", "there is no event %s; GET /v1/webhook_event_types lists them", job.Quote(in.EventType))
		}
	}
	tenant, id := named(r)
	status, err := a.endpoints.Test(r.Context(), tenant, id, end)
	if err != nil {
		return err
	}
	api.WriteJSON(w, http.StatusOK, testObject{
		Object: "webhook_endpoint.test", Endpoint: id, EventType: end.Event(), StatusCode: status, Success: true,
	})
	return nil
}

func (a *API) eventTypes(w http.ResponseWriter, _ *http.Request) error {
	api.WriteJSON(w, http.StatusOK, typeList{Object: "list", Data: job.EventNames()})
	return nil
}
