package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/netguard"
)

// endpoints is a fixed target, and a record of what was sent.
type endpoints struct {
	secrets []Secret
	url     string // of deliveries to an endpoint
	err     error  // of Target

	mu   sync.Mutex
	sent []Outcome // guarded by mu
}

func (e *endpoints) Target(_ context.Context, _ job.Owner, d *Delivery) (Target, error) {
	if d.Endpoint != "" {
		return Target{URL: e.url, Secrets: e.secrets}, e.err
	}
	return Target{URL: d.URL, Secrets: e.secrets}, e.err
}

func (e *endpoints) Sent(_ job.Owner, _ *Delivery, o Outcome) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sent = append(e.sent, o)
}

func (e *endpoints) outcomes() []Outcome {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sent
}

// newExecutor makes an executor that reaches loopback, with one secret.
func newExecutor(t testing.TB, change func(*Config)) (*Executor, *endpoints) {
	known := &endpoints{secrets: []Secret{NewSecret()}}
	c := Config{Guard: &netguard.Guard{Loopback: true}, Endpoints: known, Timeout: time.Minute}
	if change != nil {
		change(&c)
	}
	e := New(c)
	t.Cleanup(e.Close)
	return e, known
}

var testEvent = json.RawMessage(`{"type":"job.succeeded","timestamp":"2026-11-30T09:01:00.123Z","data":{"id":"job_1"}}`)

// deliveryTo returns the task of a first attempt.
func deliveryTo(url string) exec.Task {
	d := Delivery{URL: url, Event: testEvent}
	task := exectest.Task(d.Input())
	task.Job.MaxAttempts, task.Job.Policy = Policy()
	task.Job.Queue = job.CallbackQueue
	return task
}

// attempt makes one attempt and returns its fault, or nil.
func attempt(t *testing.T, e *Executor, task exec.Task) (*job.Fault, exectest.Record) {
	t.Helper()
	a := exectest.Start(t, e, task)
	err := a.Wait()
	f, isFault := errors.AsType[*job.Fault](err)
	if err != nil && !isFault {
		t.Fatalf("the attempt ended with %v, want a fault", err)
	}
	return f, a.Sink.Record()
}

func TestExecutor(t *testing.T) {
	arrived := make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good":
			w.WriteHeader(http.StatusNoContent)
		case "/failing":
			w.WriteHeader(http.StatusTeapot) // no sign of a receiver that is down
		case "/endless":
			_ = readAll(t, r) // or the end of the connection is not noticed
			arrived <- struct{}{}
			<-r.Context().Done()
		}
	}))
	defer receiver.Close()
	input := func(path string) []byte {
		return (&Delivery{URL: receiver.URL + path, Event: testEvent}).Input()
	}
	(&exectest.Suite{
		New: func(t *testing.T) exec.Executor {
			e, _ := newExecutor(t, nil)
			t.Cleanup(receiver.CloseClientConnections) // or their goroutines look like leaks
			return closing{e}
		},
		Good:    input("/good"),
		Failing: input("/failing"),
		Endless: input("/endless"),
		Started: func(*exectest.Attempt) { <-arrived },
		Writing: input("/failing"),
		Invalid: [][]byte{nil, []byte(`[]`), []byte(`{}`), []byte(`{"url":"https://a.example/"}`), []byte(`{"url":"https://a.example/","event":1}`), []byte(`{"event":{}}`)},
	}).Run(t)
}

// closing closes the connections of each attempt, whose goroutines would look like leaks.
type closing struct{ *Executor }

func (e closing) Execute(ctx context.Context, t exec.Task, out exec.Sink) error {
	defer e.Close()
	return e.Executor.Execute(ctx, t, out)
}

