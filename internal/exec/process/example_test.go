//go:build unix

package process

import (
	"errors"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const example = "../../../examples/recogniser"

// recogniser returns the executor of the example's queue.
func recogniser(t *testing.T) *Executor {
	t.Helper()
	if _, err := osexec.LookPath("tesseract"); err != nil {
		t.Skip("tesseract is not installed, so the OCR example cannot run: sudo apt-get install tesseract-ocr")
	}
	e, err := New(Config{Command: []string{"sh", "recognise.sh", "{file}"}, Env: []string{"PATH", "TESSDATA_PREFIX"}, Dir: example})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// recognise runs the example on a file with the given content.
func recognise(t *testing.T, picture []byte) (exectest.Record, error) {
	t.Helper()
	e := recogniser(t)
	path := filepath.Join(t.TempDir(), "a page.png")
	if err := os.WriteFile(path, picture, 0o600); err != nil {
		t.Fatal(err)
	}
	task := exectest.Task([]byte("null"))
	task.Files = []exec.File{{Path: path, File: job.File{Name: "a page.png", Size: int64(len(picture))}}}
	a := exectest.Start(t, e, task)
	err := a.Wait()
	return a.Sink.Record(), err
}

func TestExampleRecognisesText(t *testing.T) {
	page, err := os.ReadFile(example + "/page.png")
	if err != nil {
		t.Fatal(err)
	}
	r, err := recognise(t, page)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"THE WAITING ROOM\n", "you go on with your day. The letter travels meanwhile.\n"} {
		if !strings.Contains(r.Text(), line) {
			t.Errorf("the text lacks %q:\n%s", line, r.Text())
		}
	}
	if got := r.Results[0]; string(got.Body) != r.Text() || got.ContentType != "text/plain; charset=utf-8" {
		t.Errorf("the result is %q, %s", got.Body, got.ContentType)
	}
	if p := r.Progress(); len(p) != 2 || p[1] != (job.Progress{Percent: 20, Status: "Recognising the text"}) {
		t.Errorf("the progress is %v", p)
	}
}

func TestExampleRefusesOtherFiles(t *testing.T) {
	elsewhere, err := filepath.Abs(example + "/page.png")
	if err != nil {
		t.Fatal(err)
	}
	for picture, want := range map[string]string{
		"":                       "is not a picture",
		"no picture":             "is not a picture",
		elsewhere + "\n":         "is not a picture", // tesseract itself would accept that page
		"\x89PNG\r\n\x1a\n oops": "is not a picture that tesseract can read",
	} {
		var f *job.Fault
		if _, err := recognise(t, []byte(picture)); !errors.As(err, &f) || f.Class != job.Final || !strings.Contains(f.Message, want) {
			t.Errorf("%q: %v", picture, err)
		}
	}
}

// Missing language data is a fault of the server, not of the picture.
func TestExampleWithoutItsLanguageIsRetried(t *testing.T) {
	t.Setenv("TESSDATA_PREFIX", t.TempDir())
	var f *job.Fault
	if _, err := recognise(t, []byte("no picture")); !errors.As(err, &f) || f.Class != job.Retryable || f.Code != "exit_69" || !strings.Contains(f.Message, "English data") {
		t.Error(err)
	}
}
