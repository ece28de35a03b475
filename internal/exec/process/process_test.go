//go:build unix

package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && helpers[os.Args[1]] != nil {
		helpers[os.Args[1]](os.Args[2:])
		os.Exit(0)
	}
	if script := os.Getenv(serverScriptVar); script != "" {
		runAsServer(script)
	}
	goleak.VerifyTestMain(m)
}

// newShell returns an executor that runs each job's input as a script.
func newShell(t *testing.T) *Executor { return newExecutor(t, "sh") }

func newExecutor(t *testing.T, words ...string) *Executor {
	t.Helper()
	e, err := New(Config{Command: words})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// runSucceeding runs one attempt, which must succeed, and returns its record.
func runSucceeding(t *testing.T, e exec.Executor, input string) exectest.Record {
	t.Helper()
	a := exectest.Start(t, e, exectest.Task([]byte(input)))
	if err := a.Wait(); err != nil {
		t.Fatalf("the attempt failed: %v", err)
	}
	return a.Sink.Record()
}

func runFailing(t *testing.T, e exec.Executor, input string) *job.Fault {
	t.Helper()
	var f *job.Fault
	if err := exectest.Start(t, e, exectest.Task([]byte(input))).Wait(); !errors.As(err, &f) {
		t.Fatalf("the attempt ended with %v, want a fault", err)
	}
	return f
}

// fifo returns the path of a named pipe, and a channel that is closed when every writer of the
// pipe has closed it. A script opens the pipe and then starts processes, so that the test can
// wait until all of them have ended.
func fifo(t *testing.T) (path string, gone <-chan struct{}) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "alive")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		f, err := os.Open(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		_, _ = io.Copy(io.Discard, f)
	}()
	return path, closed
}

func TestConformance(t *testing.T) {
	suite := exectest.Suite{
		New:        func(t *testing.T) exec.Executor { return newShell(t) },
		Good:       []byte("echo one; echo two"),
		GoodOutput: "one\ntwo\n",
		Failing:    []byte("echo one; exit 3"),
		Endless:    []byte("while :; do echo tick; sleep 0.01; done"),
		Quiet:      []byte("while :; do echo progress 40 >&2; sleep 0.01; done"),
	}
	suite.Run(t)
}

func TestInputIsStandardInput(t *testing.T) {
	input := strings.Repeat(strings.Repeat("x", 99)+"\n", 8000)
	r := runSucceeding(t, newExecutor(t, "cat"), input)
	if r.Text() != input || string(r.Results[0].Body) != input {
		t.Errorf("of %d bytes, %d were written as output and %d as result", len(input), len(r.Text()), len(r.Results[0].Body))
	}
	runSucceeding(t, newExecutor(t, "true"), input) // does not read its input
}

func TestResultIsStandardOutput(t *testing.T) {
	for script, want := range map[string]struct {
		kind, body, text string
	}{
		`true`:                     {"text/plain; charset=utf-8", "", ""},
		`printf 'a\n\nb'`:          {"text/plain; charset=utf-8", "a\n\nb", "a\n\nb"},
		`echo ' {"a": 1}'`:         {"application/json", " {\"a\": 1}\n", " {\"a\": 1}\n"},
		`echo '[1,'; echo 2]`:      {"application/json", "[1,\n2]\n", "[1,\n2]\n"},
		`echo 42`:                  {"text/plain; charset=utf-8", "42\n", "42\n"},
		`printf '{"a": '`:          {"text/plain; charset=utf-8", "{\"a\": ", "{\"a\": "}, // a part of JSON
		`printf 'a\n\377\nb\n'`:    {"application/octet-stream", "a\n\xff\nb\n", "a\n�\nb\n"},
		`printf 'a\000b\n'`:        {"application/octet-stream", "a\x00b\n", "a�b\n"},
		`printf 'gr\303\274n\303'`: {"application/octet-stream", "gr\u00fcn\xc3", "grün�"},
		`echo err >&2`:             {"text/plain; charset=utf-8", "", ""},
		`echo out; echo err >&2; exec 1>&-; sleep 0.01; echo late >&2`: {"text/plain; charset=utf-8", "out\n", "out\n"},
	} {
		r := runSucceeding(t, newShell(t), script)
		if got := r.Results[0]; got.ContentType != want.kind || string(got.Body) != want.body {
			t.Errorf("the result of %s is %q, %s", script, got.Body, got.ContentType)
		}
		if r.Text() != want.text {
			t.Errorf("%s wrote %q, want %q", script, r.Text(), want.text)
		}
	}
}

func TestStandardErrorIsLogAndProgress(t *testing.T) {
	r := runSucceeding(t, newShell(t), `{ echo 'reading'; echo 'progress 40 Reading page 2'; echo 'progress 62.5'; echo 'progress 101 x'
		echo 'progress report'; printf '\377 last, no newline'; } >&2`)
	if got, want := r.OfKind(job.KindLog), []string{"reading", "progress 101 x", "progress report", "� last, no newline"}; !reflect.DeepEqual(got, want) {
		t.Errorf("the log is %q, want %q", got, want)
	}
	if got, want := r.Progress(), []job.Progress{{Percent: 40, Status: "Reading page 2"}, {Percent: 62.5}}; !reflect.DeepEqual(got, want) {
		t.Errorf("the progress is %v, want %v", got, want)
	}
}

