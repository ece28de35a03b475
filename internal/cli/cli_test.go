package cli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write the golden files anew")

// runAsProgram is set for child processes. The test binary then runs as the program, because
// 'bench' and some tests start servers from their own executable.
const runAsProgram = "MEANWHILE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(runAsProgram) != "" {
		os.Exit(Main())
	}
	if err := os.Setenv(runAsProgram, "1"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// now is the current time of the commands.
var now = time.Date(2030, 1, 31, 9, 0, 0, 0, time.UTC)

// testEnv is the environment of a command in a test.
type testEnv struct {
	Env
	out, err bytes.Buffer
}

// newTestEnv returns an environment without a terminal, for the server at url.
func newTestEnv(url string) *testEnv {
	s := &testEnv{}
	s.Env = Env{
		In: strings.NewReader(""), Out: &s.out, Err: &s.err,
		Environ: []string{"MEANWHILE_SERVER=" + url}, Now: func() time.Time { return now },
		Columns: func() int { return 80 }, CompletionTimeout: time.Minute,
	}
	return s
}

// terminal makes all three streams terminals.
func (s *testEnv) terminal() *testEnv {
	s.InTerminal, s.OutTerminal, s.ErrTerminal = true, true, true
	return s
}

func (s *testEnv) withInput(input string) *testEnv {
	s.In = strings.NewReader(input)
	return s
}

func (s *testEnv) run(t *testing.T, args ...string) int {
	t.Helper()
	return Run(t.Context(), &s.Env, args)
}

// want runs a command and checks its exit status and standard output.
func (s *testEnv) want(t *testing.T, code int, out string, args ...string) {
	t.Helper()
	if got := s.run(t, args...); got != code {
		t.Errorf("%q: exit status %d, want %d; standard error: %s", args, got, code, &s.err)
	}
	if s.out.String() != out {
		t.Errorf("%q printed\n%q, want\n%q", args, s.out.String(), out)
	}
}

func (s *testEnv) wantErr(t *testing.T, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(s.err.String(), part) {
			t.Errorf("standard error is\n%s, which lacks\n%s", &s.err, part)
		}
	}
}

// allCommands returns all commands by path, without those of cobra.
func allCommands(t *testing.T) map[string]*cobra.Command {
	all := map[string]*cobra.Command{}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		all[c.CommandPath()] = c
		for _, sub := range c.Commands() {
			if name := sub.Name(); name != "completion" && name != "help" && !sub.Hidden {
				walk(sub)
			}
		}
	}
	walk(NewRoot(&newTestEnv("").Env))
	if len(all) < 13 {
		t.Fatalf("there are only %d commands", len(all))
	}
	return all
}