func TestDelivery(t *testing.T) {
	t.Parallel()
	e, known := newExecutor(t, func(c *Config) {})
	known.secrets = append(known.secrets, NewSecret()) // the old one lives
	task := exec.Task{}
	received := 0
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		received++
		body := readAll(t, r)
		for _, s := range known.secrets {
			if err := Verify(s, r.Header, body, time.Now()); err != nil {
				t.Errorf("the delivery is not signed: %v", err)
			}
		}
		if string(body) != string(testEvent) {
			t.Errorf("the body is %s", body)
		}
		h := r.Header
		if r.Method != "POST" || h.Get("Content-Type") != "application/json" || h.Get(HeaderID) != task.Job.ID.String() || strings.Contains(h.Get(HeaderID), ".") {
			t.Errorf("%s %v", r.Method, h)
		}
		if h.Get("Traceparent") != task.Job.Trace || h.Values("Idempotency-Key") != nil || h.Values("Accept-Encoding") != nil {
			t.Errorf("the headers are %v", h)
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer receiver.Close()
	task = deliveryTo(receiver.URL + "/callback?job=1")
	task.Job.Trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	f, r := attempt(t, e, task)
	if f != nil || received != 1 || len(r.Results) != 1 || !strings.HasPrefix(string(r.Results[0].Body), `{"status":202,"duration_ms":`) || len(r.Entries) != 0 {
		t.Errorf("%v, %d requests, %+v", f, received, r)
	}
	if sent := known.outcomes(); len(sent) != 1 || !sent[0].OK || sent[0].Status != 202 || sent[0].At.IsZero() {
		t.Errorf("reported are %+v", sent)
	}
}

// What a receiver answers decides what follows.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status     int
		retryAfter string
		code       string // "" for a success
		class      job.Class
		least      time.Duration // of the wait
	}{
		{200, "", "", 0, 0}, {204, "3600", "", 0, 0}, {299, "", "", 0, 0},
		{300, "", codeRedirect, job.Retryable, 5 * time.Second},
		{302, "", codeRedirect, job.Retryable, 5 * time.Second},
		{308, "", codeRedirect, job.Retryable, 5 * time.Second},
		{400, "", codeStatus, job.Retryable, 5 * time.Second},
		{401, "", codeStatus, job.Retryable, 5 * time.Second},
		{404, "", codeStatus, job.Retryable, 5 * time.Second},
		{410, "", codeGone, job.Final, 0},
		{410, "60", codeGone, job.Final, 0},
		{429, "", codeStatus, job.Retryable, 5 * time.Second},
		{429, "60", codeStatus, job.Retryable, time.Minute},
		{429, "1", codeStatus, job.Retryable, 5 * time.Second}, // the schedule is longer
		{503, "99999999999", codeStatus, job.Retryable, 24 * time.Hour},
		{503, "99999999999999999999", codeStatus, job.Retryable, 5 * time.Second},
		{503, "-5", codeStatus, job.Retryable, 5 * time.Second},
		{503, "soon", codeStatus, job.Retryable, 5 * time.Second},
		{503, time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), codeStatus, job.Retryable, 59 * time.Minute},
		{503, "Mon, 01 Jan 2001 00:00:00 GMT", codeStatus, job.Retryable, 5 * time.Second},
		{500, "", codeStatus, job.Retryable, 5 * time.Second},
		{599, "", codeStatus, job.Retryable, 5 * time.Second},
	} {
		e, known := newExecutor(t, nil)
		followed := 0
		receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				followed++
				return
			}
			w.Header().Set("Location", "/elsewhere")
			if c.retryAfter != "" {
				w.Header().Set("Retry-After", c.retryAfter)
			}
			w.WriteHeader(c.status)
			if c.status != 204 {
				_, _ = w.Write([]byte("a secret of the inside"))
			}
		}))
		f, r := attempt(t, e, deliveryTo(receiver.URL))
		receiver.Close()
		if c.code == "" {
			if f != nil {
				t.Errorf("%d: %v", c.status, f)
			}
			continue
		}
		if f == nil || f.Code != c.code || f.Class != c.class || followed != 0 {
			t.Errorf("%d: %+v, want %s; %d redirects were followed", c.status, f, c.code, followed)
			continue
		}
		if c.class == job.Retryable && (f.RetryAfter < c.least || f.RetryAfter > c.least+c.least/8) {
			t.Errorf("%d with Retry-After %q waits %v, want %v", c.status, c.retryAfter, f.RetryAfter, c.least)
		}
		events := r.OfKind(job.KindJSON)
		if len(events) != 1 || !strings.Contains(events[0], `"status":`) || !strings.Contains(events[0], `"at":"20`) || len(r.Results) != 0 {
			t.Errorf("%d: the attempt wrote %+v", c.status, r)
		}
		if strings.Contains(f.Error()+strings.Join(events, ""), "secret") {
			t.Errorf("%d: the answer is shown: %v, %v", c.status, f, events)
		}
		if o := known.outcomes()[0]; o.Gone != (c.status == 410) || o.OK || o.Status != c.status {
			t.Errorf("%d: reported is %+v", c.status, o)
		}
	}
}

