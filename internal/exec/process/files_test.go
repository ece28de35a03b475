//go:build unix

package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// runWithFiles runs one attempt of a job with files of the given names.
func runWithFiles(t *testing.T, e exec.Executor, input string, names ...string) (text string, files []exec.File, err error) {
	t.Helper()
	task, dir := exectest.Task([]byte(input)), t.TempDir()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("in "+name), 0o600); err != nil {
			t.Fatal(err)
		}
		task.Files = append(task.Files, exec.File{Path: path, File: job.File{Name: name, ContentType: "text/plain", Size: int64(3 + len(name))}})
	}
	a := exectest.Start(t, e, task)
	err = a.Wait()
	r := a.Sink.Record()
	return r.Text(), task.Files, err
}

func TestArgumentsNameFiles(t *testing.T) {
	for rule, tt := range map[string]struct {
		command []string
		names   []string
		text    string
	}{
		"one":            {[]string{"cat", "{file}"}, []string{"a b.txt"}, "in a b.txt"},
		"one, inside":    {[]string{"sh", "-c", `cat "${1#--in=}"`, "sh", "--in={file}"}, []string{"a"}, "in a"},
		"all":            {[]string{"cat", "{files}"}, []string{"a", "$(b)"}, "in ain $(b)"},
		"no placeholder": {[]string{"echo", "{fil}"}, []string{"a"}, "{fil}\n"},
		"no files":       {[]string{"echo", "x"}, nil, "x\n"},
	} {
		if text, _, err := runWithFiles(t, newExecutor(t, tt.command...), "null", tt.names...); err != nil || text != tt.text {
			t.Errorf("%s: %q, %v", rule, text, err)
		}
	}
}

// A command that needs files is not run without them.
func TestMissingFilesFailTheJob(t *testing.T) {
	for _, tt := range []struct {
		arg   string
		names []string
		want  string
	}{
		{"{file}", nil, "works on one file, and the job came with 0"},
		{"--in={file}", []string{"a", "b"}, "works on one file, and the job came with 2"},
		{"{files}", nil, "came with none"},
	} {
		var f *job.Fault
		_, _, err := runWithFiles(t, newExecutor(t, "cat", tt.arg), "null", tt.names...)
		if !errors.As(err, &f) || f.Class != job.Final || f.Code != "wrong_files" || !strings.Contains(f.Message, tt.want) {
			t.Errorf("%s with %v: %v", tt.arg, tt.names, err)
		}
	}
}

func TestEnvironmentNamesFiles(t *testing.T) {
	script := `printf '%s\n' "$MEANWHILE_FILE_1" "$MEANWHILE_FILE_2" "$MEANWHILE_FILE_3" "$MEANWHILE_FILES"`
	text, files, err := runWithFiles(t, newShell(t), script, "a", `<b> "c".txt`)
	lines := strings.Split(text, "\n")
	if err != nil || len(lines) != 5 || lines[0] != files[0].Path || lines[1] != files[1].Path || lines[2] != "" {
		t.Fatalf("%q, %v", text, err)
	}
	var infos []fileInfo
	if err := json.Unmarshal([]byte(lines[3]), &infos); err != nil {
		t.Fatal(err)
	}
	want := []fileInfo{{"a", files[0].Path, "text/plain", 4}, {`<b> "c".txt`, files[1].Path, "text/plain", 14}}
	if !reflect.DeepEqual(infos, want) {
		t.Errorf("the command got %+v", infos)
	}
	if text, _, err := runWithFiles(t, newShell(t), `env | grep -c MEANWHILE_FILE`); text != "0\n" {
		t.Errorf("without files: %q, %v", text, err)
	}
}

// The maximum number of files, with the longest names, fits in the environment of a process.
func TestMaxFilesFitTheEnvironment(t *testing.T) {
	var names []string
	for i := range job.MaxFiles {
		names = append(names, fmt.Sprintf("%03d", i)+strings.Repeat(`"`, job.MaxFileName-3))
	}
	if text, _, err := runWithFiles(t, newExecutor(t, "sh", "-c", `cat "$MEANWHILE_FILE_32" | wc -c`), "null", names...); err != nil || strings.TrimSpace(text) != "258" {
		t.Errorf("%q, %v", text, err)
	}
}
