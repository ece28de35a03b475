package cli

import (
	"io"
	"strings"
	"testing"
)

// newManyJobsServer returns a server with four jobs, which reports 17 cancelled ones.
func newManyJobsServer(t *testing.T) *fakeServer {
	return newFakeServer(t).
		respond("GET /v1/jobs", 200, `{"data":[{"id":"job_1","status":"queued"},{"id":"job_2","status":"running"},`+
			`{"id":"job_3","status":"failed"},{"id":"job_4","status":"succeeded"}]}`).
		respond("POST /v1/jobs/cancel", 200, `{"object":"count","done":17}`).
		respond("POST /v1/jobs/retry", 200, `{"object":"count","done":1}`).
		respond("POST /v1/jobs/delete", 200, `{"object":"count","done":0}`)
}

// Without a terminal, --yes confirms the selection.
func TestFilteredActionSendsFilter(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, out, asked string }{
		{"cancel --queue sim --status queued --yes", "17 jobs cancelled, or asked to stop\n", `POST /v1/jobs/cancel {"queue":"sim","status":"queued"}`},
		{"retry --error-code x --created-after 1h --metadata a=b --yes", "1 job to run again\n", `POST /v1/jobs/retry {"error_code":"x","created_after":"2030-01-31T08:00:00Z","metadata":{"a":"b"}}`},
		{"delete --all --yes", "0 jobs deleted\n", `POST /v1/jobs/delete {"all":true}`},
		{"cancel --key= --yes --json", `{"done":17}` + "\n", `POST /v1/jobs/cancel {"key":""}`},
	} {
		f := newManyJobsServer(t)
		newTestEnv(f.URL).want(t, exitOK, tt.out, strings.Fields(tt.args)...)
		if f.lastRequest() != tt.asked || len(f.requests) != 1 {
			t.Errorf("%s: requested %q, want %s", tt.args, f.requests, tt.asked)
		}
	}
}

// On a terminal the command counts the jobs that would change, and asks.
func TestFilteredActionAsksOnTerminal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args, answer, message string
		exit                  int
	}{
		{"cancel --all", "y\n", "2 jobs selected. Cancel? [y/N]", exitOK},
		{"retry --queue sim", " YES \n", "1 job selected. Run again? [y/N]", exitOK},
		{"delete --queue sim", "n\n", "4 jobs selected. Delete? [y/N]", exitError},
		{"delete --queue sim", "\n", "no job was changed", exitError},
		{"delete --queue sim", "", "no job was changed", exitError},
		{"delete --queue sim", "yes please\n", "no job was changed", exitError},
	} {
		f := newManyJobsServer(t)
		s := newTestEnv(f.URL).terminal().withInput(tt.answer)
		if code := s.run(t, strings.Fields(tt.args)...); code != tt.exit {
			t.Errorf("%s, %q: exit status %d, want %d", tt.args, tt.answer, code, tt.exit)
		}
		s.wantErr(t, tt.message)
		if changed := strings.HasPrefix(f.lastRequest(), "POST"); changed != (tt.exit == exitOK) {
			t.Errorf("%s, %q: requested %q", tt.args, tt.answer, f.requests)
		}
	}
}

// The command does not ask when no job would change. An interrupt ends the question.
func TestFilteredActionDoesNotAskWithoutJobs(t *testing.T) {
	t.Parallel()
	f := newFakeServer(t).respond("GET /v1/jobs", 200, `{"data":[{"id":"job_1","status":"succeeded"}]}`).respond("POST /v1/jobs/cancel", 200, `{"done":0}`)
	s := newTestEnv(f.URL).terminal()
	s.want(t, exitOK, "0 jobs cancelled, or asked to stop\n", "cancel", "--all")
	if strings.Contains(s.err.String(), "?") {
		t.Errorf("the command asked: %s", &s.err)
	}

	silent, hangUp := io.Pipe()
	defer hangUp.Close()
	s = newTestEnv(newManyJobsServer(t).URL).terminal()
	s.In = silent
	ctx, interrupt := cancellableContext(t)
	s.Err = &triggerWriter{Writer: &s.err, text: "[y/N]", trigger: interrupt}
	if code := Run(ctx, &s.Env, []string{"delete", "--all"}); code != exitInterrupted {
		t.Errorf("exit status %d", code)
	}
}

func TestFilteredActionReportsRefusal(t *testing.T) {
	t.Parallel()
	f := newFakeServer(t).respondProblem("POST /v1/jobs/delete", 503, "unavailable")
	s := newTestEnv(f.URL)
	s.want(t, exitFull, "", "delete", "--all", "--yes")
	s.wantErr(t, "this is unavailable")
}
