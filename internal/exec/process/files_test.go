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

// withFiles makes an attempt of a job that came with files of those names.
func withFiles(t *testing.T, e exec.Executor, input string, names ...string) (text string, files []exec.File, err error) {
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

func TestFilesStandInTheArguments(t *testing.T) {
	for rule, tt := range map[string]struct {
		command []string
		names   []string
		said    string
	}{
		"one":                 {[]string{"cat", "{file}"}, []string{"a b.txt"}, "in a b.txt"},
		"one, inside":         {[]string{"sh", "-c", `cat "${1#--in=}"`, "sh", "--in={file}"}, []string{"a"}, "in a"},
		"all":                 {[]string{"cat", "{files}"}, []string{"a", "$(b)"}, "in ain $(b)"},
		"none where not said": {[]string{"echo", "{fil}"}, []string{"a"}, "{fil}\n"},
		"no files, not said":  {[]string{"echo", "x"}, nil, "x\n"},
	} {
		if said, _, err := withFiles(t, command(t, tt.command...), "null", tt.names...); err != nil || said != tt.said {
			t.Errorf("%s: %q, %v", rule, said, err)
		}
	}
}

// A command that works on files is not run without them.
func TestAJobWithoutTheFilesOfItsCommandFails(t *testing.T) {
	for _, tt := range []struct {
		arg   string
		names []string
		says  string
	}{
		{"{file}", nil, "works on one file, and the job came with 0"},
		{"--in={file}", []string{"a", "b"}, "works on one file, and the job came with 2"},
		{"{files}", nil, "came with none"},
	} {
		var f *job.Fault
		_, _, err := withFiles(t, command(t, "cat", tt.arg), "null", tt.names...)
		if !errors.As(err, &f) || f.Class != job.Final || f.Code != "wrong_files" || !strings.Contains(f.Message, tt.says) {
			t.Errorf("%s with %v: %v", tt.arg, tt.names, err)
		}
	}
}

func TestFilesStandInTheEnvironment(t *testing.T) {
	script := `printf '%s\n' "$MEANWHILE_FILE_1" "$MEANWHILE_FILE_2" "$MEANWHILE_FILE_3" "$MEANWHILE_FILES"`
	said, files, err := withFiles(t, shell(t), script, "a", `<b> "c".txt`)
	lines := strings.Split(said, "\n")
	if err != nil || len(lines) != 5 || lines[0] != files[0].Path || lines[1] != files[1].Path || lines[2] != "" {
		t.Fatalf("%q, %v", said, err)
	}
	var facts []fileFact
	if err := json.Unmarshal([]byte(lines[3]), &facts); err != nil {
		t.Fatal(err)
	}
	want := []fileFact{{"a", files[0].Path, "text/plain", 4}, {`<b> "c".txt`, files[1].Path, "text/plain", 14}}
	if !reflect.DeepEqual(facts, want) {
		t.Errorf("told %+v", facts)
	}
	if said, _, err := withFiles(t, shell(t), `env | grep -c MEANWHILE_FILE`); said != "0\n" {
		t.Errorf("without files: %q, %v", said, err)
	}
}

// As many files as a job may have, with the longest names, are few enough for the
// environment of a process.
func TestTheMostFilesFit(t *testing.T) {
	var names []string
	for i := range job.MaxFiles {
		names = append(names, fmt.Sprintf("%03d", i)+strings.Repeat(`"`, job.MaxFileName-3))
	}
	if said, _, err := withFiles(t, command(t, "sh", "-c", `cat "$MEANWHILE_FILE_32" | wc -c`), "null", names...); err != nil || strings.TrimSpace(said) != "258" {
		t.Errorf("%q, %v", said, err)
	}
}