// Each failure is followed by the wait of its number, with jitter.
func TestWaitsFollowTheSchedule(t *testing.T) {
	t.Parallel()
	for failures := 1; failures <= len(Schedule); failures++ {
		j := job.Job{Attempt: failures + 2, Losses: 2}
		for range 100 {
			got, want := nextDelay(&j), time.Duration(0)
			if failures < len(Schedule) {
				want = Schedule[failures]
			}
			if got < want || got > want+want/10 {
				t.Fatalf("after failure %d it waits %v, want %v to a tenth more", failures, got, want)
			}
		}
	}
}

func TestTargetFails(t *testing.T) {
	t.Parallel()
	disabled := &job.Fault{Code: "endpoint_disabled", Message: "The endpoint is disabled.", Class: job.Final}
	e, known := newExecutor(t, nil)
	known.err = disabled
	if f, _ := attempt(t, e, deliveryTo("http://127.0.0.1:1")); f != disabled {
		t.Errorf("%v", f)
	}
	known.err = errors.New("the database is away at 10.0.0.7")
	f, _ := attempt(t, e, deliveryTo("http://127.0.0.1:1"))
	if f == nil || f.Class != job.Wait || strings.Contains(f.Message, "10.0.0.7") || len(known.outcomes()) != 0 {
		t.Errorf("%+v, %v", f, known.outcomes())
	}
}

// A delivery to an endpoint goes to the URL that the endpoint has now.
func TestDeliveryToAnEndpoint(t *testing.T) {
	t.Parallel()
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer receiver.Close()
	e, known := newExecutor(t, nil)
	known.url = receiver.URL
	task := deliveryTo("")
	task.Input = (&Delivery{Endpoint: "we_1", Event: testEvent}).Input()
	if f, _ := attempt(t, e, task); f != nil {
		t.Error(f)
	}
	if o := e.Send(t.Context(), Target{URL: receiver.URL, Secrets: known.secrets}, "msg_1", testEvent); !o.OK || o.Status != 200 || o.Code != "" {
		t.Errorf("%+v", o)
	}
}

// What may not be reached is refused with the guard's code. A name may resolve to another address
// later, a URL does not change.
func TestGuardedDestinations(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]struct {
		code  netguard.Code
		class job.Class
	}{
		"https://10.0.0.1/":                       {netguard.RefusedAddress, job.Final},
		"http://169.254.169.254/latest":           {netguard.RefusedAddress, job.Final},
		"http://93.184.216.34/":                   {netguard.NeedsHTTPS, job.Final},
		"https://93.184.216.34:25/":               {netguard.RefusedPort, job.Final},
		"https://user@app.example.com/":           {netguard.BadURL, job.Final},
		"https://nothing.invalid/":                {netguard.NoAddress, job.Retryable},
		"http://127.0.0.1:" + closedPort(t) + "/": {netguard.Unreachable, job.Retryable},
	} {
		e, known := newExecutor(t, func(c *Config) {
			c.Guard = &netguard.Guard{Loopback: true, Resolver: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, errors.New("no network")
			}}}
		})
		f, _ := attempt(t, e, deliveryTo(url))
		if f == nil || f.Code != string(want.code) || f.Class != want.class || known.outcomes()[0].Code != f.Code {
			t.Errorf("%s: %+v, want %v", url, f, want)
		}
	}
}

func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}