func TestHelpMatchesGoldenFiles(t *testing.T) {
	t.Parallel()
	golden := map[string]bool{}
	for path := range allCommands(t) {
		s := newTestEnv("http://server.test")
		s.run(t, append(strings.Fields(path)[1:], "--help")...)
		file := filepath.Join("testdata", "help", strings.ReplaceAll(path, " ", "-")+".txt")
		golden[file] = true
		if *update {
			writeGolden(t, file, s.out.Bytes())
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil || s.out.String() != string(want) {
			t.Errorf("the help of %q differs from %s (%v); if it should, run with -update\n%s", path, file, err, &s.out)
		}
	}
	files, _ := filepath.Glob("testdata/help/*.txt")
	for _, file := range files {
		if !golden[file] {
			t.Errorf("%s belongs to no command", file)
		}
	}
}

func writeGolden(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestDocsListCommandsAndFlags(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(text)
	for _, e := range exitTable {
		if row := exitRow(e.code, e.meaning); !strings.Contains(manual, row) {
			t.Errorf("docs/cli.md lacks the exit status %q", row)
		}
	}
	for path, cmd := range allCommands(t) {
		if !strings.Contains(manual, path) {
			t.Errorf("docs/cli.md lacks %q", path)
		}
		for _, flag := range flagsOf(cmd) {
			if !strings.Contains(manual, "`--"+flag) {
				t.Errorf("docs/cli.md lacks %s --%s", path, flag)
			}
		}
	}
}

// exitRow returns the table row of a status in docs/cli.md.
func exitRow(code int, meaning string) string { return fmt.Sprintf("| %d | %s |", code, meaning) }

func flagsOf(cmd *cobra.Command) []string {
	var names []string
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

func TestWrongCommandLineIsUsageError(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"nope", "serve extra", "submit", "submit a b c", "submit sim {}{", "submit sim {} --priority high",
		"submit sim {} --delay 1s --at 2030-01-31T09:00:00Z", "submit sim {} --at tomorrow", "submit sim {} --delay -5s", "submit sim {} --delay -5", "submit sim {} --delay=", "submit sim {} --delay soon",
		"submit sim {} --timeout run=1s",
		"submit sim {} --timeout run_hard=-1s", "submit sim {} --timeout run_hard", "submit sim {} --retry on_timeout=maybe",
		"submit sim {} --retry more=1", "submit sim {} --metadata x", "submit sim {} --wait --watch", "submit sim -",
		"submit sim", "watch", "watch a b", "watch job_1 --after -1", "get", "get job_1 --result --json", "list extra",
		"list --created-after tomorrow", "list --created-before -2h", "list --metadata x",
		"cancel job_1 --queue sim", "cancel job_1 --all", "retry --all --status failed", "delete --all", "delete --metadata =x --yes", "cancel --yes",
		"queues pause", "queues resume a b", "submit sim --lines", "submit sim {} --lines -", "submit sim --lines - --wait", "submit sim --lines - --watch",
		"submit sim --lines - --follow", "submit sim --lines /does/not/exist", "submit sim {} --abandon-after soon",
		"list --limit 0", `get ""`, `watch ""`, `cancel ""`, `delete "" --yes`, `queues ""`, `submit "" {}`, `queues pause ""`, "list --limit 5 --all", "cancel", "retry", "delete", "queues a b", "version extra",
		"get job_1 --server localhost:8080", "bench nope", "bench --jobs 0", "bench --payload 1", "bench --duration -1s",
		"bench --connections 0", "sim-upstream --fault strange", "serve --config /does/not/exist", "serve --listen nowhere",
	} {
		t.Run(line, func(t *testing.T) {
			s := newTestEnv("http://127.0.0.1:1")
			s.want(t, exitUsage, "", wordsOf(line)...)
			s.wantErr(t, "meanwhile: ", " --help'.")
		})
	}
}

// wordsOf splits a command line at its spaces; "" is an empty word.
func wordsOf(line string) []string {
	words := strings.Fields(line)
	for i, word := range words {
		if word == `""` {
			words[i] = ""
		}
	}
	return words
}

func TestUsageErrorGivesAdvice(t *testing.T) {
	t.Parallel()
	for line, message := range map[string]string{
		"watch":                          "use 'meanwhile watch ID",
		"backup":                         "use 'meanwhile backup DEST",
		"serve meanwhile.yaml":           "use 'meanwhile serve [flags]'",
		"nope":                           "unknown command \"nope\"",
		"submit sim {} --timeout run=1s": "there are lease, run_soft, run_hard",
		"submit sim {} --retry more=1":   "there are backoff, backoff_max",
		"list --server localhost:8080":   "must look like http://",
		"list --server 127.0.0.1:8080":   "must look like http://",
	} {
		s := newTestEnv("http://127.0.0.1:1")
		s.want(t, exitUsage, "", strings.Fields(line)...)
		s.wantErr(t, message)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	s := newTestEnv("")
	if code := s.run(t, "version"); code != exitOK || !strings.HasPrefix(s.out.String(), "meanwhile ") {
		t.Errorf("exit status %d: %s", code, &s.out)
	}
	s = newTestEnv("")
	if code := s.run(t, "version", "--json"); code != exitOK || !strings.Contains(s.out.String(), `"go":"go1.`) {
		t.Errorf("exit status %d: %s", code, &s.out)
	}
}

func TestNoCommandPrintsHelp(t *testing.T) {
	t.Parallel()
	s := newTestEnv("")
	if code := s.run(t); code != exitOK || !strings.Contains(s.out.String(), "Exit status:") {
		t.Errorf("exit status %d: %s", code, &s.out)
	}
}

// cancelledContext returns a context that has ended, as after an interrupt.
func cancelledContext(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
