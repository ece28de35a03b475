package server

import (
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/webhook"
)

var exampleURL = regexp.MustCompile(`http://127\.0\.0\.1:[0-9]+`)

// runReceiver runs a receiver of examples/callback, and returns its URL.
func runReceiver(t *testing.T, secret webhook.Secret, command ...string) string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "WEBHOOK_SECRET="+secret.Reveal(), "PORT=0")
	cmd.WaitDelay = time.Second
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = cmd.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return exampleURL.FindString(lineWith(t, out, "http://127.0.0.1:"))
}

// Each example accepts what the server sends, and nothing else.
func TestCallbackExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("runs Python, node and PHP")
	}
	t.Parallel()
	s, first := serve(t, nil), newReceiver(t)
	s.call("POST", "/v1/jobs", `{"queue":"sim","input":{},"callback":"`+first.URL+`"}`)
	first.next() // so that the default secret exists
	signer, err := s.components.callbacks.Get(t.Context(), "", "default")
	if err != nil {
		t.Fatal(err)
	}
	for name, language := range map[string]struct{ needs, command []string }{
		"Python": {[]string{"/usr/bin/python3", "-c", "import flask"}, []string{"/usr/bin/python3", "-m", "flask", "--app", "../../examples/callback/receiver.py", "run", "--port", "0"}},
		"node":   {[]string{"node", "--version"}, []string{"node", "../../examples/callback/receiver.mjs"}},
		"PHP":    {[]string{"php", "--version"}, []string{"php", "-S", "127.0.0.1:0", "../../examples/callback/receiver.php"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needs(t, "the receiver's "+name, language.needs...)
			url := runReceiver(t, signer.Secret, language.command...) + "/done"
			_, j := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":"ü"},"callback":"`+url+`"}`, "Prefer", "wait=60")
			for _, d := range s.deliveries("&key=" + strings.TrimSuffix(url, "/done")) {
				if d["metadata"].(map[string]any)["job"] == j["id"] {
					s.ends(d["id"].(string), "succeeded")
				}
			}
			checkRefusals(t, url, signer.Secret)
		})
	}
}

// checkRefusals sends deliveries to a receiver, of which it must accept only the first.
func checkRefusals(t *testing.T, url string, s webhook.Secret) {
	t.Helper()
	const body = `{"type":"job.succeeded","data":{"id":"job_1"}}`
	now := time.Now()
	signature := webhook.Sign([]webhook.Secret{webhook.NewSecret(), s}, "job_9", now, []byte(body))
	old := now.Add(-time.Hour)
	for _, c := range []struct {
		name, id, signature, body string
		at                        time.Time
		want                      int
	}{
		{"two signatures", "job_9", signature, body, now, 204},
		{"another body", "job_9", signature, body + " ", now, 401},
		{"another id", "job_8", signature, body, now, 401},
		{"another secret", "job_9", webhook.Sign([]webhook.Secret{webhook.NewSecret()}, "job_9", now, []byte(body)), body, now, 401},
		{"no signature", "job_9", "", body, now, 401},
		{"nonsense", "job_9", "v1, v1,é v2,??? v1", body, now, 401},
		{"an old delivery", "job_9", webhook.Sign([]webhook.Secret{s}, "job_9", old, []byte(body)), body, old, 401},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(webhook.HeaderID, c.id)
		req.Header.Set(webhook.HeaderTimestamp, strconv.FormatInt(c.at.Unix(), 10))
		if c.signature != "" {
			req.Header.Set(webhook.HeaderSignature, c.signature)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		_ = res.Body.Close()
		if res.StatusCode != c.want {
			t.Errorf("%s is answered with %d, want %d", c.name, res.StatusCode, c.want)
		}
	}
}
