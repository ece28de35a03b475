package cli

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

const accepted = `{"id":"job_1","status":"queued"}`

func TestSubmitSendsInputAndFlags(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule  string
		typed string
		args  []string
		body  string
	}{
		{"an object is the input", "", []string{"submit", "chat", ` {"tokens": 3} `}, `{"queue":"chat","input":{"tokens": 3}}`},
		{"text for a model is a question", "", []string{"submit", "chat", "How do tides work?"}, `{"queue":"chat","input":{"messages":[{"role":"user","content":"How do tides work?"}]}}`},
		{"a number for a model is a question", "", []string{"submit", "chat", "42"}, `{"queue":"chat","input":{"messages":[{"role":"user","content":"42"}]}}`},
		{"a number for another queue is JSON", "", []string{"submit", "sim", "42"}, `{"queue":"sim","input":42}`},
		{"a dash reads standard input", "{}\n", []string{"submit", "sim", "-"}, `{"queue":"sim","input":{}}`},
		{"without an argument standard input is read", "two\nlines\n", []string{"submit", "chat"}, `{"queue":"chat","input":{"messages":[{"role":"user","content":"two\nlines"}]}}`},
		{
			"each flag becomes a field", "",
			strings.Fields("submit sim {} --key k --priority 2 --delay 90s --max-attempts 3 --metadata a=b=c --timeout run_hard=1m --timeout queue=off --timeout lease=2.5 " +
				"--retry backoff=1s --retry backoff_max=0 --retry for=1h --retry on_timeout=true --retry after_output=fail"),
			`{"queue":"sim","key":"k","priority":2,"delay_s":90,"max_attempts":3,"timeouts":{"lease_s":2.5,"run_hard_s":60,"queue_s":0},` +
				`"retry":{"backoff_s":1,"backoff_max_s":0,"for_s":3600,"on_timeout":true,"after_output":"fail"},"metadata":{"a":"b=c"},"input":{}}`,
		},
		{"a job may have an abandon timeout", "", strings.Fields("submit sim {} --abandon-after 3m"), `{"queue":"sim","abandon_after_s":180,"input":{}}`},
		{"off means no abandon timeout", "", strings.Fields("submit sim {} --abandon-after off"), `{"queue":"sim","abandon_after_s":0,"input":{}}`},
		{"a delay may be a number of seconds", "", strings.Fields("submit sim {} --delay 90"), `{"queue":"sim","delay_s":90,"input":{}}`},
		{"a delay of 0 is left out", "", strings.Fields("submit sim {} --delay 0"), `{"queue":"sim","input":{}}`},
		{"a job may have a callback", "", strings.Fields("submit sim {} --callback http://127.0.0.1:9000/done"), `{"queue":"sim","callback":{"url":"http://127.0.0.1:9000/done"},"input":{}}`},
		{"--at becomes run_at", "", strings.Fields("submit sim {} --at 2030-01-31T09:00:00Z"), `{"queue":"sim","run_at":"2030-01-31T09:00:00Z","input":{}}`},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			f := newFakeServer(t).respond("POST /v1/jobs", 202, accepted)
			newTestEnv(f.URL).withInput(tt.typed).want(t, exitOK, "job_1\n", tt.args...)
			if want := "POST /v1/jobs " + tt.body; f.lastRequest() != want {
				t.Errorf("asked\n%s, want\n%s", f.lastRequest(), want)
			}
		})
	}
}

// An empty shell variable is not a question.
func TestSubmitRefusesEmptyQuestion(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", " \n"} {
		s := newTestEnv(newFakeServer(t).URL)
		s.want(t, exitUsage, "", "submit", "chat", text)
		s.wantErr(t, "the question is empty")
	}
}

func TestSubmitRefusesInvalidInput(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule, typed, arg string
		message          string
	}{
		{"text for a queue without a model", "", "hello", "not JSON"},
		{"an invalid object, also for a model", "", `{"messages": `, "begins like a JSON object"},
		{"an empty standard input", " \n", "-", "is empty"},
		{"a standard input over the limit", strings.Repeat("x", maxInput+1), "-", "larger than 32 MiB"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			if testing.Short() && len(tt.typed) > maxInput {
				t.Skip("the race detector needs a second for 32 MiB")
			}
			f := newFakeServer(t)
			s := newTestEnv(f.URL).withInput(tt.typed)
			s.want(t, exitUsage, "", "submit", "sim", tt.arg)
			s.wantErr(t, tt.message)
		})
	}
}

