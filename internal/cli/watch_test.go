package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestWatchPrintsOutput(t *testing.T) {
	t.Parallel()
	whole := snapshot("running", 0) + text(1, 1, "one ") + text(2, 1, "two\n") + done("succeeded", 2)
	twice := snapshot("running", 0) + text(1, 1, "wrong") + restart(2, 2) + text(3, 2, "right") + done("succeeded", 3)
	late := snapshot("running", 3) + text(1, 1, "wrong") + restart(2, 2) + text(3, 2, "right ") + text(4, 2, "too") + done("succeeded", 4)
	const notice = "--- attempt 2 begins; the output above no longer counts ---\n"
	tests := []struct {
		rule     string
		events   string
		terminal bool
		args     string
		code     int
		out, err string
	}{
		{"the text", whole, false, "", exitOK, "one two\n", ""},
		{"the text, with a line break added", snapshot("running", 0) + text(1, 1, "one") + done("succeeded", 1), false, "", exitOK, "one\n", ""},
		{"only the last attempt, without a terminal", twice, false, "", exitOK, "right\n", ""},
		{"every attempt, with --follow", twice, false, "--follow", exitOK, "wrong\nright\n", notice},
		{"every attempt at once, on a terminal", twice, true, "", exitOK, "wrong\nright\n", notice},
		{"no attempt that ended before the watch, on a terminal", late, true, "", exitOK, "right too\n", ""},
		{"an attempt that ended before the watch, with --follow", late, true, "--follow", exitOK, "wrong\nright too\n", notice},
		{"the result, without text", snapshot("running", 0) + done("succeeded", 0), false, "", exitOK, "{\"echo\":7}\n", ""},
		{"the result, if only failed attempts have text", snapshot("running", 0) + text(1, 1, "wrong") + restart(2, 2) + done("succeeded", 2), false, "", exitOK, "{\"echo\":7}\n", ""},
		{"the output of a failed job", snapshot("running", 0) + text(1, 1, "half") + done("failed", 1), false, "", exitFailed, "half\n", "meanwhile: job_1 failed in attempt 4 of 4: the work broke (broken)\n"},
		{"the status of a cancelled job", snapshot("queued", 0) + done("cancelled", 0), false, "", exitCancelled, "", "meanwhile: job_1 was cancelled\n"},
		{"the log, on standard error", snapshot("running", 0) + logLine(1, "started") + text(2, 1, "one\n") + done("succeeded", 2), false, "", exitOK, "one\n", "log: started\n"},
		{"the text unchanged, to a file", snapshot("running", 0) + text(1, 1, "\x1b[31mred\x07\n") + done("succeeded", 1), false, "", exitOK, "\x1b[31mred\x07\n", ""},
		{"the text without control characters, on a terminal", snapshot("running", 0) + text(1, 1, "\x1b]0;owned\x07\x1b[31mred\u009b2J\r\tx\n") + done("succeeded", 1), true, "--follow", exitOK, "]0;owned[31mred2J\n\tx\n", ""},
		{"a line for each state of a progress bar, on a terminal", snapshot("running", 0) + text(1, 1, "\r10%") + text(2, 1, "\r20%\r") + text(3, 1, "\ndone\r\n\rend") + done("succeeded", 3), true, "", exitOK, "10%\n20%\ndone\nend\n", ""},
		{"the log without control characters", snapshot("running", 0) + logLine(1, "\x1b[2Jx") + done("cancelled", 1), false, "", exitCancelled, "", "log: [2Jx\nmeanwhile: job_1 was cancelled\n"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			s := newTestEnv(newFakeServer(t).respondStream("job_1", tt.events).URL)
			s.OutTerminal = tt.terminal
			s.want(t, tt.code, tt.out, append([]string{"watch", "job_1"}, strings.Fields(tt.args)...)...)
			if s.err.String() != tt.err {
				t.Errorf("standard error is\n%q, want\n%q", s.err.String(), tt.err)
			}
		})
	}
}

