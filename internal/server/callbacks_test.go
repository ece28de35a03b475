package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/webhook"
)

// receiver is a receiver of callbacks that records the requests.
type receiver struct {
	*httptest.Server
	t        *testing.T
	arrivals chan arrival

	mu     sync.Mutex
	status func(arrival) int // of the answer; guarded by mu
}

// arrival is a request that a receiver got.
type arrival struct {
	path, id, timestamp, signature string
	at                             time.Time // as the header says
	body                           string
	event                          struct {
		Type string
		Data struct {
			ID, Status string
			Result     json.RawMessage
		}
	}
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{t: t, arrivals: make(chan arrival, 1000), status: func(arrival) int { return 204 }}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	h := req.Header
	a := arrival{path: req.URL.Path, id: h.Get("Webhook-Id"), timestamp: h.Get("Webhook-Timestamp"), signature: h.Get("Webhook-Signature"), body: string(body)}
	var seconds int64
	fmt.Sscan(a.timestamp, &seconds)
	a.at = time.Unix(seconds, 0)
	if err != nil || json.Unmarshal(body, &a.event) != nil {
		r.t.Errorf("the body %q: %v", body, err)
	}
	r.mu.Lock()
	status := r.status
	r.mu.Unlock()
	w.WriteHeader(status(a))
	r.arrivals <- a
}

// answer sets the status of all further answers.
func (r *receiver) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = func(arrival) int { return status }
}

// next returns the next request.
func (r *receiver) next() arrival {
	r.t.Helper()
	select {
	case a := <-r.arrivals:
		return a
	case <-time.After(time.Minute):
		r.t.Fatal("no delivery came")
		panic("unreachable")
	}
}

// none checks that no further request has come.
func (r *receiver) none() {
	r.t.Helper()
	select {
	case a := <-r.arrivals:
		r.t.Errorf("one delivery too many: %+v", a)
	default:
	}
}

// deliveries returns the jobs of the queue callbacks, newest first.
func (s *testServer) deliveries(filter string) (list []map[string]any) {
	s.t.Helper()
	_, page := s.call("GET", "/v1/jobs?queue=callbacks&limit=100"+filter, "")
	for _, one := range page["data"].([]any) {
		list = append(list, one.(map[string]any))
	}
	return list
}

func TestEndOfAJobIsDelivered(t *testing.T) {
	t.Parallel()
	s, r := serve(t, nil), newReceiver(t)
	if _, queues := s.text("GET", "/v1/queues", ""); strings.Contains(queues, job.CallbackQueue) {
		t.Errorf("the queue of deliveries is shown before the first: %s", queues)
	}
	_, j := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":"hello"},"callback":"`+r.URL+`/here"}`, "Prefer", "wait=60")
	got := r.next()
	if got.path != "/here" || got.event.Type != "job.succeeded" || got.event.Data.ID != j["id"] || string(got.event.Data.Result) != `{"echo":"hello"}` {
		t.Errorf("got %+v of %v", got, j)
	}
	s.ends(got.id, "succeeded")
	d := s.deliveries("")[0]
	if d["id"] != got.id || d["metadata"].(map[string]any)["job"] != j["id"] || d["key"] != r.URL {
		t.Errorf("the delivery is %v", d)
	}
	r.none()
	e, err := s.components.callbacks.Get(t.Context(), "", "default")
	if err != nil {
		t.Fatal(err)
	}
	if want := webhook.Sign([]webhook.Secret{e.Secret}, got.id, got.at, []byte(got.body)); got.signature != want {
		t.Errorf("the signature is %s, want %s", got.signature, want)
	}
}

func TestEveryKindOfSubmitTakesACallback(t *testing.T) {
	t.Parallel()
	s, r := serve(t, nil), newReceiver(t)
	fields := `"queue":"sim","input":{},"callback":{"url":"` + r.URL + `/%s","events":["done"]}`
	s.call("POST", "/v1/jobs/batch", `{"jobs":[{`+fmt.Sprintf(fields, "batch")+`}]}`)
	if got := r.next(); got.path != "/batch" {
		t.Errorf("got %+v", got)
	}
	_, later := s.call("POST", "/v1/jobs", `{`+fmt.Sprintf(fields, "cancelled")+`,"delay_s":3600}`)
	s.call("POST", "/v1/jobs/"+later["id"].(string)+"/cancel", "")
	if got := r.next(); got.path != "/cancelled" || got.event.Type != "job.cancelled" {
		t.Errorf("got %+v", got)
	}
	_, failed := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{"fail_attempts":1},"max_attempts":1,"callback":{"url":"`+r.URL+`/failed","events":["job.failed"]}}`, "Prefer", "wait=60")
	if got := r.next(); got.event.Type != "job.failed" || got.event.Data.ID != failed["id"] {
		t.Errorf("got %+v", got)
	}
	s.call("POST", "/v1/jobs", `{"queue":"sim","input":{},"callback":{"url":"`+r.URL+`/no","events":["job.failed"]}}`, "Prefer", "wait=60")
	if list := s.deliveries(""); len(list) != 3 {
		t.Errorf("%d deliveries, want none of the event that was not asked for: %v", len(list), list)
	}
}

func TestQueueHasACallbackForJobsThatNameNone(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	s := serve(t, func(c *config.Config) {
		for name, q := range c.Queues {
			q.Callback = r.URL + "/" + name
			c.Queues[name] = q
		}
	})
	s.call("POST", "/v1/jobs", `{"queue":"sim","input":{}}`)
	if got := r.next(); got.path != "/sim" {
		t.Errorf("got %+v", got)
	}
	s.call("POST", "/v1/jobs", `{"queue":"sim","input":{},"callback":"`+r.URL+`/own"}`)
	if got := r.next(); got.path != "/own" {
		t.Errorf("got %+v", got)
	}
	s.call("POST", "/api/chat", `{"query":"hello"}`)
	if got := r.next(); got.path != "/chat" || got.event.Type != "job.succeeded" {
		t.Errorf("got %+v", got)
	}
	r.none()
}

func TestBadCallbackIsRefusedBeforeAnythingIsStored(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for _, c := range []struct{ callback, code, field string }{
		{`7`, "invalid_request", "/callback"},
		{`{}`, "invalid_request", "/callback/url"},
		{`{"url":"http://a.example","event":["done"]}`, "invalid_request", "/callback/event"},
		{`{"url":"http://a.example","events":["job.ended"]}`, "invalid_request", "/callback/events"},
		{`"ftp://a.example/x"`, "bad_callback", "/callback/url"},
		{`"http://user:secret@a.example/"`, "bad_callback", "/callback/url"},
		{`"http://a.example/` + strings.Repeat("x", job.MaxCallbackURL) + `"`, "bad_callback", "/callback/url"},
		{`{"url":"https://a.example","secret_id":"whe_unknown"}`, "bad_callback", "/callback/secret_id"},
	} {
		status, answer := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{},"callback":`+c.callback+`}`)
		if status != 400 || answer["code"] != c.code || answer["field"] != c.field {
			t.Errorf("%s: %d %v", c.callback, status, answer)
		}
	}
	if status, answer := s.call("POST", "/v1/jobs", `{"queue":"callbacks","input":{}}`); status != 403 || answer["code"] != "forbidden" {
		t.Errorf("a submit to the queue of deliveries: %d %v", status, answer)
	}
	if _, page := s.call("GET", "/v1/jobs", ""); len(page["data"].([]any)) != 0 {
		t.Errorf("jobs were stored: %v", page)
	}
}