func TestSubmitDoesNotReadTerminal(t *testing.T) {
	t.Parallel()
	s := newTestEnv(newFakeServer(t).URL).terminal()
	s.want(t, exitUsage, "", "submit", "sim")
	s.wantErr(t, "an input is missing")
}

func TestSubmitPrintsWatchCommand(t *testing.T) {
	t.Parallel()
	f := newFakeServer(t).respond("POST /v1/jobs", 202, accepted)
	s := newTestEnv("http://elsewhere.test").terminal()
	s.want(t, exitOK, "job_1\n", "submit", "sim", "{}", "--server", f.URL, "--user", "ada")
	s.wantErr(t, "meanwhile watch job_1 --server "+f.URL+" --user ada\n")
}

func TestSubmitAndWait(t *testing.T) {
	t.Parallel()
	ended := func(status string) string {
		return `{"id":"job_1","status":"` + status + `","cursor":0,"result":{"echo":7},"max_attempts":4,"error":{"code":"broken","message":"the work broke","attempt":4}}`
	}
	tests := []struct {
		rule, status string
		args         string
		code         int
		out          string
		message      string
	}{
		{"a job without text prints its result", "succeeded", "--wait", exitOK, "{\"echo\":7}\n", ""},
		{"a failed job prints its error", "failed", "--wait", exitFailed, "", "job_1 failed in attempt 4 of 4: the work broke (broken)"},
		{"a cancelled job prints its status", "cancelled", "--wait", exitCancelled, "", "job_1 was cancelled"},
		{"an expired job prints its status", "expired", "--wait", exitCancelled, "", "job_1 expired"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			f := newFakeServer(t).respond("POST /v1/jobs", 202, accepted).respond("GET /v1/jobs/job_1", 200, ended(tt.status))
			s := newTestEnv(f.URL)
			s.want(t, tt.code, tt.out, append(strings.Fields("submit sim {}"), tt.args)...)
			s.wantErr(t, tt.message)
		})
	}
	t.Run("a job with text prints the text of its last attempt", func(t *testing.T) {
		f := newFakeServer(t).respond("POST /v1/jobs", 202, accepted).respond("GET /v1/jobs/job_1", 200, `{"id":"job_1","status":"succeeded","cursor":3}`)
		f.respondStream("job_1", snapshot("succeeded", 3)+text(1, 1, "wrong")+restart(2, 2)+text(3, 2, "right")+done("succeeded", 3))
		newTestEnv(f.URL).want(t, exitOK, "right\n", "submit", "sim", "{}", "--wait")
	})
	t.Run("--json prints the job", func(t *testing.T) {
		f := newFakeServer(t).respond("POST /v1/jobs", 202, accepted).respond("GET /v1/jobs/job_1", 200, ended("failed"))
		s := newTestEnv(f.URL)
		if code := s.run(t, "submit", "sim", "{}", "--wait", "--json"); code != exitFailed {
			t.Errorf("exit status %d", code)
		}
		if !strings.HasPrefix(s.out.String(), `{"id":"job_1",`) || strings.Count(s.out.String(), "\n") != 1 {
			t.Errorf("printed %s", &s.out)
		}
	})
}

func TestSubmitAndWatch(t *testing.T) {
	t.Parallel()
	f := newFakeServer(t).respond("POST /v1/jobs", 202, accepted)
	f.respondStream("job_1", snapshot("running", 0)+text(1, 1, "high ")+text(2, 1, "tide")+done("succeeded", 2))
	s := newTestEnv(f.URL)
	s.want(t, exitOK, "high tide\n", "submit", "chat", "tides?", "--watch")
	s.wantErr(t, "job_1\n")
}