// A result that is no text is not printed as its watchers see it, but byte for byte.
func TestOutputThatIsNoTextIsExactInFile(t *testing.T) {
	t.Parallel()
	const result = "GIF\xff\x00\xfe"
	ended := func(cursor int) string {
		return event("done", fmt.Sprintf(`{"id":"job_1","status":"succeeded","cursor":%d}`, cursor))
	}
	events := snapshot("running", 0) + logLine(1, "started") + text(2, 1, "GIF\ufffd\x00\ufffd") + ended(2)
	const hint = "A � may stand for bytes that are no text. The exact result: meanwhile get job_1 --result > FILE\n"
	tests := []struct {
		rule, events string
		terminal     bool
		contentType  string
		command      string
		out, err     string
	}{
		{"watch", events, false, "application/octet-stream", "watch job_1", result, "log: started\n"},
		{"without output", snapshot("running", 0) + ended(0), false, "image/gif", "watch job_1", result, ""},
		{"submit --wait", events, false, "application/octet-stream", "submit sim {} --wait", result, "log: started\n"},
		{"text stays as it was watched", events, false, "text/plain; charset=utf-8", "watch job_1", "GIF\ufffd\x00\ufffd\n", "log: started\n" + hint},
		{"a terminal", events, true, "application/octet-stream", "watch job_1", "GIF\ufffd\ufffd\n", "log: started\n" + hint},
		{"with --follow", events, false, "application/octet-stream", "watch job_1 --follow", "GIF\ufffd\x00\ufffd\n", "log: started\n" + hint},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			f := newFakeServer(t).respond("POST /v1/jobs", 202, accepted).respondStream("job_1", tt.events)
			f.respond("GET /v1/jobs/job_1", 200, `{"id":"job_1","status":"succeeded","cursor":2}`)
			f.mux.HandleFunc("GET /v1/jobs/job_1/result", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.contentType)
				_, _ = io.WriteString(w, result)
			})
			s := newTestEnv(f.URL)
			s.OutTerminal = tt.terminal
			s.want(t, exitOK, tt.out, strings.Fields(tt.command)...)
			if s.err.String() != tt.err {
				t.Errorf("standard error is\n%q, want\n%q", s.err.String(), tt.err)
			}
		})
	}
}

func TestWatchReportsServerRestart(t *testing.T) {
	t.Parallel()
	f := newFakeServer(t).respondStream("job_1",
		snapshot("running", 0)+text(1, 1, "before "),
		snapshot("running", 2)+text(2, 1, "after")+done("succeeded", 2))
	s := newTestEnv(f.URL)
	s.want(t, exitOK, "before after\n", "watch", "job_1")
	if want := "The server is unavailable; waiting for it…\nThe server is available again.\n"; s.err.String() != want {
		t.Errorf("standard error is\n%s, want\n%s", &s.err, want)
	}
}

func TestWatchReportsEachOutageOnce(t *testing.T) {
	t.Parallel()
	const lost, regained = "The server is unavailable; waiting for it…\n", "The server is available again.\n"
	begin, end := snapshot("running", 0)+text(1, 1, "all"), snapshot("succeeded", 1)+done("succeeded", 1)
	for _, tt := range []struct {
		rule        string
		connections []string
		message     string
	}{
		{"once for several failed tries", []string{begin, "", "", end}, lost + regained},
		{"again for a second outage", []string{begin, snapshot("running", 1), end}, lost + regained + lost + regained},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			s := newTestEnv(newFakeServer(t).respondStream("job_1", tt.connections...).URL)
			s.want(t, exitOK, "all\n", "watch", "job_1")
			if s.err.String() != tt.message {
				t.Errorf("standard error is\n%s, want\n%s", &s.err, tt.message)
			}
		})
	}
}

func TestWatchUnknownJob(t *testing.T) {
	t.Parallel()
	s := newTestEnv(newFakeServer(t).respondProblem("GET /v1/jobs/job_1/events", 404, "not_found").URL)
	s.want(t, exitNotFound, "", "watch", "job_1")
	s.wantErr(t, "this is not_found")
}

func TestWatchStartsAfterEntry(t *testing.T) {
	t.Parallel()
	f := newFakeServer(t)
	f.mux.HandleFunc("GET /v1/jobs/job_1/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, snapshot("running", 7))
		if r.Header.Get("Last-Event-ID") == "7" {
			_, _ = io.WriteString(w, text(8, 1, "rest")+done("succeeded", 8))
		}
	})
	newTestEnv(f.URL).want(t, exitOK, "rest\n", "watch", "job_1", "--after", "7")
}

