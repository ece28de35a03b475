package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
)

// script answers the first request with the first handler, and so on; the last
// answers all that follow.
func script(handlers ...http.HandlerFunc) (http.Handler, *int) {
	n := 0
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := handlers[min(n, len(handlers)-1)]
		n++
		h(w, r)
	}), &n
}

func okJob(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, `{"id":"job_1","object":"job","status":"succeeded"}`)
}

func problemHandler(status int, code, after string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { writeProblem(w, status, code, after) }
}

func TestRetriesSafeCalls(t *testing.T) {
	t.Parallel()
	cutting := func(http.ResponseWriter, *http.Request) { cutConnection() }
	get := func(ctx context.Context, c *Client) error { _, err := c.Get(ctx, "job_1"); return err }
	submit := func(ctx context.Context, c *Client) error {
		_, err := c.Submit(ctx, Submission{Queue: "sim"})
		return err
	}
	retry := func(ctx context.Context, c *Client) error { _, err := c.Retry(ctx, "job_1"); return err }
	cancel := func(ctx context.Context, c *Client) error { _, err := c.Cancel(ctx, "job_1"); return err }
	tests := []struct {
		rule  string
		first http.HandlerFunc
		call  func(context.Context, *Client) error
		tries int
	}{
		{"a read is retried after a cut connection", cutting, get, 2},
		{"a submit with a key is retried after a cut connection", cutting, submit, 2},
		{"a cancel is retried after a cut connection", cutting, cancel, 2},
		{"a retry of a job is not repeated after a cut connection", cutting, retry, 1},
		{"a submit is retried after a full queue", problemHandler(503, CodeQueueFull, "1"), submit, 2},
		{"a rate-limited call is retried", problemHandler(429, "rate_limited", "1"), retry, 2},
		{"a call is retried after 502 from a proxy", problemHandler(502, "x", ""), get, 2},
		{"a retry of a job is not repeated after 504 from a proxy", problemHandler(504, "x", ""), retry, 1},
		{"an invalid request is not retried", problemHandler(400, CodeInvalid, ""), submit, 1},
		{"a call for an unknown job is not retried", problemHandler(404, CodeNotFound, ""), get, 1},
		{"a call is not retried after an internal error", problemHandler(500, "internal", ""), get, 1},
		{"a call is not retried if Retry-After exceeds 30 s", problemHandler(503, CodeQueueFull, "31"), submit, 1},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			withNetwork(t, func(t *testing.T, n *network, c *Client) {
				h, tries := script(tt.first, okJob)
				n.start(h)
				err := tt.call(t.Context(), c)
				if *tries != tt.tries {
					t.Errorf("%d tries, want %d", *tries, tt.tries)
				}
				if (err == nil) != (tt.tries > 1) {
					t.Errorf("the error is %v", err)
				}
			})
		})
	}
}

func TestRetriesKeepTheIdempotencyKey(t *testing.T) {
	t.Parallel()
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		var keys []string
		n.start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			keys = append(keys, r.Header.Get("Idempotency-Key"))
			if len(keys)%3 != 0 {
				cutConnection()
			}
			okJob(w, r)
		}))
		for range 2 {
			if _, err := c.Submit(t.Context(), Submission{Queue: "sim"}); err != nil {
				t.Fatal(err)
			}
		}
		if keys[0] == "" || keys[0] != keys[1] || keys[1] != keys[2] {
			t.Errorf("one submit was sent with the keys %q", keys[:3])
		}
		if keys[3] == keys[0] {
			t.Error("two submits were sent with the same key")
		}
	})
}

func TestSubmitWithoutRetriesSendsNoRandomKey(t *testing.T) {
	t.Parallel()
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		var keys []string
		n.start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			keys = append(keys, r.Header.Get("Idempotency-Key"))
			cutConnection()
		}))
		for _, key := range []string{"", "mine"} {
			_, err := c.Submit(t.Context(), Submission{Queue: "sim", IdempotencyKey: key})
			wantCode(t, err, CodeUnreachable)
		}
		if len(keys) != 2 || keys[0] != "" || keys[1] != "mine" {
			t.Errorf("the keys were %q", keys)
		}
	}, WithRetries(0))
}

