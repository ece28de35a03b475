//go:build unix

package server

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// shellQueue adds a queue whose jobs are the script sh, with the job's files as arguments.
func shellQueue(script string) func(*config.Config) {
	return func(c *config.Config) {
		q := config.Defaults(config.Process)
		q.Process.Command, q.Process.Env, q.MaxAttempts = []string{"sh", "-c", script, "sh", "{files}"}, []string{"PATH"}, 1
		if !strings.Contains(script, "$1") {
			q.Process.Command = q.Process.Command[:4]
		}
		c.Queues = maps.Clone(c.Queues)
		c.Queues["shell"] = q
	}
}

// The result of a command is its output byte for byte. Watchers see text.
func TestCommandsBytesAreTheResult(t *testing.T) {
	t.Parallel()
	s := serve(t, shellQueue(`printf 'caf\303\251 \377\000end'`))
	_, j := s.call("POST", "/v1/jobs", `{"queue":"shell","input":null}`, "Prefer", "wait=60")
	if j["status"] != "succeeded" || j["output_text"] != "café \ufffd\ufffdend" {
		t.Fatalf("the job is %v", j)
	}
	if status, body := s.text("GET", "/v1/jobs/"+j["id"].(string)+"/result", ""); status != 200 || body != "caf\xc3\xa9 \xff\x00end" {
		t.Errorf("the result is %d, %q", status, body)
	}
	s.quit()
}

// A command's scratch directory is in the data directory and is empty after the job. A start
// removes those of a killed server.
func TestScratchDirectoriesEnd(t *testing.T) {
	onlySQLite(t)
	t.Parallel()
	left := ""
	s := serve(t, func(c *config.Config) {
		shellQueue(`echo "$TMPDIR"; echo x > "$TMPDIR/x"`)(c)
		left = filepath.Join(c.Data, "tmp", "meanwhile-left")
		if err := os.MkdirAll(filepath.Join(left, "by/a/crash"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.Data, "version"), []byte("1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("after a start: %v", err)
	}
	_, j := s.call("POST", "/v1/jobs", `{"queue":"shell","input":null}`, "Prefer", "wait=60")
	dir, _ := j["output_text"].(string)
	if dir = strings.TrimSpace(dir); j["status"] != "succeeded" || filepath.Dir(dir) != filepath.Dir(left) {
		t.Errorf("the job is %v", j)
	}
	if entries, err := os.ReadDir(filepath.Dir(left)); err != nil || len(entries) > 0 {
		t.Errorf("after the job there are %v, %v", entries, err)
	}
	s.quit()
}

// What a command puts in the place of a job's file is neither served nor copied.
func TestReplacedFileIsNeitherServedNorCopied(t *testing.T) {
	onlySQLite(t)
	t.Parallel()
	s := serve(t, shellQueue(`ln -sf "$(dirname "$1")/../../watch.key" "$1"`))
	_, j := s.submitFiles(`{"queue":"shell"}`, map[string]string{"a.txt": "one"}, "Prefer", "wait=60")
	if j["status"] != "succeeded" {
		t.Fatalf("the job is %v", j)
	}
	id := j["id"].(string)
	if status, body := s.text("GET", "/v1/jobs/"+id+"/files/a.txt", ""); status != 404 {
		t.Errorf("the file is served: %d, %q", status, body)
	}
	s.quit()
	to := filepath.Join(t.TempDir(), "copy")
	copied, err := Backup(t.Context(), s.cfg.Data, to, func(int64, int64) {})
	if err != nil || len(copied.Lost) != 1 {
		t.Errorf("the copy is %+v, %v", copied, err)
	}
	if _, err := os.Lstat(filepath.Join(filesIn(to), id, "a.txt")); !os.IsNotExist(err) {
		t.Errorf("the link is in the copy: %v", err)
	}
}
