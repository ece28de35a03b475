package cli

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// Completions are words with a description, and never files.
func TestCompletion(t *testing.T) {
	t.Parallel()
	f := newFakeServer(t).
		respond("GET /v1/queues", 200, `{"data":[{"name":"chat","executor":"llm"},{"name":"sim","executor":"sim"}]}`).
		respond("GET /v1/jobs", 200, `{"data":[{"id":"job_1","queue":"sim","status":"queued","created_at":"2030-01-31T08:59:59Z"},`+
			`{"id":"job_2","queue":"sim","status":"failed","created_at":"2030-01-31T08:00:00Z"},{"id":"job_3","queue":"c\u001bd","status":"succeeded","created_at":"2030-01-31T08:00:00Z"}]}`)
	const one, two, three = "job_1\tsim, queued, 1s\n", "job_2\tsim, failed, 1h\n", "job_3\tcd, succeeded, 1h\n"
	for line, want := range map[string]string{
		"submit ":           "chat\tllm\nsim\tsim\n",
		"submit s":          "sim\tsim\n",
		"submit sim ":       "",
		"queues c":          "chat\tllm\n",
		"queues pause ":     "chat\tllm\nsim\tsim\n",
		"queues pause sim ": "",
		"get ":              one + two + three,
		"get job_1 ":        "",
		"watch job_2":       two,
		"cancel ":           one,
		"retry ":            two,
		"delete job_1 ":     one + two + three,
		"list --queue ":     "chat\tllm\nsim\tsim\n",
		"cancel --queue=s":  "sim\tsim\n",
		"list --status ":    "scheduled\nqueued\nparked\nrunning\nsucceeded\nfailed\ncancelled\nexpired\n",
	} {
		s := newTestEnv(f.URL)
		words := strings.Split(line, " ")
		if code := s.run(t, append([]string{"__complete"}, words...)...); code != exitOK {
			t.Errorf("%q: exit status %d", line, code)
		}
		if got, ok := strings.CutSuffix(s.out.String(), ":4\n"); !ok || got != want {
			t.Errorf("%q proposes\n%s, want\n%s", line, &s.out, want)
		}
	}
}

// If the server is missing, slow or refuses, completion proposes and prints nothing.
func TestCompletionPrintsNoErrors(t *testing.T) {
	t.Parallel()
	refusing := newFakeServer(t).respondProblem("GET /v1/queues", 503, "unavailable")
	garbled := newFakeServer(t).respond("GET /v1/queues", 200, "<html>")
	slow := newFakeServer(t)
	slow.mux.HandleFunc("GET /v1/queues", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for rule, url := range map[string]string{
		"unreachable": "http://127.0.0.1:1", "no URL": "nonsense", "a refusal": refusing.URL, "another program": garbled.URL, "a slow server": slow.URL,
	} {
		s := newTestEnv(url)
		if rule == "a slow server" {
			s.CompletionTimeout = time.Millisecond
		}
		if code := s.run(t, "__complete", "submit", ""); code != exitOK || s.out.String() != ":4\n" {
			t.Errorf("%s: exit status %d: %s", rule, code, &s.out)
		}
		if strings.Contains(s.err.String(), "meanwhile:") {
			t.Errorf("%s: printed %s", rule, &s.err)
		}
	}
}
