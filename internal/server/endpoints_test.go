package server

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/webhook"
)

// endpoint makes a webhook endpoint, and returns its id and its secret.
func (s *testServer) endpoint(url, events string) (id string, secret webhook.Secret) {
	s.t.Helper()
	status, e := s.call("POST", "/v1/webhook_endpoints", `{"name":"shop","url":"`+url+`","event_types":["`+events+`"]}`)
	text, _ := e["signing_secret"].(string)
	secret, err := webhook.ParseSecret(text)
	if status != 200 || err != nil || e["object"] != "webhook_endpoint" || e["status"] != "enabled" {
		s.t.Fatalf("%d %v %v", status, e, err)
	}
	return e["id"].(string), secret
}

// untilDisabled waits until an endpoint is disabled, which follows an attempt.
func (s *testServer) untilDisabled(id string) (e map[string]any) {
	s.t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for deadline := time.After(time.Minute); e["status"] != "disabled"; {
		select {
		case <-again.C:
			_, e = s.call("GET", "/v1/webhook_endpoints/"+id, "")
		case <-deadline:
			s.t.Fatalf("the endpoint is %v", e)
		}
	}
	return e
}

// signedWith reports whether a delivery has a signature by the secret.
func (a *arrival) signedWith(secret webhook.Secret) bool {
	h := http.Header{}
	h.Set("Webhook-Id", a.id)
	h.Set("Webhook-Timestamp", a.timestamp)
	h.Set("Webhook-Signature", a.signature)
	return webhook.Verify(secret, h, []byte(a.body), a.at) == nil
}

func TestEndpointReceivesTheEndsOfAllJobs(t *testing.T) {
	t.Parallel()
	s, r := serve(t, nil), newReceiver(t)
	s.call("POST", "/v1/jobs", `{"queue":"sim","input":{}}`, "Prefer", "wait=60")
	id, secret := s.endpoint(r.URL, "job.succeeded")
	for _, user := range []string{"ann", "bob"} {
		_, j := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{}}`, "Prefer", "wait=60", "X-User-ID", user)
		got := r.next()
		if got.event.Data.ID != j["id"] || !got.signedWith(secret) {
			t.Errorf("got %+v of %v", got, j)
		}
		_, d := s.call("GET", "/v1/jobs/"+got.id, "", "X-User-ID", user)
		if d["key"] != id || d["queue"] != job.CallbackQueue {
			t.Errorf("the delivery is %v", d)
		}
	}
	_, later := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{},"delay_s":3600}`)
	s.call("POST", "/v1/jobs/"+later["id"].(string)+"/cancel", "") // an event that it does not take
	// A callback of a job is a receiver of its own.
	s.call("POST", "/v1/jobs", `{"queue":"sim","input":{},"callback":{"url":"`+r.URL+`/own","secret_id":"`+id+`"}}`)
	a, b := r.next(), r.next()
	if a.id == b.id || a.path == b.path || a.body != b.body || !a.signedWith(secret) || !b.signedWith(secret) {
		t.Errorf("got %+v and %+v", a, b)
	}
	r.none()
}

func TestSecretIsShownOnceAndLivesOnBesideTheNextOne(t *testing.T) {
	t.Parallel()
	s, r := serve(t, nil), newReceiver(t)
	id, first := s.endpoint(r.URL, "done")
	rotate := func(body string) webhook.Secret {
		t.Helper()
		_, e := s.call("POST", "/v1/webhook_endpoints/"+id+"/rotate_secret", body)
		secret, err := webhook.ParseSecret(e["signing_secret"].(string))
		if err != nil {
			t.Fatal(err)
		}
		return secret
	}
	second := rotate("")
	s.call("POST", "/v1/jobs", `{"queue":"sim","input":{}}`)
	if got := r.next(); !got.signedWith(first) || !got.signedWith(second) {
		t.Errorf("got the signatures %q, want those of both secrets", got.signature)
	}
	third := rotate(`{"keep_old_secret_active_for_24_hours":false}`)
	s.call("POST", "/v1/jobs", `{"queue":"sim","input":{}}`)
	if got := r.next(); got.signedWith(first) || got.signedWith(second) || !got.signedWith(third) {
		t.Errorf("got the signatures %q, want that of the newest secret", got.signature)
	}
	s.call("POST", "/v1/webhook_endpoints/default/rotate_secret", "")
	var shown strings.Builder
	for _, path := range []string{"/v1/webhook_endpoints", "/v1/webhook_endpoints/" + id, "/v1/webhook_endpoints/default", "/v1/jobs", "/metrics"} {
		_, text := s.text("GET", path, "")
		shown.WriteString(text)
	}
	if strings.Contains(shown.String(), "whsec_") {
		t.Errorf("a secret is shown again: %s", shown.String())
	}
}

