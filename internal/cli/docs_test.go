package cli

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/client"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
	"github.com/meanwhile-run/meanwhile/internal/server"
	"github.com/meanwhile-run/meanwhile/internal/simmodel"
)

var (
	codeBlock   = regexp.MustCompile("(?ms)^```(sh|console|)\n(.*?)^```")
	commandLine = regexp.MustCompile(`^\s*([A-Z]+=\$\()?(curl|meanwhile|bin/meanwhile) `)
	serveLine   = regexp.MustCompile(`(?m)^(\$ )?(go run \./cmd/meanwhile|bin/meanwhile|meanwhile) (serve.*)$`)
)

// The test runs every command in README and docs that uses curl or the program. Its server
// has the jobs and files that the commands name.
func TestDocsCommandsSucceed(t *testing.T) {
	if testing.Short() {
		t.Skip("runs every command of the documentation")
	}
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil && os.Getenv("MEANWHILE_CI") == "" {
		t.Skip("curl is not installed; see examples/needs")
	}
	m := newDocsRunner(t)
	ran := 0
	for page, text := range pages(t) {
		for _, b := range codeBlock.FindAllStringSubmatch(text, -1) {
			if commands := commandsOf(b[2]); commands != "" && m.canRun(commands) {
				ran++
				m.run(t, page, commands)
			}
		}
	}
	if ran < 15 {
		t.Errorf("only %d blocks have commands: this test does not match how they are written", ran)
	}
}

func pages(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) < 8 {
		t.Fatalf("%v %v", files, err)
	}
	all := map[string]string{}
	for _, file := range append(files, "../../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[file] = string(text)
	}
	return all
}

// commandsOf returns the commands of a block, without their output. It leaves out commands
// that start servers.
func commandsOf(text string) string {
	var kept []string
	continues := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(strings.TrimPrefix(line, "$ "), "\n")
		if continues || commandLine.MatchString(line) && !serveLine.MatchString(line) {
			kept = append(kept, line)
			continues = strings.HasSuffix(line, `\`)
		}
	}
	return strings.Join(kept, "\n")
}

// readmeJobID is the id of the job in README.
const readmeJobID = "job_06gzv0hv4nx3x2tbamncww1dcw"

// docsRunner runs commands of the documentation against a server.
type docsRunner struct {
	dir, program, url string
	hasPostgres       bool
	replacer          *strings.Replacer
}

// docsDatabase is the database of the documentation.
const docsDatabase = "postgres://meanwhile@db.example.com/meanwhile"

// canRun reports whether what the commands need is installed.
func (m *docsRunner) canRun(commands string) bool {
	return m.hasPostgres || !strings.Contains(commands, docsDatabase)
}

func newDocsRunner(t *testing.T) *docsRunner {
	model := httptest.NewServer(simmodel.New(simmodel.Options{}))
	t.Cleanup(model.Close)
	cfg := config.Default()
	cfg.Listen, cfg.Data = "127.0.0.1:0", t.TempDir()
	cfg.Models = []config.Model{{Name: "sim", BaseURL: model.URL + "/v1"}}
	for name, command := range map[string][]string{"ocr": {"wc", "-c", "{file}"}, "count": {"wc", "-c"}} {
		q := config.Defaults(config.Process)
		q.Process.Command = command
		cfg.Queues[name] = q
	}
	url := startServer(t, cfg)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)

	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m := &docsRunner{dir: t.TempDir(), program: program, url: url}
	m.createFiles(t)
	database := ""
	if m.hasPostgres = pgtest.Installed() || os.Getenv("MEANWHILE_CI") != ""; m.hasPostgres {
		database = pgtest.Shared(t).Schema(t).URL()
	}
	id := m.askQuestion(t, url)
	stopped := filepath.Join(m.dir, "stopped")
	if _, err := server.Backup(t.Context(), cfg.Data, stopped, func(_, _ int64) {}); err != nil {
		t.Fatal(err)
	}
	m.replacer = strings.NewReplacer(
		"-H 'Authorization: Bearer mw_k2vq5hw3mzt7_…' ", "", // the server has no keys
		"sqlite:/var/lib/meanwhile", "sqlite:"+stopped,
		"http://127.0.0.1:8080", url, "$ID", id, "$TASK", id, "job_…", id, readmeJobID, id,
		docsDatabase, shellQuote(database), "/var/lib/meanwhile", cfg.Data, "/backup/monday", filepath.Join(m.dir, "backup"),
	)
	return m
}

// createFiles creates the files that the commands name.
func (m *docsRunner) createFiles(t *testing.T) {
	t.Helper()
	top, err := filepath.Abs("../..")
	if err == nil {
		err = os.Symlink(filepath.Join(top, "examples"), filepath.Join(m.dir, "examples"))
	}
	for name, text := range map[string]string{"scan.png": "a picture", "jobs.jsonl": "{\"echo\":1}\n{\"echo\":2}\n"} {
		if err == nil {
			err = os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// askQuestion asks a question and waits for its end. The question is a job and a chat task
// with the same id.
func (m *docsRunner) askQuestion(t *testing.T, url string) (id string) {
	t.Helper()
	res, err := http.Post(url+"/api/chat", "application/json", strings.NewReader(`{"query":"tides?"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	_, rest, ok := strings.Cut(string(text), `"task_id":"`)
	if id, _, _ = strings.Cut(rest, `"`); err != nil || !ok {
		t.Fatalf("%v %s", err, text)
	}
	c, err := client.New(url)
	if err == nil {
		_, err = c.Wait(t.Context(), id)
	}
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// run runs commands unchanged, except for the URL of the server and the id of the job.
func (m *docsRunner) run(t *testing.T, page, commands string) {
	t.Helper()
	const shell = `set -eu
program=$1
meanwhile() { "$program" "$@"; }
curl() { command curl --fail-with-body --max-time 60 "$@"; }
`
	script := shell + strings.ReplaceAll(m.replacer.Replace(commands), "bin/meanwhile", "meanwhile")
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script, "sh", m.program)
	cmd.Dir = m.dir
	cmd.Env = append(os.Environ(), "MEANWHILE_SERVER="+m.url)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s has the commands\n%s\nwhich fail with %v:\n%s", page, commands, err, out)
	}
}

// The commands that start servers in the documentation use only flags that exist.
func TestDocsServeCommandsParse(t *testing.T) {
	t.Parallel()
	found := 0
	for page, text := range pages(t) {
		for _, line := range serveLine.FindAllStringSubmatch(text, -1) {
			found++
			words, _, _ := strings.Cut(line[3], "#")
			args := strings.Fields(words)
			cmd, rest, err := NewRoot(&newTestEnv("").Env).Find(args)
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err != nil || cmd.Name() != "serve" || cmd.Flags().NArg() > 0 {
				t.Errorf("%s: %s: %v", page, line[0], err)
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d servers were found", found)
	}
}