func TestLongLogIsCutOff(t *testing.T) {
	r := runSucceeding(t, newShell(t), `yes 'a line of log' | head -n 100000 >&2`)
	log := r.OfKind(job.KindLog)
	if size := len(strings.Join(log, "\n")); size > maxLog+1000 || !strings.Contains(log[len(log)-1], "the rest of the log is dropped") {
		t.Errorf("%d bytes were logged, last %q", size, log[len(log)-1])
	}
}

func TestExitStatusSetsFault(t *testing.T) {
	for script, want := range map[string]job.Fault{
		`exit 1`:                         {Code: "exit_1", Class: job.Retryable, Message: `the command "sh" ended with exit status 1`},
		`echo a >&2; echo b >&2; exit 7`: {Code: "exit_7", Class: job.Retryable, Message: `the command "sh" ended with exit status 7: a b`},
		`echo no such page >&2; exit 65`: {Code: "exit_65", Class: job.Final, Message: `the command "sh" does not accept the input: no such page`},
		`kill -SEGV $$`:                  {Code: "signal_11", Class: job.Retryable, Message: `the command "sh" was ended by signal 11 (segmentation fault)`},
		`kill -KILL $$`:                  {Code: "signal_9", Class: job.Retryable, Message: `the command "sh" was ended by signal 9 (killed)`},
	} {
		f := runFailing(t, newShell(t), script)
		if f.Code != want.Code || f.Class != want.Class || f.Message != want.Message {
			t.Errorf("%s: %q, class %d: %s", script, f.Code, f.Class, f.Message)
		}
	}
	f := runFailing(t, newShell(t), `yes 'many words' | head -n 1000 >&2; exit 1`)
	if len(f.Message) > maxTailRunes+100 || !strings.HasSuffix(f.Message, "many words") {
		t.Errorf("the end of a long log is %d bytes: %s", len(f.Message), f.Message)
	}
}

func TestCommandThatCannotRunFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(file, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]job.Fault{
		"no-such-command-here": {Code: "command_not_found", Class: job.Final, Message: "install it"},
		"/no/such/file":        {Code: "command_not_found", Class: job.Final, Message: "install it"},
		file:                   {Code: "command_not_executable", Class: job.Final, Message: "make it executable"},
	} {
		f := runFailing(t, newExecutor(t, name), "")
		if f.Code != want.Code || f.Class != want.Class || !strings.Contains(f.Message, want.Message) {
			t.Errorf("%s: %q, class %d: %s", name, f.Code, f.Class, f.Message)
		}
	}
	for _, words := range [][]string{nil, {""}} {
		if _, err := New(Config{Command: words}); err == nil {
			t.Errorf("New accepted the command %q", words)
		}
	}
}

func TestCommandSeesOnlyNamedVariables(t *testing.T) {
	t.Setenv("SEEN", "a=b c")
	t.Setenv("UNSEEN", "x")
	for names, want := range map[string]string{"": "", "SEEN": "SEEN=a=b c\n", "SEEN,NOT_SET": "SEEN=a=b c\n"} {
		e, err := New(Config{Command: []string{"env"}, Env: strings.Split(names, ",")})
		if err != nil {
			t.Fatal(err)
		}
		got, rest, _ := strings.Cut(runSucceeding(t, e, "").Text(), attemptVar+"=")
		if token, rest, ok := strings.Cut(rest, "\nTMPDIR="); !ok || len(token) != 32 || strings.Count(rest, "\n") != 1 {
			t.Errorf("the token is followed by %q", rest)
		}
		if got != want {
			t.Errorf("with %q the command saw %q, want %q", names, got, want)
		}
	}
}

// A server that is itself a command of another server passes on no token of that.
func TestTokenAndScratchAreTheAttemptsOwn(t *testing.T) {
	t.Setenv(attemptVar, "of the outer server")
	t.Setenv("TMPDIR", t.TempDir())
	e, err := New(Config{Command: []string{"sh"}, Env: []string{attemptVar, "TMPDIR"}})
	if err != nil {
		t.Fatal(err)
	}
	text := runSucceeding(t, e, `echo "$MEANWHILE_ATTEMPT $TMPDIR"`).Text()
	if token, dir, _ := strings.Cut(strings.TrimSpace(text), " "); len(token) != tokenSize || !strings.HasSuffix(dir, scratchPrefix+token[:scratchName]) {
		t.Errorf("it has %q", text)
	}
}

