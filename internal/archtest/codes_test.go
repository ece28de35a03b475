package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// faultCodes match the ways in which the source writes the code of a failed attempt.
var faultCodes = []*regexp.Regexp{
	regexp.MustCompile(`Code: +(?:fmt\.Sprintf\()?"([a-z_]+(?:%d)?)"`),
	regexp.MustCompile(`Code = fmt\.Sprintf\("([a-z_]+(?:%d)?)"`),
	regexp.MustCompile(`"((?:upstream|command)_[a-z_]+)"`),
	regexp.MustCompile(`"([a-z]+_output_timeout)"`),
	regexp.MustCompile(`failCode: +"([a-z_]+)"`),
}

func TestFailureCodesAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(root, "docs", "concepts.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, pkg := range []string{"exec/llm", "exec/process", "exec/fn", "exec/sim", "runner", "engine", "job"} {
		for file, text := range readProductionCode(t, filepath.Join(root, "internal", pkg)) {
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
		t.Errorf("only %d codes were found: this test does not match how the source writes them", found)
	}
}

// readProductionCode reads the Go files of a directory, without tests.
func readProductionCode(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
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
