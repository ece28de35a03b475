package llm

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// answering answers every request with this status and body.
func answering(status int, header http.Header, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for name, values := range header {
			w.Header()[name] = values
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

func TestErrorBodyShapes(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"error":{"message":"one"}}`: "it says: one",
		`{"error":"two"}`:             "it says: two",
		`{"message":"three"}`:         "it says: three",
		`{"detail":"four"}`:           "it says: four",
		`five`:                        "it says: five",
		`<html><body>six &amp; more</body></html>`:                                                               "it says: six & more",
		`<html><head><title>502 Bad</title></head></html>`:                                                       "it says: 502 Bad",
		`<?xml version="1.0"?><Error><Code>X</Code><Message>seven</Message></Error>`:                             "it says: seven",
		`{"detail":[{"loc":["body","messages",0],"msg":"field required","type":"missing"},{"msg":"and more"}]}`:  "it says: body.messages.0: field required; and more",
		`[{"error":{"code":400,"message":"eight","status":"INVALID_ARGUMENT"}}]`:                                 "it says: eight",
		`{"errors":[{"message":"nine"}]}`:                                                                        "it says: nine",
		`{"type":"about:blank","title":"Bad","detail":"ten"}`:                                                    "it says: ten",
		`{"code":1210,"msg":"eleven"}`:                                                                           "it says: eleven",
		`{"base_resp":{"status_code":1004,"status_msg":"twelve"}}`:                                               "it says: twelve",
		`{"error":{"message":"Provider returned error","metadata":{"raw":"{\"error\":{\"message\":\"why\"}}"}}}`: "it says: Provider returned error; why",
		`{"error":"{\"message\":\"fourteen\"}"}`:                                                                 "it says: fourteen",
		"data: {\"error\":{\"message\":\"fifteen\"}}\n\n":                                                        "it says: fifteen",
		"event: error\ndata: {\"error\":{\"message\":\"sixteen\"}}\n\n":                                          "it says: sixteen",
		"\x1f\x8b\x00\xff\xfe\x01\x02":                                                                           "(400)",
		`{"detail":[{"loc":1}]}`:                                                                                 "(400)",
		strings.Repeat(`{"error":`, 5000):                                                                        "…",
		``:                                                                                                       "(400)",
	} {
		f, _ := runFailing(t, newInMemory(t, answering(400, nil, body)), hello)
		if !strings.HasSuffix(f.Message, want) || len(f.Message) > 600 {
			t.Errorf("%.60s: %s", body, f.Message)
		}
	}
}

func TestCompressedErrorIsRead(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write([]byte(`{"error":{"message":"packed words"}}`))
	_ = w.Close()
	f, _ := runFailing(t, newInMemory(t, answering(400, http.Header{"Content-Encoding": {"gzip"}}, packed.String())), hello)
	wantFault{"upstream_rejected", job.Final, "it says: packed words"}.check(t, "gzip", f)
}

// A status and an error inside a stream are judged by one table.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		body   string
		want   wantFault
	}{
		{429, `{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}`, wantFault{"upstream_quota_exhausted", job.Final, "no quota"}},
		{429, `{"error":{"message":"x","type":"exceeded_current_quota_error"}}`, wantFault{"upstream_quota_exhausted", job.Final, ""}},
		{403, `{"error":{"code":"insufficient_user_quota","message":"x"}}`, wantFault{"upstream_quota_exhausted", job.Final, ""}},
		{400, `{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API."}}`, wantFault{"upstream_quota_exhausted", job.Final, ""}},
		{400, `{"error":{"code":"billing_hard_limit_reached","message":"x"}}`, wantFault{"upstream_quota_exhausted", job.Final, ""}},
		{429, `{"error":{"message":"Request too large for gpt on tokens per min: Limit 6000, Requested 8000.","code":"rate_limit_exceeded"}}`, wantFault{"upstream_rejected", job.Final, "Requested 8000"}},
		{429, `{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota, please check your plan and billing details.","details":[{"@type":"RetryInfo","retryDelay":"37s"}]}}`, wantFault{"upstream_rate_limited", job.Wait, ""}},
		{403, `{"error":{"code":"rate_limit_exceeded","message":"x"}}`, wantFault{"upstream_rate_limited", job.Wait, ""}},
		{500, `{"error":{"type":"overloaded_error","message":"x"}}`, wantFault{"upstream_unavailable", job.Wait, ""}},
		{500, `{"error":{"message":"wrapped","code":"400"}}`, wantFault{"upstream_rejected", job.Final, ""}},
		{500, `{"error":{"code":"context_length_exceeded","message":"x"}}`, wantFault{"upstream_rejected", job.Final, ""}},
		{400, `{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"x","details":[{"reason":"API_KEY_INVALID"}]}}`, wantFault{"upstream_unauthorized", job.Final, ""}},
		{429, `{"error":{"type":"permission_error","message":"x"}}`, wantFault{"upstream_rate_limited", job.Wait, ""}},
		{498, ``, wantFault{"upstream_rate_limited", job.Wait, ""}},
		{0, `{"error":{"message":"x","type":"insufficient_quota"}}`, wantFault{"upstream_quota_exhausted", job.Final, ""}},
		{0, `{"error":{"message":"x","code":402}}`, wantFault{"upstream_quota_exhausted", job.Final, ""}},
		{0, `{"error":{"message":"x","type":"RateLimitError"}}`, wantFault{"upstream_rate_limited", job.Wait, ""}},
		{0, `{"error":{"message":"x","type":"ThrottlingException"}}`, wantFault{"upstream_rate_limited", job.Wait, ""}},
		{0, `{"error":{"message":"x","type":"BadRequestError","code":400}}`, wantFault{"upstream_rejected", job.Final, ""}},
		{0, `{"error":{"message":"x","code":"model_not_found"}}`, wantFault{"upstream_not_found", job.Final, ""}},
	} {
		r := readReason([]byte(c.body), time.Now())
		v := judge(c.status, r)
		if v.code() != c.want.code || v.class(nil) != c.want.class {
			t.Errorf("%d %s: %s, class %d; want %s, class %d", c.status, c.body, v.code(), v.class(nil), c.want.code, c.want.class)
		}
		if c.status == 0 {
			f, _ := runFailing(t, newInMemory(t, streamHandler(c.body)), hello)
			c.want.check(t, c.body, f)
			continue
		}
		f, _ := runFailing(t, newInMemory(t, answering(c.status, nil, c.body)), hello)
		c.want.check(t, c.body, f)
	}
}

// The header x-should-retry is the server's own word on whether to try again.
func TestShouldRetryHeader(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		says   string
		want   job.Class
	}{
		{429, "false", job.Final}, {503, "false", job.Final}, {500, "FALSE", job.Final},
		{400, "true", job.Retryable}, {429, "true", job.Wait}, {429, "", job.Wait}, {400, "perhaps", job.Final},
	} {
		f, _ := runFailing(t, newInMemory(t, answering(c.status, http.Header{"X-Should-Retry": {c.says}}, "")), hello)
		if f.Class != c.want {
			t.Errorf("%d with x-should-retry %q has the class %d, want %d", c.status, c.says, f.Class, c.want)
		}
	}
}

func TestMessagesAreCleanAndBounded(t *testing.T) {
	t.Parallel()
	secretInQuery := "c2VjcmV0+c2VjcmV0/x=="
	for name, c := range map[string]struct {
		h    http.Handler
		with string
	}{
		"a long content type": {answering(200, http.Header{"Content-Type": {"text/" + strings.Repeat("x", 200<<10)}}, "<p>hi"), "…"},
		"a key in the body":   {answering(500, nil, "wrong key "+secretInQuery+" or c2VjcmV0%2Bc2VjcmV0%2Fx%3D%3D"), "wrong key [the key] or [the key]"},
		"another key":         {answering(500, nil, "Authorization: Bearer abcdefghijkl and https://a/?api_key=abcdefgh&x=1"), "Bearer [a key] and https://a/?api_key=[a key]&x=1"},
		"marks":               {answering(500, nil, "a\x1b[31m\u202eb\nc"), "a [31m b c"},
		"a long body":         {answering(500, nil, strings.Repeat("word ", 10_000)), "…"},
	} {
		e := newInMemory(t, c.h)
		e.models["m"].APIKey = secretInQuery
		f, _ := runFailing(t, e, hello)
		if !strings.Contains(f.Message, c.with) || len(f.Error()) > 1200 {
			t.Errorf("%s: %d bytes: %s", name, len(f.Error()), f.Error())
		}
	}
}

func TestRedirectNamesItsTarget(t *testing.T) {
	t.Parallel()
	f, _ := runFailing(t, newInMemory(t, http.RedirectHandler("https://b.example/v1/chat/completions?key=secret-1234", http.StatusMovedPermanently)), hello)
	wantFault{"upstream_redirect", job.Final, "(to https://b.example/v1/chat/completions)"}.check(t, "a redirect", f)
}

// A proxy that cannot be reached is named, and not the server behind it.
func TestDeadProxyIsNamed(t *testing.T) {
	t.Parallel()
	address := unusedAddr(t)
	transport := newTransport()
	transport.Proxy = func(*http.Request) (*url.URL, error) {
		return &url.URL{Scheme: "http", Host: address, User: url.UserPassword("u", "p-secret")}, nil
	}
	for _, base := range []string{"http://upstream.invalid/v1", "https://upstream.invalid/v1"} {
		e := mustNew(t, Config{Models: []Model{{Name: "m", BaseURL: base}}, Transport: transport})
		f, _ := runFailing(t, e, hello)
		wantFault{"upstream_unreachable", job.Wait, "its proxy http://" + address}.check(t, base, f)
		if strings.Contains(f.Error(), "p-secret") {
			t.Errorf("the fault shows the password: %v", f)
		}
	}
}

// FuzzReason checks that any error body gives a message that is bounded and printable.
func FuzzReason(f *testing.F) {
	for _, seed := range []string{`{"error":{"message":"x","code":1}}`, `[{"error":{}}]`, "data: {", "<title>x", `{"detail":[{"loc":[1],"msg":"m"}]}`, `{"retry_after":"1m"}`} {
		f.Add([]byte(seed))
	}
	m := &model{Model: Model{APIKey: testKey}}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := readReason(body, time.Now())
		if text := m.clean(r.message); len([]rune(text)) > maxQuote+1 || strings.ContainsAny(text, "\n\x00") || strings.Contains(text, testKey) {
			t.Errorf("%q gives %q", body, text)
		}
		if r.wait < 0 || r.wait > job.MaxDuration {
			t.Errorf("%q asks to wait %v", body, r.wait)
		}
		_ = judge(0, r)
	})
}
