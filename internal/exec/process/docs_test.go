//go:build unix

package process

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// The script of docs/commands.md does what its comments say.
func TestScriptOfTheDocumentation(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	_, script, _ := strings.Cut(string(page), "```sh\n")
	script, _, _ = strings.Cut(script, "```")
	dir := t.TempDir()
	path := filepath.Join(dir, "pack.sh")
	if err := errors.Join(os.WriteFile(path, []byte(script), 0o600), os.WriteFile(filepath.Join(dir, "scan"), []byte("a scan"), 0o600)); err != nil {
		t.Fatal(err)
	}
	e, err := New(Config{Command: []string{"sh", path, "{files}"}, Env: []string{"PATH"}})
	if err != nil {
		t.Fatal(err)
	}
	task := exectest.Task([]byte(`{"n": 1}`))
	scan := exec.File{Path: filepath.Join(dir, "scan"), File: job.File{Name: "scan", Size: 6}}
	task.Files = []exec.File{scan}
	a := exectest.Start(t, e, task)
	if err := a.Wait(); err != nil {
		t.Fatal(err)
	}
	r := a.Sink.Record()
	if result := r.Results[0]; result.ContentType != "application/json" || !strings.HasPrefix(string(result.Body), `{"packed": `) {
		t.Errorf("the result is %s, %s", result.Body, result.ContentType)
	}
	if got, want := r.Progress(), []job.Progress{{Percent: 10, Status: "Packing"}, {Percent: 90, Status: "Counting"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("the progress is %v", got)
	}
	if got, want := r.OfKind(job.KindLog), []string{`packed for the input {"n": 1}`}; !reflect.DeepEqual(got, want) {
		t.Errorf("the log is %q", got)
	}
	task.Files = []exec.File{scan, scan}
	var f *job.Fault
	if err := exectest.Start(t, e, task).Wait(); !errors.As(err, &f) || f.Class != job.Final || !strings.Contains(f.Message, "submit the job with one file") {
		t.Errorf("with two files: %v", err)
	}
}
