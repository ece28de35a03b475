package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// cancellableContext returns a context and the function that interrupts it.
func cancellableContext(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}

// triggerWriter calls trigger once text was written to it.
type triggerWriter struct {
	io.Writer
	text    string
	trigger func()
}

func (w *triggerWriter) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		w.trigger()
	}
	return w.Writer.Write(p)
}

// batchServer accepts batches. The id of a job is its input. refuse says which jobs it
// refuses.
type batchServer struct {
	*fakeServer
	refuse  func(input string) string // an error object, or "" to accept it
	batches [][]string                // the inputs of each batch
	keys    []string
}

func newBatchServer(t *testing.T) *batchServer {
	st := &batchServer{fakeServer: newFakeServer(t), refuse: func(string) string { return "" }}
	st.mux.HandleFunc("POST /v1/jobs/batch", func(w http.ResponseWriter, r *http.Request) {
		var b struct {
			Jobs []struct {
				Input json.RawMessage
				Key   string `json:"idempotency_key"`
			}
		}
		if err := json.Unmarshal([]byte(strings.SplitN(st.lastRequest(), " ", 3)[2]), &b); err != nil {
			t.Error(err)
		}
		var inputs, answers []string
		for _, j := range b.Jobs {
			inputs = append(inputs, string(j.Input))
			st.keys = append(st.keys, j.Key)
			if refusal := st.refuse(string(j.Input)); refusal != "" {
				answers = append(answers, refusal)
				continue
			}
			answers = append(answers, `{"id":`+quoted("job_"+string(j.Input))+`,"object":"job"}`)
		}
		st.batches = append(st.batches, inputs)
		_, _ = io.WriteString(w, `{"object":"list","data":[`+strings.Join(answers, ",")+`]}`)
	})
	return st
}

func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintln(&b, i+1)
	}
	return b.String()
}

// Lines are submitted in batches. Their ids are printed in the order of the lines.
func TestLinesAreSubmittedInBatches(t *testing.T) {
	t.Parallel()
	st := newBatchServer(t)
	s := newTestEnv(st.URL).withInput(numbers(250))
	if code := s.run(t, "submit", "sim", "--lines", "-", "--key", "ann"); code != exitOK {
		t.Fatalf("exit status %d: %s", code, &s.err)
	}
	if want := "job_" + strings.ReplaceAll(strings.TrimSpace(numbers(250)), "\n", "\njob_") + "\n"; s.out.String() != want {
		t.Errorf("printed %s", &s.out)
	}
	if len(st.batches) != 3 || len(st.batches[0]) != 100 || len(st.batches[2]) != 50 || s.err.Len() > 0 {
		t.Errorf("%d batches; %s", len(st.batches), &s.err)
	}
	if !strings.Contains(st.lastRequest(), `{"queue":"sim","key":"ann","input":201}`) {
		t.Errorf("requested %s", st.lastRequest())
	}
}

// A file is read like standard input. Empty lines are skipped. The key of a line contains
// its number in the file.
func TestLinesReadFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "jobs")
	if err := os.WriteFile(file, []byte("1\n\n  \r\n{\"a\": 2}\r\n3"), 0o600); err != nil {
		t.Fatal(err)
	}
	st := newBatchServer(t)
	newTestEnv(st.URL).want(t, exitOK, "job_1\njob_{\"a\": 2}\njob_3\n", "submit", "sim", "--lines", file, "--idempotency-key", "monday")
	if got := strings.Join(st.keys, " "); got != "monday/1 monday/4 monday/5" {
		t.Errorf("the keys are %s", got)
	}
	s := newTestEnv(st.URL)
	if code := s.run(t, "submit", "sim", "--lines", file, "--json"); code != exitOK || strings.Count(s.out.String(), "\n") != 3 || !strings.HasPrefix(s.out.String(), `{"id":"job_1",`) {
		t.Errorf("exit status %d: %s", code, &s.out)
	}
}

// A refused or invalid line is reported and does not stop the others. The exit status is
// that of the first one.
func TestRefusedLineIsReported(t *testing.T) {
	t.Parallel()
	st := newBatchServer(t)
	st.refuse = func(input string) string {
		if input == "2" {
			return `{"object":"error","status":400,"code":"invalid_request","detail":"two is too many"}`
		}
		return ""
	}
	s := newTestEnv(st.URL).withInput("1\n2\nnonsense\n{\"broken\n3\n")
	s.want(t, exitUsage, "job_1\njob_3\n", "submit", "sim", "--lines", "-")
	s.wantErr(t, "meanwhile: line 2: two is too many\n", "meanwhile: line 3: the input is not JSON", "meanwhile: line 4: the input begins like a JSON object")
}