func TestRetryWaitsForRetryAfter(t *testing.T) {
	t.Parallel()
	var retries []Retry
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		h, _ := script(problemHandler(503, CodeQueueFull, "7"), okJob)
		n.start(h)
		start := time.Now()
		if _, err := c.Get(t.Context(), "job_1"); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited != 7*time.Second {
			t.Errorf("waited %s, want 7 s", waited)
		}
		if len(retries) != 1 || retries[0].Try != 1 || retries[0].Delay != 7*time.Second || CodeOf(retries[0].Err) != CodeQueueFull {
			t.Errorf("the hook got %+v", retries)
		}
	}, WithRetryHook(func(r Retry) { retries = append(retries, r) }))
}

func TestCallFailsWhenContextEndsBeforeRetry(t *testing.T) {
	t.Parallel()
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		n.start(problemHandler(503, CodeQueueFull, "7"))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		_, err := c.Get(ctx, "job_1")
		if e := wantCode(t, err, CodeQueueFull); e.RetryAfter != 7*time.Second || e.Status != 503 {
			t.Errorf("the refusal is %+v", e)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("waited %s before the error", waited)
		}
	})
}

func TestCallEndsWithContext(t *testing.T) {
	t.Parallel()
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		n.start(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := c.Get(ctx, "job_1")
		if !errors.Is(err, context.Canceled) || CodeOf(err) != "" {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestCallTimesOutWithoutAnswer(t *testing.T) {
	t.Parallel()
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		n.start(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		start := time.Now()
		_, err := c.Get(t.Context(), "job_1")
		wantCode(t, err, CodeUnreachable)
		if errors.Is(err, context.DeadlineExceeded) {
			t.Error("a slow server is reported as the caller's own deadline")
		}
		if waited := time.Since(start); waited != 2*time.Second {
			t.Errorf("waited %s", waited)
		}
	}, WithRetries(0), WithTimeout(2*time.Second))
}

func TestTimeoutExcludesLongPollWait(t *testing.T) {
	t.Parallel()
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		n.start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-time.After(maxWait)
			okJob(w, r)
		}))
		if _, err := c.SubmitAndWait(t.Context(), Submission{Queue: "sim"}); err != nil {
			t.Error(err)
		}
	}, WithRetries(0), WithTimeout(time.Second))
}

func TestCallReportsUnreachableServer(t *testing.T) {
	t.Parallel()
	withNetwork(t, func(t *testing.T, _ *network, c *Client) {
		_, err := c.Get(t.Context(), "job_1")
		e := wantCode(t, err, CodeUnreachable)
		if e.Status != 0 || !strings.Contains(e.Error(), "http://server.test") {
			t.Errorf("the error is %+v", e)
		}
	})
}

