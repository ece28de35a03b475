package webhook

import (
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// The event goes through the job's input byte by byte: it was signed as it is.
func TestDeliveryKeepsTheEvent(t *testing.T) {
	t.Parallel()
	want := Delivery{URL: "https://app.example.com/?a=1&b=<2>", Endpoint: "we_1", SecretID: "s", Event: []byte(`{"type":"job.failed","data":{"error":"<&>\u2028é"}}`)}
	got, refusal := parseDelivery(want.Input())
	if refusal != nil || got.URL != want.URL || got.Endpoint != want.Endpoint || got.SecretID != want.SecretID || string(got.Event) != string(want.Event) {
		t.Errorf("%+v, %v", got, refusal)
	}
}

func TestKeyOfADelivery(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]Delivery{
		"we_1":                        {Endpoint: "we_1", URL: "https://app.example.com/"},
		"https://app.example.com":     {URL: "https://app.example.com/callback?job=17"},
		"http://app.example.com:8000": {URL: "http://app.example.com:8000"},
	} {
		if got := d.Key(); got != want {
			t.Errorf("%+v has the key %s", d, got)
		}
	}
	long := Delivery{URL: "https://" + strings.Repeat("a", 300) + "/"}
	other := Delivery{URL: "https://" + strings.Repeat("a", 301) + "/"}
	if len(long.Key()) > job.MaxKey || long.Key() == other.Key() {
		t.Errorf("%s, %s", long.Key(), other.Key())
	}
}

// The waits of the policy are the schedule, and a delivery that waits at no cost outlives it.
func TestPolicyIsTheSchedule(t *testing.T) {
	t.Parallel()
	attempts, p := Policy()
	j := job.Job{MaxAttempts: attempts, Policy: p.RoundUp()}
	total := time.Duration(0)
	for j.Attempt = 1; ; j.Attempt++ {
		next := j.DecideRetry(&job.Fault{Code: "endpoint_status", Class: job.Retryable}, true, time.Now(), 0.5)
		if j.Attempt == 10 {
			if next.Retry {
				t.Error("there is an eleventh attempt")
			}
			break
		}
		if !next.Retry || next.Delay != Schedule[j.Attempt] {
			t.Errorf("after attempt %d it waits %v, want %v", j.Attempt, next.Delay, Schedule[j.Attempt])
		}
		total += next.Delay
	}
	if want := 75*time.Hour + 35*time.Minute + 5*time.Second; total != want || p.Retry.For < want+want/10 {
		t.Errorf("the schedule takes %v, and a wait may take %v", total, p.Retry.For)
	}
}