func TestEndpointsAreListedChangedTestedAndDeleted(t *testing.T) {
	t.Parallel()
	s, r := serve(t, nil), newReceiver(t)
	a, _ := s.endpoint(r.URL+"/a", "done")
	b, _ := s.endpoint(r.URL+"/b", "done")
	_, page := s.call("GET", "/v1/webhook_endpoints?limit=1", "")
	if page["first_id"] != b || page["has_more"] != true {
		t.Errorf("the first page is %v", page)
	}
	_, page = s.call("GET", "/v1/webhook_endpoints?limit=1&after="+b, "")
	if page["last_id"] != a || page["has_more"] != false {
		t.Errorf("the second page is %v", page)
	}
	status, e := s.call("POST", "/v1/webhook_endpoints/"+a, `{"url":"`+r.URL+`/moved","event_types":["job.failed"]}`)
	if status != 200 || e["url"] != r.URL+"/moved" || len(e["event_types"].([]any)) != 1 || e["name"] != "shop" {
		t.Errorf("%d %v", status, e)
	}
	status, sent := s.call("POST", "/v1/webhook_endpoints/"+a+"/test", `{"event_type":"job.failed"}`)
	if got := r.next(); status != 200 || sent["status_code"] != 204.0 || got.path != "/moved" || got.event.Type != "job.failed" {
		t.Errorf("%d %v: %+v", status, sent, got)
	}
	if status, gone := s.call("DELETE", "/v1/webhook_endpoints/"+a, ""); status != 200 || gone["deleted"] != true {
		t.Errorf("%d %v", status, gone)
	}
	for _, call := range []string{"GET ", "POST ", "DELETE ", "POST /rotate_secret", "POST /test", "POST /disable", "POST /enable"} {
		method, path, _ := strings.Cut(call, " ")
		if status, text := s.text(method, "/v1/webhook_endpoints/"+a+path, ""); status != 404 {
			t.Errorf("%s of a deleted endpoint: %d %s", call, status, text)
		}
	}
	for body, field := range map[string]string{
		`{"url":"http://a.example","event_types":["done"]}`:              "/name",
		`{"name":"x","event_types":["done"]}`:                            "/url",
		`{"name":"x","url":"http://a.example"}`:                          "/event_types",
		`{"name":"x","url":"file:///etc/passwd","event_types":["done"]}`: "/url",
		`{"name":"x","url":"http://a.example","event_types":["x"]}`:      "/event_types",
	} {
		if status, answer := s.call("POST", "/v1/webhook_endpoints", body); status != 400 || answer["field"] != field {
			t.Errorf("%s: %d %v", body, status, answer)
		}
	}
	if status, types := s.call("GET", "/v1/webhook_event_types", ""); status != 200 || len(types["data"].([]any)) != 4 {
		t.Errorf("%d %v", status, types)
	}
}

// A receiver that answers 410 wants no more. Once its endpoint is enabled again, one call makes
// what has failed meanwhile.
func TestGoneEndpointIsDisabledAndItsDeliveriesAreRedriven(t *testing.T) {
	t.Parallel()
	s, r := serve(t, nil), newReceiver(t)
	id, _ := s.endpoint(r.URL, "done")
	r.answer(410)
	s.call("POST", "/v1/jobs", `{"queue":"sim","input":{}}`)
	first := r.next()
	s.ends(first.id, "failed")
	if e := s.untilDisabled(id); !strings.Contains(e["disabled_reason"].(string), "410") {
		t.Errorf("the endpoint is %v", e)
	}
	s.call("POST", "/v1/jobs", `{"queue":"sim","input":{}}`, "Prefer", "wait=60")
	if list := s.deliveries(""); len(list) != 1 {
		t.Errorf("a job that was submitted since has a delivery: %v", list)
	}
	r.answer(204)
	s.call("POST", "/v1/jobs/"+first.id+"/retry", "")
	s.ends(first.id, "failed")
	if d := s.deliveries("")[0]; d["error"].(map[string]any)["code"] != "endpoint_disabled" {
		t.Errorf("a delivery to a disabled endpoint is %v", d)
	}
	r.none()
	s.call("POST", "/v1/webhook_endpoints/"+id+"/enable", "")
	status, redriven := s.call("POST", "/v1/jobs/retry", `{"queue":"callbacks","key":"`+id+`","status":"failed","created_after":"2020-01-01T00:00:00Z"}`)
	if got := r.next(); status != 200 || got.id != first.id || got.body != first.body {
		t.Errorf("%d %v: got %+v, want the delivery %+v again", status, redriven, got, first)
	}
	s.ends(first.id, "succeeded")
}