// For a queue with the executor llm a line may be a question.
func TestLinesAcceptQuestions(t *testing.T) {
	t.Parallel()
	st := newBatchServer(t)
	newTestEnv(st.URL).withInput("How do tides work?\nAnd \"waves\"?\n").run(t, "submit", "chat", "--lines", "-")
	if len(st.batches) != 1 || st.batches[0][1] != `{"messages":[{"role":"user","content":"And \"waves\"?"}]}` {
		t.Errorf("%q", st.batches)
	}
	if n := strings.Count(strings.Join(st.requests, "\n"), "GET /v1/queues/chat"); n != 1 {
		t.Errorf("the queue was read %d times", n)
	}
}

// A line is submitted again after a full queue refused it. Ids are printed in the order of
// the lines.
func TestLinesWaitWhileQueueIsFull(t *testing.T) {
	if testing.Short() {
		t.Skip("waits 2 s for retries")
	}
	t.Parallel()
	st := newBatchServer(t)
	full := 2
	st.refuse = func(input string) string {
		if input == "2" && full > 0 {
			full--
			return `{"object":"error","status":429,"code":"key_full","detail":"full","retry_after_s":0.001}`
		}
		return ""
	}
	s := newTestEnv(st.URL).withInput("1\n2\n3\n")
	s.want(t, exitOK, "job_1\njob_2\njob_3\n", "submit", "sim", "--lines", "-")
	if got := fmt.Sprint(st.batches); got != "[[1 2 3] [2] [2]]" {
		t.Errorf("submitted %s", got)
	}
	if n := strings.Count(s.err.String(), "waiting to submit"); n != 1 {
		t.Errorf("printed the message %d times: %s", n, &s.err)
	}
}

// After an error or an interrupt the submitted jobs are printed, and the first line whose
// outcome is unknown.
func TestInterruptedLinesReportProgress(t *testing.T) {
	t.Parallel()
	st := newBatchServer(t)
	st.refuse = func(input string) string {
		if input != "1" {
			return `{"object":"error","status":503,"code":"queue_full","detail":"full","retry_after_s":3600}`
		}
		return ""
	}
	s := newTestEnv(st.URL).withInput("1\n2\n3\n")
	ctx, interrupt := cancellableContext(t)
	s.Err = &triggerWriter{Writer: &s.err, text: "is full", trigger: interrupt}
	if code := Run(ctx, &s.Env, strings.Fields("submit sim --lines -")); code != exitInterrupted || s.out.String() != "job_1\n" {
		t.Errorf("exit status %d: %s", code, &s.out)
	}
	s.wantErr(t, "1 job submitted. Line 2 and the lines after it may not be submitted.")

	f := newFakeServer(t).respondProblem("POST /v1/jobs/batch", 404, "unknown_queue")
	s = newTestEnv(f.URL).withInput("1\n")
	s.want(t, exitNotFound, "", "submit", "sim", "--lines", "-")
	s.wantErr(t, "0 jobs submitted. Line 1 and the lines after it may not be submitted.")
}

func TestTooLongLineIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector needs a second for 32 MiB")
	}
	t.Parallel()
	s := newTestEnv(newBatchServer(t).URL).withInput("1\n" + strings.Repeat("x", maxInput+2) + "\n2\n")
	s.want(t, exitUsage, "job_1\n", "submit", "sim", "--lines", "-")
	s.wantErr(t, "line 2 is longer than 32 MiB")
}

// If standard output is not the terminal, the terminal shows the number of jobs.
func TestLinesShowCountOnTerminal(t *testing.T) {
	t.Parallel()
	s := newTestEnv(newBatchServer(t).URL).withInput(numbers(150))
	s.ErrTerminal = true
	s.run(t, "submit", "sim", "--lines", "-")
	if want := "\r100 jobs submitted\r150 jobs submitted\r150 jobs submitted\n"; s.err.String() != want {
		t.Errorf("printed %q, want %q", s.err.String(), want)
	}
}
