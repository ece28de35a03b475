//go:build unix

package process

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

const example = "../../../examples/recogniser"

// recogniser is the executor of the example's queue.
func recogniser(t *testing.T) *Executor {
	t.Helper()
	if _, err := exec.LookPath("tesseract"); err != nil {
		t.Skip("tesseract is not installed, so the OCR example cannot run: sudo apt-get install tesseract-ocr")
	}
	e, err := New(Config{Command: []string{"sh", "recognise.sh"}, Env: []string{"PATH", "TESSDATA_PREFIX"}, Dir: example})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestTheExampleReadsItsPage(t *testing.T) {
	e := recogniser(t)
	page, err := os.ReadFile(example + "/page.png")
	if err != nil {
		t.Fatal(err)
	}
	input, _ := json.MarshalIndent(map[string]string{"image": base64.StdEncoding.EncodeToString(page)}, "", "  ")
	r := succeed(t, e, string(input))
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

func TestTheExampleRefusesWhatIsNoPicture(t *testing.T) {
	e := recogniser(t)
	for input, says := range map[string]string{
		`{}`:                            `must be {"image": "..."}`,
		`{"image": 5}`:                  `must be {"image": "..."}`,
		`{"image": "no base64!"}`:       "is not base64",
		`{"image": "bm8gcGljdHVyZQ=="}`: "is not a picture",
	} {
		f := failing(t, e, input)
		if f.Class != job.Final || !strings.Contains(f.Message, says) {
			t.Errorf("%s: class %d, %s", input, f.Class, f.Message)
		}
	}
}

// What the server lacks is no fault of the input.
func TestTheExampleWithoutItsLanguageIsTriedAgain(t *testing.T) {
	t.Setenv("TESSDATA_PREFIX", t.TempDir())
	e := recogniser(t)
	if f := failing(t, e, `{"image": "bm8gcGljdHVyZQ=="}`); f.Class != job.Later || f.Code != "exit_69" || !strings.Contains(f.Message, "English data") {
		t.Errorf("class %d, %s, %s", f.Class, f.Code, f.Message)
	}
}
