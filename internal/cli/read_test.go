package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const runningJob = `{"id":"job_1","object":"job","queue":"chat","status":"running","key":"k","priority":5,"attempt":2,"max_attempts":4,` +
	`"estimated_time_seconds":2.5,"progress":{"percent":30,"status":"Generating response"},"output_text":"so far\nand on \u001b[31m",` +
	`"error":{"code":"broken","message":"the work broke","attempt":1},"usage":{"total_tokens":3},"metadata":{"b":"2","a":"1"},` +
	`"cancel_requested_at":"2030-01-31T08:59:30Z","created_at":"2030-01-31T08:58:00Z","started_at":"2030-01-31T08:58:01Z"}`

func TestGet(t *testing.T) {
	t.Parallel()
	f := newFakeServer(t).respond("GET /v1/jobs/job_1", 200, runningJob)
	want := `id         job_1
queue      chat
status     running, to be cancelled
key        k
priority   5
attempt    2 of 4
progress   30% Generating response
time left  about 3 s
metadata   a=1
metadata   b=2
created    2030-01-31T08:58:00Z
started    2030-01-31T08:58:01Z
error      the work broke (broken), in attempt 1
text       so far and on [31m
usage      {"total_tokens":3}
`
	newTestEnv(f.URL).want(t, exitOK, want, "get", "job_1")
	s := newTestEnv(f.URL)
	if code := s.run(t, "get", "job_1", "--json"); code != exitOK || !strings.HasPrefix(s.out.String(), `{"id":"job_1","object":"job","queue":"chat",`) {
		t.Errorf("exit status %d: %s", code, &s.out)
	}
}

// readGolden returns a golden answer of the server as one line.
func readGolden(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "api", "jobs", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		t.Fatal(err)
	}
	return line.String()
}

// --json prints the answer of the server field for field, including null.
func TestJSONMatchesServerAnswer(t *testing.T) {
	t.Parallel()
	var list struct{ Data []json.RawMessage }
	if err := json.Unmarshal([]byte(readGolden(t, "list.json")), &list); err != nil || len(list.Data) < 2 {
		t.Fatal(err, len(list.Data))
	}
	var lines strings.Builder
	for _, j := range list.Data {
		lines.Write(j)
		lines.WriteByte('\n')
	}
	snapshot := string(list.Data[0])
	f := newFakeServer(t).
		respond("GET /v1/jobs/job_1", 200, readGolden(t, "job_queued.json")).
		respond("GET /v1/jobs/job_2", 200, readGolden(t, "job_ended.json")).
		respond("POST /v1/jobs/job_1/cancel", 200, readGolden(t, "job_ended.json")).
		respond("POST /v1/jobs", 202, readGolden(t, "job_queued.json")).
		respond("GET /v1/jobs", 200, `{"data":[`+strings.ReplaceAll(strings.TrimSpace(lines.String()), "\n", ",")+`],"next":null}`).
		respond("GET /v1/queues/one", 200, readGolden(t, "queue.json")).
		respond("GET /v1/queues/two", 200, readGolden(t, "queue_paused.json")).
		respondStream("job_3", event("snapshot", snapshot)+event("done", strings.Replace(snapshot, `"cursor":17`, `"cursor":0`, 1)))
	for command, want := range map[string]string{
		"get job_1 --json":     readGolden(t, "job_queued.json") + "\n",
		"get job_2 --json":     readGolden(t, "job_ended.json") + "\n",
		"cancel job_1 --json":  readGolden(t, "job_ended.json") + "\n",
		"submit sim {} --json": readGolden(t, "job_queued.json") + "\n",
		"list --json":          lines.String(),
		"queues one --json":    readGolden(t, "queue.json") + "\n",
		"queues two --json":    readGolden(t, "queue_paused.json") + "\n",
		"watch job_3 --json":   `{"event":"snapshot","cursor":0,"job":` + snapshot + "}\n" + `{"event":"done","cursor":0,"job":` + strings.Replace(snapshot, `"cursor":17`, `"cursor":0`, 1) + "}\n",
	} {
		t.Run(command, func(t *testing.T) {
			s := newTestEnv(f.URL)
			s.run(t, strings.Fields(command)...)
			if got := s.out.String(); got != want {
				t.Errorf("printed\n%s, want\n%s", got, want)
			}
		})
	}
}

