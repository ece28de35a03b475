package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The ways in which code names the code of a failed attempt.
var faultCodes = []*regexp.Regexp{
	regexp.MustCompile(`Code: +(?:fmt\.Sprintf\()?"([a-z_]+(?:%d)?)"`),
	regexp.MustCompile(`Code = fmt\.Sprintf\("([a-z_]+(?:%d)?)"`),
	regexp.MustCompile(`"((?:upstream|command)_[a-z_]+)"`),
	regexp.MustCompile(`"([a-z]+_output_timeout)"`),
	regexp.MustCompile(`failCode: +"([a-z_]+)"`),
}

func TestFailureCodesAreDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "concepts.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, room := range []string{"exec/llm", "exec/process", "exec/fn", "exec/sim", "runner", "engine", "job"} {
		for file, text := range readProductionCode(t, filepath.Join(root, "internal", room)) {
			for _, form := range faultCodes {
				for _, m := range form.FindAllStringSubmatch(text, -1) {
					found++
					if code := strings.Replace(m[1], "%d", "N", 1); !strings.Contains(string(page), "`"+code+"`") {
						t.Errorf("%s fails jobs with %s, which docs/concepts.md does not explain", file, code)
					}
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d codes were found: the code names them in a way that this test does not see", found)
	}
}

// readProductionCode reads the files of a room that are no tests.
func readProductionCode(t *testing.T, room string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(room, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[strings.TrimPrefix(file, root+"/")] = string(text)
	}
	return texts
}
