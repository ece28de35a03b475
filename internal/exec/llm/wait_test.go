package llm

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Servers say in many ways how long to wait.
func TestWaitThatTheServerAsksFor(t *testing.T) {
	t.Parallel()
	soon := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	for _, c := range []struct {
		name   string
		header map[string]string
		body   string
		want   time.Duration // within two seconds, because some waits end at a time
	}{
		{"seconds", map[string]string{"Retry-After": "7"}, "", 7 * time.Second},
		{"milliseconds", map[string]string{"retry-after-ms": "7000"}, "", 7 * time.Second},
		{"another name for them", map[string]string{"x-ms-retry-after-ms": "7000"}, "", 7 * time.Second},
		{"a duration", map[string]string{"Retry-After": "1m30s"}, "", 90 * time.Second},
		{"an exhausted limit of requests", map[string]string{"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2m0s",
			"x-ratelimit-remaining-tokens": "100", "x-ratelimit-reset-tokens": "6h0m0s"}, "", 2 * time.Minute},
		{"limits without what remains", map[string]string{"x-ratelimit-reset-requests": "90ms", "x-ratelimit-reset-tokens": "1m"}, "", 90 * time.Millisecond},
		{"seconds to the reset", map[string]string{"ratelimit-reset": "50", "ratelimit-remaining": "0"}, "", 50 * time.Second},
		{"milliseconds since 1970", map[string]string{"X-RateLimit-Reset": fmtInt(time.Now().Add(time.Minute).UnixMilli())}, "", time.Minute},
		{"seconds since 1970", map[string]string{"X-RateLimit-Reset": fmtInt(time.Now().Add(time.Minute).Unix())}, "", time.Minute},
		{"a time", map[string]string{"anthropic-ratelimit-tokens-reset": soon(40 * time.Second), "anthropic-ratelimit-tokens-remaining": "0"}, "", 40 * time.Second},
		{"the standard's draft", map[string]string{"RateLimit": `"burst";r=3;t=9, "day";r=0;t=600`}, "", 10 * time.Minute},
		{"an older draft", map[string]string{"RateLimit": `limit=10, remaining=0, reset=30`}, "", 30 * time.Second},
		{"a sentence", nil, `{"error":{"message":"Rate limit reached on requests. Limit: 3 / min. Please try again in 20s. Contact us."}}`, 20 * time.Second},
		{"a sentence with minutes", nil, `{"error":{"message":"Please try again in 1m26.4s."}}`, 86400 * time.Millisecond},
		{"another sentence", nil, `{"error":{"message":"Please retry after 6 seconds."}}`, 6 * time.Second},
		{"plain text", nil, `slow down: wait 2 minutes and 5 seconds`, 125 * time.Second},
		{"milliseconds in a sentence", nil, `{"message":"Please try again in 250ms"}`, 250 * time.Millisecond},
		{"no unit of time", nil, `{"message":"Please try again in 20 steps"}`, 0},
		{"a field", nil, `{"error":{"message":"x","retry_after":12}}`, 12 * time.Second},
		{"a field of text", nil, `{"message":"x","retryAfter":"12.5"}`, 12500 * time.Millisecond},
		{"a field of milliseconds", nil, `{"error":{"retry_after_ms":1500}}`, 1500 * time.Millisecond},
		{"RetryInfo", nil, `{"error":{"code":429,"details":[{"@type":"type.googleapis.com/google.rpc.Help"},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"37.5s"}]}}`, 37500 * time.Millisecond},
		{"headers in the body", nil, `{"error":{"message":"x","metadata":{"headers":{"X-RateLimit-Reset":"` + fmtInt(time.Now().Add(time.Minute).UnixMilli()) + `"}}}}`, time.Minute},
		{"nothing", nil, `{"error":{"message":"Limit 3 per minute, used 3"}}`, 0},
		{"too long", map[string]string{"Retry-After": "1e300"}, "", job.MaxDuration},
		{"no number", map[string]string{"Retry-After": "NaN", "X-RateLimit-Reset": "soon"}, "", 0},
		{"in the past", map[string]string{"Retry-After": "-5"}, "", 0},
		{"a date", map[string]string{"Retry-After": time.Now().Add(30 * time.Second).UTC().Format(http.TimeFormat)}, "", 30 * time.Second},
		{"a date in the past", map[string]string{"Retry-After": "Sat, 21 Nov 2020 11:00:00 GMT"}, "", 0},
		{"the header before the sentence", map[string]string{"Retry-After": "3"}, `try again in 60s`, 3 * time.Second},
	} {
		header := http.Header{}
		for name, value := range c.header {
			header.Set(name, value)
		}
		f, _ := runFailing(t, newInMemory(t, answering(429, header, c.body)), hello)
		if diff := (f.RetryAfter - c.want).Abs(); diff > 2*time.Second || c.want < time.Second && diff > 0 {
			t.Errorf("%s: %v, want %v", c.name, f.RetryAfter, c.want)
		}
	}
}

// An error inside a stream may say it, too.
func TestWaitInsideAStream(t *testing.T) {
	t.Parallel()
	f, _ := runFailing(t, newInMemory(t, streamHandler(`{"error":{"code":"rate_limit_exceeded","message":"Please try again in 9s"}}`)), hello)
	if f.RetryAfter != 9*time.Second || f.Class != job.Wait {
		t.Errorf("it asks to wait %v, class %d", f.RetryAfter, f.Class)
	}
}

func fmtInt(n int64) string { return strconv.FormatInt(n, 10) }
