package cli

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/webhook"
)

// startListening runs the command and returns its URL. stop ends it and returns its exit status and
// what it has printed.
func startListening(t *testing.T, s *testEnv, args ...string) (url string, stop func() (code int, printed string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	messages, writer := io.Pipe()
	s.Err = writer
	ended := make(chan int, 1)
	go func() { ended <- Run(ctx, &s.Env, append([]string{"listen"}, args...)) }()
	line := make([]byte, 200)
	n, err := messages.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	_, url, _ = strings.Cut(string(line[:n]), " at ")
	url, _, _ = strings.Cut(url, " ")
	return url, func() (int, string) {
		cancel()
		code := <-ended
		_ = writer.Close()
		http.DefaultClient.CloseIdleConnections()
		return code, s.out.String()
	}
}

// deliver sends a body with a signature, and returns the status of the answer.
func deliver(t *testing.T, url, id, body string, secrets ...webhook.Secret) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url+"/done?a=1", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(webhook.HeaderID, id)
	req.Header.Set(webhook.HeaderTimestamp, "1896080400") // now
	req.Header.Set(webhook.HeaderSignature, webhook.Sign(secrets, id, now, []byte(body)))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

const doneEvent = `{"type":"job.succeeded","data":{"id":"job_1","result":{"a":1}}}`

func TestListenPrintsAndVerifies(t *testing.T) {
	old, current := webhook.NewSecret(), webhook.NewSecret()
	s := newTestEnv("")
	s.Environ = append(s.Environ, secretVariable+"="+current.Reveal())
	url, stop := startListening(t, s, "--secret", old.Reveal())
	for _, c := range []struct {
		id, body string
		secret   webhook.Secret
		want     int
	}{
		{"job_9", doneEvent, current, 204}, {"job_9", doneEvent, old, 204}, {"job_8", doneEvent, webhook.NewSecret(), 401}, {"job_7", "no \x1b[31mJSON", current, 204},
	} {
		if status := deliver(t, url, c.id, c.body, c.secret); status != c.want {
			t.Errorf("%s is answered with %d, want %d", c.id, status, c.want)
		}
	}
	if res, err := http.Get(url); err != nil || res.StatusCode != 405 {
		t.Errorf("GET: %v, %v", res, err)
	} else {
		_ = res.Body.Close()
	}
	if status := deliver(t, url, "job_6", strings.Repeat("a", maxDelivery+1), current); status != 413 {
		t.Errorf("a body that is too large is answered with %d", status)
	}
	code, printed := stop()
	want := `09:00:00  job.succeeded  job_1  verified, answered 204
  {
    "type": "job.succeeded",
    "data": {
      "id": "job_1",
      "result": {
        "a": 1
      }
    }
  }
09:00:00  job.succeeded  job_1 (delivery 2 of it)  verified, answered 204
`
	if code != exitOK || !strings.HasPrefix(printed, want) {
		t.Errorf("exit status %d, printed\n%s\nwant\n%s", code, printed, want)
	}
	if !strings.Contains(printed, "job_1  refused: no signature in its webhook-signature was made with this secret, answered 401\n") ||
		!strings.Contains(printed, "no event  job_7  verified") || strings.Contains(printed, "\x1b") {
		t.Errorf("printed\n%s", printed)
	}
}

func TestListenAnswersAsItIsTold(t *testing.T) {
	s := newTestEnv("")
	url, stop := startListening(t, s, "--status", "500", "--json", "--listen", "127.0.0.1:0")
	if status := deliver(t, url, "job_9", doneEvent, webhook.NewSecret()); status != 500 {
		t.Errorf("the answer is %d", status)
	}
	code, printed := stop()
	var one receipt
	if err := json.Unmarshal([]byte(printed), &one); err != nil || code != exitOK {
		t.Fatalf("exit status %d, %v: %s", code, err, printed)
	}
	if one.ID != "job_9" || one.Times != 1 || one.Verified != nil || one.Answer != 500 || one.Path != "/done?a=1" || string(one.Event) != doneEvent || !one.At.Equal(now) {
		t.Errorf("printed %s", printed)
	}
}

func TestListenRefuses(t *testing.T) {
	t.Parallel()
	for flags, want := range map[string]string{
		"--status 99": "--status is", "--port 70000": "--port is", "--port 1 --listen :1": "not both", "--secret abc": "a secret must be", "--listen nowhere": "cannot listen",
	} {
		s := newTestEnv("")
		if code := s.run(t, append([]string{"listen"}, strings.Fields(flags)...)...); code != exitUsage && code != exitError {
			t.Errorf("%s: exit status %d", flags, code)
		}
		s.wantErr(t, want)
		if strings.Contains(s.err.String(), "abc") {
			t.Errorf("the error repeats the secret: %s", &s.err)
		}
	}
}