func TestWatchPrintsJSON(t *testing.T) {
	t.Parallel()
	f := newFakeServer(t).respondStream("job_1", snapshot("running", 0)+text(1, 1, "\x1b")+progress(2, 50, "half")+restart(3, 2)+done("failed", 3))
	s := newTestEnv(f.URL).terminal()
	if code := s.run(t, "watch", "job_1", "--json"); code != exitFailed {
		t.Errorf("exit status %d", code)
	}
	lines := strings.Split(strings.TrimSpace(s.out.String()), "\n")
	want := []string{`{"event":"snapshot","cursor":0,"job":{`, `{"event":"output","cursor":1,"entry":{"seq":1,`, `{"event":"progress","cursor":2,`, `{"event":"attempt","cursor":3,`, `{"event":"done","cursor":3,"job":{`}
	if len(lines) != len(want) {
		t.Fatalf("printed %d lines: %s", len(lines), &s.out)
	}
	for i, line := range lines {
		if !strings.HasPrefix(line, want[i]) {
			t.Errorf("line %d is %s, want %s…", i, line, want[i])
		}
	}
	if s.err.Len() != 0 {
		t.Errorf("standard error is %q", s.err.String())
	}
}

func TestInterruptedWatchLeavesJobRunning(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	f := newFakeServer(t)
	f.mux.HandleFunc("GET /v1/jobs/job_1/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, snapshot("running", 0)+text(1, 1, "half"))
		_ = http.NewResponseController(w).Flush()
		interrupt()
		<-r.Context().Done()
	})
	s := newTestEnv(f.URL)
	if code := Run(ctx, &s.Env, []string{"watch", "job_1"}); code != exitInterrupted {
		t.Errorf("exit status %d", code)
	}
	s.wantErr(t, "The job continues. To watch it again: meanwhile watch job_1\n")
	for _, asked := range f.requests {
		if !strings.HasPrefix(asked, "GET ") {
			t.Errorf("requested %s", asked)
		}
	}
}

// bar returns a progress bar of which a part is full.
func bar(cells, full int) string {
	return strings.Repeat("#", full) + strings.Repeat("-", cells-full)
}

func TestProgressBar(t *testing.T) {
	t.Parallel()
	events := snapshot("queued", 0) + snapshot("running", 0) + progress(1, 10, "Analyzing query") + text(2, 1, "line\n") +
		progress(3, 50, "Generating response") + text(4, 1, "no end") + progress(5, 100, "Complete") + done("succeeded", 5)
	const erase = "\r\x1b[K"
	queued, running := "- queued", "- running, 0 s"
	ten := "[" + bar(54, 5) + "]  10% Analyzing query"
	half := "[" + bar(50, 25) + "]  50% Generating response"
	all := "[" + bar(61, 61) + "] 100% Complete"
	tests := []struct {
		rule                string
		terminal, errOnly   bool
		wantScreen, wantOut string
	}{
		{
			"on a terminal the bar is drawn only below complete lines", true, false,
			queued + erase + running + erase + ten + erase + "line\n" + ten + erase + half + erase + "no end\n", "",
		},
		{
			"the bar is drawn when only standard output is redirected", false, true,
			queued + erase + running + erase + ten + erase + half + erase + all + erase, "line\nno end\n",
		},
		{"without a terminal no bar is drawn", false, false, "", "line\nno end\n"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			s := newTestEnv(newFakeServer(t).respondStream("job_1", events).URL)
			if tt.terminal {
				s.terminal()
				s.Out = &s.err // both streams are one terminal
			}
			s.ErrTerminal = tt.terminal || tt.errOnly
			s.want(t, exitOK, tt.wantOut, "watch", "job_1")
			if s.err.String() != tt.wantScreen {
				t.Errorf("the screen is\n%q, want\n%q", s.err.String(), tt.wantScreen)
			}
		})
	}
}