func TestRefusalSetsExitStatus(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule    string
		status  int
		code    string
		exit    int
		message string
	}{
		{"an unknown queue", 404, "unknown_queue", exitNotFound, "this is unknown_queue"},
		{"a full queue", 503, "queue_full", exitFull, "this is queue_full; try again in 1h0m0s"},
		{"too many requests", 429, "too_many", exitFull, "this is too_many"},
		{"an invalid request", 400, "invalid_request", exitUsage, "this is invalid_request"},
		{"an input that is too large", 413, "too_large", exitUsage, "this is too_large"},
		{"an idempotency key of another job", 422, "idempotency_mismatch", exitUsage, "this is idempotency_mismatch"},
		{"a conflict", 409, "conflict", exitError, "this is conflict"},
		{"an internal error", 500, "internal", exitError, "this is internal"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			f := newFakeServer(t).respondProblem("POST /v1/jobs", tt.status, tt.code)
			s := newTestEnv(f.URL)
			s.want(t, tt.exit, "", "submit", "sim", "{}")
			s.wantErr(t, tt.message)
		})
	}
}

func TestUnreachableServer(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"submit sim {}", "submit chat hello", "watch job_1", "get job_1", "get job_1 --wait", "list", "cancel job_1", "retry job_1", "delete job_1", "queues"} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			s := newTestEnv("http://127.0.0.1:1")
			s.want(t, exitUnreachable, "", strings.Fields(line)...)
			s.wantErr(t, "cannot reach the server at http://127.0.0.1:1: is 'meanwhile serve' running?")
		})
	}
}

func TestInvalidUserIsUsageError(t *testing.T) {
	t.Parallel()
	s := newTestEnv("http://127.0.0.1:1")
	s.want(t, exitUsage, "", "list", "--user", "a\nb")
	s.wantErr(t, `the user "a\nb" cannot be sent: it has a control character`)
}

func TestInterruptWhileServerIsUnreachable(t *testing.T) {
	t.Parallel()
	s := newTestEnv("http://127.0.0.1:1")
	if code := Run(cancelledContext(t), &s.Env, []string{"get", "job_1"}); code != exitInterrupted {
		t.Errorf("exit status %d: %s", code, &s.err)
	}
}

func TestServerUnavailableMessages(t *testing.T) {
	t.Parallel()
	full := &client.Error{Status: 503, Message: "the queue is full"}
	tests := []struct {
		rule                  string
		started, disconnected bool
		retry                 client.Retry
		message               string
	}{
		{"a short wait prints nothing", false, false, client.Retry{Try: 1, Delay: time.Second / 10, Err: full}, ""},
		{"a long wait prints the error and the time", false, false, client.Retry{Try: 2, Delay: 7 * time.Second, Err: full}, "the queue is full; trying again in 7s…\n"},
		{"a lost watch prints that the command waits", true, false, client.Retry{Try: 1, Delay: time.Second / 10, Err: full}, "The server is unavailable; waiting for it…\n"},
		{"a second outage prints it again", true, false, client.Retry{Try: 2, Delay: time.Second / 10, Err: full}, "The server is unavailable; waiting for it…\n"},
		{"the same outage prints nothing more", true, true, client.Retry{Try: 2, Delay: 7 * time.Second, Err: full}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			s := newTestEnv("")
			f := newFollower(&s.Env, connection{}, false)
			f.started, f.disconnected = tt.started, tt.disconnected
			if f.serverUnavailable(tt.retry); s.err.String() != tt.message {
				t.Errorf("printed %q, want %q", s.err.String(), tt.message)
			}
		})
	}
}

func TestDurationParsesTinyValueAsOn(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"off": client.Off, "0": client.Off, "0s": client.Off, "0.1ns": 1, "1e-12": 1, "0.0004": 400 * time.Microsecond, "90s": 90 * time.Second,
	} {
		if got, err := duration(text); err != nil || got != want {
			t.Errorf("%s is %d, %v, want %d", text, got, err, want)
		}
	}
}

// An interrupted submit does not know whether the server has stored the job, and says so.
func TestInterruptedSubmitSaysWhatIsUnknown(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	f := newFakeServer(t)
	f.mux.HandleFunc("POST /v1/jobs", func(_ http.ResponseWriter, r *http.Request) {
		interrupt()
		<-r.Context().Done()
	})
	s := newTestEnv(f.URL)
	if code := Run(ctx, &s.Env, []string{"submit", "sim", "{}", "--user", "ann"}); code != exitInterrupted {
		t.Errorf("exit status %d", code)
	}
	s.wantErr(t, "Interrupted. The job may have been submitted; to see the newest: meanwhile list --user ann\n")
}