func TestGetShowsWaitingJob(t *testing.T) {
	t.Parallel()
	f := newFakeServer(t).respond("GET /v1/jobs/job_1", 200, `{"id":"job_1","status":"queued","queue_position":3,"held_back_by":"paused"}`)
	s := newTestEnv(f.URL)
	if s.run(t, "get", "job_1"); !strings.Contains(s.out.String(), "queued, 3 before it, held back by paused") {
		t.Errorf("printed %s", &s.out)
	}
	f = newFakeServer(t).respond("GET /v1/jobs/job_1", 200, `{"id":"job_1","status":"scheduled","run_at":"2030-01-31T10:00:00Z"}`)
	s = newTestEnv(f.URL)
	if s.run(t, "get", "job_1"); !strings.Contains(s.out.String(), "runs at   2030-01-31T10:00:00Z") {
		t.Errorf("printed %s", &s.out)
	}
}

func TestGetResult(t *testing.T) {
	t.Parallel()
	f := newFakeServer(t).respond("GET /v1/jobs/job_1", 200, `{"id":"job_1","status":"succeeded"}`).respond("GET /v1/jobs/job_1/result", 200, "a\x1b\x00b")
	newTestEnv(f.URL).want(t, exitOK, "a\x1b\x00b", "get", "job_1", "--result")
	newTestEnv(f.URL).terminal().want(t, exitOK, "ab\n", "get", "job_1", "--result")

	f = newFakeServer(t).respond("GET /v1/jobs/job_1", 200, `{"id":"job_1","status":"failed"}`)
	newTestEnv(f.URL).want(t, exitFailed, "", "get", "job_1", "--result")

	f = newFakeServer(t).respond("GET /v1/jobs/job_1", 200, `{"id":"job_1","status":"running"}`).respondProblem("GET /v1/jobs/job_1/result", 409, "not_finished")
	newTestEnv(f.URL).want(t, exitError, "", "get", "job_1", "--result")
}