func TestCommandRunsInDir(t *testing.T) {
	dir, _ := filepath.EvalSymlinks(t.TempDir())
	e, err := New(Config{Command: []string{"pwd"}, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if got := runSucceeding(t, e, "").Text(); got != dir+"\n" {
		t.Errorf("the command ran in %q, want %q", got, dir)
	}
}

func TestCancelSendsSIGTERMFirst(t *testing.T) {
	alive, gone := fifo(t)
	e := newShell(t)
	e.timeouts.grace = time.Hour
	a := exectest.Start(t, e, exectest.Task([]byte(`exec 3>`+alive+`
		trap 'echo stopped > `+alive+`.note; exit 0' TERM; echo ready; while :; do sleep 0.01; done`)))
	a.Sink.WaitUntil(exectest.HasText)
	a.Stop(exec.ErrCancelled)
	if err := a.Wait(); !errors.Is(err, exec.ErrCancelled) {
		t.Errorf("the attempt ended with %v", err)
	}
	<-gone
	if note, err := os.ReadFile(alive + ".note"); string(note) != "stopped\n" {
		t.Errorf("its note is %q, %v: it got no SIGTERM", note, err)
	}
}

func TestCommandThatIgnoresSIGTERMIsKilledWithItsGroup(t *testing.T) {
	alive, gone := fifo(t)
	e := newShell(t)
	e.timeouts.grace = 10 * time.Millisecond
	a := exectest.Start(t, e, exectest.Task([]byte(`exec 3>`+alive+`; trap '' TERM; (sh -c 'sleep 1000 & sleep 1000') & echo ready; sleep 1000`)))
	a.Sink.WaitUntil(exectest.HasText)
	a.Stop(exec.ErrTimeout)
	if err := a.Wait(); !errors.Is(err, exec.ErrTimeout) {
		t.Errorf("the attempt ended with %v", err)
	}
	<-gone
}

// When the runner waits no longer, because the lease ends or is lost, SIGTERM has no grace left.
func TestKilledCommandGetsNoGrace(t *testing.T) {
	alive, gone := fifo(t)
	e := newShell(t)
	e.timeouts.grace = time.Hour
	a := exectest.Start(t, e, exectest.Task([]byte(`exec 3>`+alive+`; trap '' TERM; echo ready; while :; do sleep 0.01; done`)))
	a.Sink.WaitUntil(exectest.HasText)
	a.Stop(exec.ErrLost)
	a.Sink.Kill()
	if err := a.Wait(); !errors.Is(err, exec.ErrLost) {
		t.Errorf("the attempt ended with %v", err)
	}
	<-gone
}

func TestSuccessfulCommandLeavesNoProcess(t *testing.T) {
	alive, gone := fifo(t)
	if got := runSucceeding(t, newShell(t), `exec 3>`+alive+`; sleep 1000 & echo done`).Text(); got != "done\n" {
		t.Errorf("it wrote %q", got)
	}
	<-gone
}

// A process that leaves the group is not killed, and does not delay the attempt.
func TestProcessOutsideTheGroupIsNotWaitedFor(t *testing.T) {
	note := filepath.Join(t.TempDir(), "note")
	if err := syscall.Mkfifo(note, 0o600); err != nil {
		t.Fatal(err)
	}
	e := newExecutor(t, "sh", "-c", fmt.Sprintf(`setsid sh -c 'echo $$ > %[1]s; exec sleep 1000' & cat %[1]s`, note))
	e.timeouts.output = time.Millisecond
	text := runSucceeding(t, e, "").Text()
	pid, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatalf("it wrote %q", text)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the process that left is gone already: %v", err)
	}
}

// Output that the command wrote in time is not lost if it is read late.
func TestPipeIsReadPastTheDeadline(t *testing.T) {
	ours, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	text := strings.Repeat("line\n", 10000)
	if _, err := theirs.WriteString(text); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	if err := ours.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(&pipeReader{file: ours, grace: time.Hour})
	if err != nil || string(got) != text {
		t.Errorf("of %d bytes it read %d, %v", len(text), len(got), err)
	}
}

// TRACEPARENT is set only if the job has a trace.
func TestCommandGetsTraceparent(t *testing.T) {
	for _, trace := range []string{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", ""} {
		task := exectest.Task([]byte(`printf '%s' "${TRACEPARENT-unset}"`))
		task.Job.Trace = trace
		a := exectest.Start(t, newShell(t), task)
		if err := a.Wait(); err != nil {
			t.Fatal(err)
		}
		want := trace
		if trace == "" {
			want = "unset"
		}
		if got := a.Sink.Record().Text(); got != want {
			t.Errorf("with the trace %q the command saw %q", trace, got)
		}
	}
}

// A program that waits for every child, as some do that are PID 1, can take a command's exit
// status. That must not end the program.
func TestExitStatusIsTakenByAnother(t *testing.T) {
	t.Parallel()
	for range 100 { // until the test is faster than the executor
		a := exectest.Start(t, newShell(t), exectest.Task([]byte("echo $$; read x < /dev/null; exit 0")))
		a.Sink.WaitUntil(exectest.HasText)
		pid, err := strconv.Atoi(strings.TrimSpace(a.Sink.Record().Text()))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = syscall.Wait4(pid, nil, 0, nil)
		var f *job.Fault
		if err := a.Wait(); errors.As(err, &f) {
			if f.Code != "exit_unknown" || f.Class != job.Retryable {
				t.Errorf("the fault is %+v", f)
			}
			return
		}
	}
	t.Skip("the executor was always faster")
}