func TestProgressBarFitsTerminal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rule     string
		terminal int // its columns
		variable string
		longest  int
	}{
		{"the bar fits the terminal", 50, "", 47},
		{"the bar fits a very narrow terminal", 2, "", 1},
		{"COLUMNS overrides the terminal", 120, "COLUMNS=60", 57},
		{"invalid COLUMNS are ignored", 50, "COLUMNS=many", 47},
		{"an unknown width counts as 40 columns", 0, "", 37},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			s := newTestEnv(newFakeServer(t).respondStream("job_1", snapshot("running", 0)+progress(1, 50, strings.Repeat("x\x1b\n", 99))+done("cancelled", 1)).URL)
			s.ErrTerminal, s.Columns = true, func() int { return tt.terminal }
			s.Environ = append(s.Environ, tt.variable)
			s.run(t, "watch", "job_1")
			shown, _, _ := strings.Cut(s.err.String(), "meanwhile: ")
			longest := 0
			for line := range strings.SplitSeq(shown, "\r\x1b[K") {
				line, _, _ = strings.Cut(line, "\r\x1b[") // erased across several rows, where one does not suffice
				longest = max(longest, len([]rune(line)))
			}
			if longest != tt.longest {
				t.Errorf("the longest bar has %d characters, want %d: %q", longest, tt.longest, shown)
			}
		})
	}
}

// waiting returns a snapshot event of a job whose attempt failed.
func waiting(status string, attempt int, message, runAt string) string {
	return event("snapshot", fmt.Sprintf(`{"id":"job_1","status":%q,"progress":{},"run_at":%q,"error":{"code":"broken","message":%q,"attempt":%d}}`, status, runAt, message, attempt))
}

func TestWatchReportsFailedAttempts(t *testing.T) {
	t.Parallel()
	const soon = "2030-01-31T09:00:01.5Z"
	first := snapshot("running", 0) + waiting("scheduled", 1, "The work broke.", soon)
	for _, tt := range []struct{ rule, events, err string }{
		{"an attempt, and when the next follows", first, "attempt 1 failed: The work broke (broken); next try in 2 s\n"},
		{"once", first + waiting("queued", 1, "The work broke.", soon) + waiting("running", 1, "The work broke.", soon), "attempt 1 failed: The work broke (broken); next try in 2 s\n"},
		{"each attempt", first + waiting("scheduled", 2, "The work broke.", soon),
			"attempt 1 failed: The work broke (broken); next try in 2 s\nattempt 2 failed: The work broke (broken); next try in 2 s\n"},
		{"an attempt before the one that runs", strings.Replace(waiting("running", 2, "No", soon), `"progress"`, `"attempt":3,"progress"`, 1), "attempt 2 failed: No (broken); attempt 3 runs\n"},
		{"an attempt before the watch", waiting("queued", 3, "No", soon), "attempt 3 failed: No (broken); the next try follows\n"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			s := newTestEnv(newFakeServer(t).respondStream("job_1", tt.events+done("succeeded", 0)).URL)
			s.want(t, exitOK, "{\"echo\":7}\n", "watch", "job_1")
			if s.err.String() != tt.err {
				t.Errorf("standard error is\n%s, want\n%s", &s.err, tt.err)
			}
		})
	}
}

func TestHintIsWhatTheUserCanType(t *testing.T) {
	t.Parallel()
	for called, want := range map[string]string{
		"meanwhile":                           "meanwhile",
		"bin/meanwhile":                       "bin/meanwhile",
		"/opt/my programs/meanwhile":          "'/opt/my programs/meanwhile'",
		"/tmp/go-build123/b001/exe/meanwhile": "go run ./cmd/meanwhile",
	} {
		ctx, interrupt := context.WithCancel(t.Context())
		f := newFakeServer(t)
		f.mux.HandleFunc("GET /v1/jobs/job_1/events", func(_ http.ResponseWriter, r *http.Request) {
			interrupt()
			<-r.Context().Done()
		})
		s := newTestEnv("")
		s.Program = programName(called)
		if code := Run(ctx, &s.Env, []string{"watch", "job_1", "--server", f.URL, "--user", "it's me"}); code != exitInterrupted {
			t.Errorf("exit status %d", code)
		}
		s.wantErr(t, "To watch it again: "+want+" watch job_1 --server "+f.URL+` --user 'it'\''s me'`+"\n")
	}
}