func TestReadRefusal(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule, body, contentType string
		want                    Error
	}{
		{
			"a problem has a code, a message and a field", `{"code":"invalid_request","title":"Bad","detail":"the queue is missing","field":"/queue"}`, "application/problem+json",
			Error{Status: 418, Code: "invalid_request", Message: "the queue is missing", Field: "/queue"},
		},
		{
			"a refusal has the job's failure", `{"code":"conflict","detail":"the job failed","error":{"code":"x","attempt":2}}`, "application/problem+json",
			Error{Status: 418, Code: "conflict", Message: "the job failed", Failure: &Failure{Code: "x", Attempt: 2}},
		},
		{
			"without a detail the title is the message", `{"code":"x","title":"Bad"}`, "application/problem+json",
			Error{Status: 418, Code: "x", Message: "Bad"},
		},
		{
			"HTML from another program is a bad answer", `<html>nginx</html>`, "text/html",
			Error{Status: 418, Code: CodeBadAnswer, Message: "the server answered 418 I'm a teapot without saying why; is the URL right?"},
		},
		{
			"a very long refusal is a bad answer", strings.Repeat(" ", 1<<20) + `{"code":"x"}`, "application/problem+json",
			Error{Status: 418, Code: CodeBadAnswer, Message: "the server answered 418 I'm a teapot without saying why; is the URL right?"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			c := newTestClient(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.contentType)
				w.WriteHeader(418)
				_, _ = io.WriteString(w, tt.body)
			})
			_, err := c.Get(t.Context(), "job_1")
			if e := wantCode(t, err, tt.want.Code); !reflect.DeepEqual(*e, tt.want) {
				t.Errorf("read %+v, want %+v", *e, tt.want)
			}
		})
	}
}

func TestCallRefusesBadAnswer(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule string
		h    http.HandlerFunc
	}{
		{"HTML is a bad answer", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }},
		{"a redirect is a bad answer", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }},
		{"a very long answer is a bad answer", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000000")
			_, _ = io.WriteString(w, "{")
		}},
		{"incomplete JSON is a bad answer", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"id":`) }},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			_, err := newTestClient(t, tt.h).Get(t.Context(), "job_1")
			wantCode(t, err, CodeBadAnswer)
		})
	}
}

func TestRequestSetsUserAndEscapesID(t *testing.T) {
	t.Parallel()
	var got *http.Request
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = r; okJob(w, r) }))
	defer srv.Close()
	c, err := New(srv.URL+"/below/", WithUser("ada"), WithUserAgent("test"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Cancel(t.Context(), "../jobs?x=1#"); err != nil {
		t.Fatal(err)
	}
	if got.RequestURI != "/below/v1/jobs/..%2Fjobs%3Fx=1%23/cancel" {
		t.Errorf("the URI is %s", got.RequestURI)
	}
	if got.Header.Get("X-User-ID") != "ada" || got.UserAgent() != "test" {
		t.Errorf("the headers are %v", got.Header)
	}
}

// An invalid value is refused without a request and without a retry.
func TestInvalidHeaderValueIsNotSent(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"a\nb", "a\r\nX-Evil: 1", "\x00", "a\x7f", "tab\t", " ann", "ann "} {
		if _, err := New("http://server.test", WithUser(text)); err == nil || !strings.Contains(err.Error(), "the user ") {
			t.Errorf("the user %q: %v", text, err)
		}
		if _, err := New("http://server.test", WithUserAgent(text)); err == nil {
			t.Errorf("the user agent %q was accepted", text)
		}
		if _, err := New("http://server.test", WithKey(text+"secret"+text)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("the key of %q: %v", text, err)
		}
		withNetwork(t, func(t *testing.T, _ *network, c *Client) {
			begun := time.Now()
			_, err := c.Submit(t.Context(), Submission{Queue: "sim", IdempotencyKey: text})
			if err == nil || CodeOf(err) != "" || !strings.Contains(err.Error(), "the idempotency key ") || time.Since(begun) > 0 {
				t.Errorf("the key %q: %v after %v", text, err, time.Since(begun))
			}
		})
	}
	if c, err := New("http://server.test", WithUser("Ünal O'Neil (x)")); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
}

func TestNewRefusesInvalidURL(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "localhost:8080", "ftp://x", "http://", "http://x?y=1", "http://x#y", "http://[::1", "http://x:0", "http://x:65536"} {
		if _, err := New(text); err == nil {
			t.Errorf("the URL %q was accepted", text)
		}
	}
}

// newTestClient creates a client for a test server on loopback.
func newTestClient(t *testing.T, h http.HandlerFunc) *Client {
	srv := httptest.NewServer(h)
	c, err := New(srv.URL, WithRetries(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); srv.Close() })
	return c
}