func TestGetWaits(t *testing.T) {
	t.Parallel()
	f := newFakeServer(t).respond("GET /v1/jobs/job_1", 200, `{"id":"job_1","status":"expired"}`)
	s := newTestEnv(f.URL)
	if code := s.run(t, "get", "job_1", "--wait"); code != exitCancelled || !strings.Contains(s.out.String(), "expired") {
		t.Errorf("exit status %d: %s", code, &s.out)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	page := `{"data":[` + runningJob + `,{"id":"job_0","queue":"sim\n\u001b[31m","status":"failed","attempt":4,"max_attempts":4,"error":{"code":"broken"},"created_at":"2030-01-29T08:00:00Z"},` +
		`{"id":"job_2","queue":"sim","status":"queued","attempt":1,"max_attempts":4,"error":{"code":"broken"},"created_at":"2030-01-31T08:59:59Z"},` +
		`{"id":"job_3","queue":"潮汐","status":"scheduled","attempt":1,"max_attempts":4,"error":{"code":"broken"},"created_at":"2030-01-31T08:59:59Z","run_at":"2030-01-31T09:00:02.1Z"},` +
		`{"id":"job_4","queue":"sim","status":"queued","attempt":0,"max_attempts":4,"created_at":"2030-01-31T08:59:59Z"}],"next":null}`
	f := newFakeServer(t).respond("GET /v1/jobs", 200, page)
	want := `ID     QUEUE     STATUS     ATTEMPT  PROGRESS                              AGE
job_1  chat      running    2/4      30% Generating response               2m
job_0  sim [31m  failed     4/4      broken                                2d
job_2  sim       queued     1/4      Waiting to try again: broken          1s
job_3  潮汐      scheduled  1/4      Waiting to try again: broken, in 3 s  1s
job_4  sim       queued     0/4      -                                     1s
`
	newTestEnv(f.URL).want(t, exitOK, want, "list")
	s := newTestEnv(f.URL)
	if code := s.run(t, "list", "--limit", "1"); code != exitOK || strings.Count(s.out.String(), "\n") != 2 {
		t.Errorf("exit status %d: %s", code, &s.out)
	}
	s = newTestEnv(f.URL)
	if code := s.run(t, "list", "--json", "--queue", "a b", "--status", "failed", "--key", "", "--all"); code != exitOK || strings.Count(s.out.String(), "\n") != 5 {
		t.Errorf("exit status %d: %s", code, &s.out)
	}
	if want := "GET /v1/jobs?key=&limit=100&queue=a+b&status=failed"; f.lastRequest() != want {
		t.Errorf("asked %s, want %s", f.lastRequest(), want)
	}
	newTestEnv(f.URL).run(t, strings.Fields("list --error-code x --created-after 90m --created-before 2030-01-31T10:00:00+02:00 --metadata a=b --metadata c=")...)
	if want := "GET /v1/jobs?created_after=2030-01-31T07%3A30%3A00Z&created_before=2030-01-31T08%3A00%3A00Z&error_code=x&limit=20&metadata.a=b&metadata.c="; f.lastRequest() != want {
		t.Errorf("asked %s, want %s", f.lastRequest(), want)
	}
}

// A misspelt queue is not like one without jobs: the server's answer names the queues.
func TestUnknownQueueIsReported(t *testing.T) {
	t.Parallel()
	url := startDefaultServer(t)
	for _, line := range []string{"list --queue nosuch", "cancel --queue nosuch --yes", "retry --queue nosuch --yes", "delete --queue nosuch --yes", "queues nosuch", "queues pause nosuch", "submit nosuch {}"} {
		s := newTestEnv(url)
		s.want(t, exitNotFound, "", strings.Fields(line)...)
		s.wantErr(t, `there is no queue "nosuch"`, "the queues are: chat, sim")
	}
	s := newTestEnv(url)
	s.want(t, exitOK, "ID  QUEUE  STATUS  ATTEMPT  PROGRESS  AGE\n", "list", "--queue", "chat")
}

func TestStatusHasColours(t *testing.T) {
	t.Parallel()
	f := newFakeServer(t).respond("GET /v1/jobs", 200, `{"data":[{"id":"job_0","queue":"sim","status":"failed","created_at":"2030-01-31T09:00:00Z"}],"next":null}`)
	for _, tt := range []struct {
		rule     string
		terminal bool
		environ  []string
		colours  bool
	}{
		{"a terminal", true, []string{"TERM=xterm"}, true},
		{"an empty NO_COLOR", true, []string{"TERM=xterm", "NO_COLOR="}, true},
		{"NO_COLOR", true, []string{"TERM=xterm", "NO_COLOR=1"}, false},
		{"a dumb terminal", true, []string{"TERM=dumb"}, false},
		{"an unknown terminal", true, nil, false},
		{"a file", false, []string{"TERM=xterm"}, false},
	} {
		s := newTestEnv(f.URL)
		s.OutTerminal, s.Environ = tt.terminal, append(s.Environ, tt.environ...)
		s.run(t, "list")
		if got := strings.Contains(s.out.String(), "  \x1b[31mfailed\x1b[0m  "); got != tt.colours {
			t.Errorf("%s: %q", tt.rule, s.out.String())
		}
	}
}

func TestFormatAge(t *testing.T) {
	t.Parallel()
	for text, seconds := range map[string]int{"now": 0, "1s": 1, "59s": 59, "1m": 60, "59m": 3599, "1h": 3600, "47h": 172799, "2d": 172800} {
		if got := formatAge(time.Duration(seconds) * time.Second); got != text {
			t.Errorf("%d s are %s, want %s", seconds, got, text)
		}
	}
}

func TestCancelRetryDelete(t *testing.T) {
	t.Parallel()
	f := newFakeServer(t).
		respond("POST /v1/jobs/job_1/cancel", 202, `{"id":"job_1","status":"running","cancel_requested_at":"2030-01-31T08:59:30Z"}`).
		respond("POST /v1/jobs/job_2/cancel", 200, `{"id":"job_2","status":"succeeded"}`).
		respond("POST /v1/jobs/job_1/retry", 202, `{"id":"job_1","status":"queued"}`).
		respondProblem("POST /v1/jobs/job_2/retry", 409, "not_retryable").
		respondProblem("POST /v1/jobs/job_3/cancel", 404, "not_found").
		respond("DELETE /v1/jobs/job_1", 204, "")
	newTestEnv(f.URL).want(t, exitOK, "job_1 running, to be cancelled\njob_2 succeeded\n", "cancel", "job_1", "job_2")
	newTestEnv(f.URL).want(t, exitOK, "job_1 queued\n", "retry", "job_1")
	newTestEnv(f.URL).want(t, exitError, "", "retry", "job_2")
	newTestEnv(f.URL).want(t, exitOK, "job_1 deleted\n", "delete", "job_1")
	newTestEnv(f.URL).want(t, exitOK, `{"id":"job_1","deleted":true}`+"\n", "delete", "job_1", "--json")

	s := newTestEnv(f.URL)
	s.want(t, exitNotFound, "job_2 succeeded\n", "cancel", "job_3", "job_2")
	s.wantErr(t, "job_3: this is not_found")

	s = newTestEnv(f.URL)
	if code := s.run(t, "cancel", "job_1", "--json"); code != exitOK || !strings.HasPrefix(s.out.String(), `{"id":"job_1",`) {
		t.Errorf("exit status %d: %s", code, &s.out)
	}
}

func TestQueues(t *testing.T) {
	t.Parallel()
	sim := `{"name":"sim","configured":true,"executor":"sim","concurrency":8,"counts":{"scheduled":1,"queued":2,"parked":1,"running":3},"totals":{"succeeded":4,"failed":5},"oldest_queued_s":1.25,"limits":{"max_depth":100}}`
	f := newFakeServer(t).respond("GET /v1/queues", 200, `{"data":[`+sim+`,{"name":"chat","configured":true,"executor":"llm","paused":true},{"name":"old","configured":false,"executor":"","counts":{"queued":7}}]}`).respondProblem("GET /v1/queues/nope", 404, "unknown_queue")
	want := `QUEUE                 EXECUTOR  RUNNING  QUEUED  PARKED  SCHEDULED  SUCCEEDED  FAILED  OLDEST
sim                   sim       3/8      2/100   1       1          4          5       1.2s
chat (paused)         llm       0/0      0/0     0       0          0          0       -
old (not configured)            0/0      7/0     0       0          0          0       0.0s
`
	newTestEnv(f.URL).want(t, exitOK, want, "queues")
	newTestEnv(f.URL).want(t, exitNotFound, "", "queues", "nope")
	s := newTestEnv(f.URL)
	if code := s.run(t, "queues", "chat", "--json"); code != exitOK || !strings.HasPrefix(s.out.String(), `{"name":"chat",`) {
		t.Errorf("exit status %d: %s", code, &s.out)
	}
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	f := newFakeServer(t).
		respond("POST /v1/queues/sim/pause", 200, `{"name":"sim","paused":true}`).
		respond("POST /v1/queues/sim/resume", 200, `{"name":"sim"}`).
		respondProblem("POST /v1/queues/nope/pause", 404, "unknown_queue")
	newTestEnv(f.URL).want(t, exitOK, "sim is paused\n", "queues", "pause", "sim")
	newTestEnv(f.URL).want(t, exitOK, "sim is resumed\n", "queues", "resume", "sim")
	newTestEnv(f.URL).want(t, exitNotFound, "", "queues", "pause", "nope")
	s := newTestEnv(f.URL)
	if code := s.run(t, "queues", "pause", "sim", "--json"); code != exitOK || !strings.Contains(s.out.String(), `"paused":true`) {
		t.Errorf("exit status %d: %s", code, &s.out)
	}
}

func TestAttemptTextAboveMaximum(t *testing.T) {
	t.Parallel()
	for attempt, want := range map[int]string{0: "0/4", 4: "4/4", 5: "5"} {
		if got := attemptText(attempt, "/", 4); got != want {
			t.Errorf("attempt %d of a job that may fail 4 times is shown as %s, want %s", attempt, got, want)
		}
	}
}
