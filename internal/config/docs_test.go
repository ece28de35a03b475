package config

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

var update = flag.Bool("update", false, "rewrite what the documentation takes from job.Clocks")

const example = "../../examples/meanwhile.yaml"

// allKeys lists every key of a type: "models[].name", "queues.*.timeouts.lease_s".
func allKeys(t reflect.Type, prefix string) []string {
	switch t.Kind() {
	case reflect.Struct:
		var keys []string
		v := reflect.New(t).Elem()
		for _, name := range keysOf(t) {
			field, _ := fieldOf(v, name)
			keys = append(keys, allKeys(field.Type(), join(prefix, name))...)
		}
		return keys
	case reflect.Map:
		if t == textsType {
			return []string{prefix}
		}
		return allKeys(t.Elem(), prefix+".*")
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			return allKeys(t.Elem(), prefix+"[]")
		}
	}
	return []string{prefix}
}

var (
	queueName = regexp.MustCompile(`^queues\.[^.]+`)
	index     = regexp.MustCompile(`\[\d+\]`)
)

func TestExampleLoadsAndHasEveryKey(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Default()
	l := loader{env: map[string]string{"OPENAI_API_KEY": "k"}, where: map[string]string{}}
	l.yaml(&cfg, example, text)
	l.check(&cfg)
	for _, p := range l.problems {
		t.Error(p)
	}
	shown := map[string]bool{}
	for key := range l.where {
		shown[index.ReplaceAllString(queueName.ReplaceAllString(key, "queues.*"), "[]")] = true
	}
	for _, key := range allKeys(reflect.TypeFor[Config](), "") {
		if !shown[key] {
			t.Errorf("the example does not show %s", key)
		}
	}
}

func TestExampleHasDefaultsOfChatQueue(t *testing.T) {
	t.Parallel()
	cfg, err := Load(Sources{File: example, Environ: []string{"OPENAI_API_KEY=k"}})
	if err != nil {
		t.Fatal(err)
	}
	chat, want := cfg.Queues["chat"], Default().Queues["chat"]
	want.LLM = chat.LLM
	if !reflect.DeepEqual(chat, want) {
		t.Errorf("the example has\n%+v\nthe default is\n%+v", chat, want)
	}
}

func TestOtherExamplesLoad(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../examples/*/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		if _, err := Load(Sources{File: file}); err != nil {
			t.Error(err)
		}
	}
}

func TestDocumentationHasEveryKeyAndNoOther(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var described []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_*.\\[\\]]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		described = append(described, row[1])
	}
	keys := allKeys(reflect.TypeFor[Config](), "")
	slices.Sort(keys)
	slices.Sort(described)
	if !slices.Equal(keys, described) {
		t.Errorf("docs/configuration.md describes\n%v\nthe keys are\n%v", described, keys)
	}
	for _, f := range Flags() {
		if !strings.Contains(string(page), "`--"+f.Name+"`") {
			t.Errorf("docs/configuration.md does not name the flag --%s", f.Name)
		}
	}
}

// The documentation of the clocks is generated from job.Clocks.
func TestDocumentationOfClocksIsUpToDate(t *testing.T) {
	t.Parallel()
	var rows, example strings.Builder
	rows.WriteString("\n\n| key | default | meaning |\n|---|---|---|\n")
	example.WriteString("\n")
	for i := range job.Clocks {
		c := &job.Clocks[i]
		help := strings.ToLower(c.Help[:1]) + strings.TrimSuffix(c.Help[1:], ".")
		fmt.Fprintf(&rows, "| `queues.*.timeouts.%s` | %s | %s |\n", c.Key(), documentedDefault(i), help+documentedBounds(c))
		fmt.Fprintf(&example, "      %-20s # %s\n", fmt.Sprintf("%s: %v", c.Key(), defaultClock(LLM, i).Seconds()), help+documentedBounds(c))
	}
	rows.WriteString("\n")
	checkBetween(t, "../../docs/configuration.md", "<!-- job.Clocks -->", "<!-- end -->", rows.String())
	checkBetween(t, "../../examples/meanwhile.yaml", "    timeouts:", "    retry:", example.String())
}

// defaultClock is the default of the clock job.Clocks[i] for an executor.
func defaultClock(executor string, i int) time.Duration {
	q := Defaults(executor)
	return *q.Timeouts.All()[i]
}

// documentedDefault returns the default of a clock, such as "`llm` 300, else 0".
func documentedDefault(i int) string {
	var text string
	for _, executor := range executorNames() {
		if d := defaultClock(executor, i); d != job.Clocks[i].Default {
			text += fmt.Sprintf("`%s` %v, ", executor, d.Seconds())
		}
	}
	if text != "" {
		text += "else "
	}
	return text + fmt.Sprint(job.Clocks[i].Default.Seconds())
}

func documentedBounds(c *job.Clock) string {
	switch {
	case c.Max < job.MaxDuration:
		return fmt.Sprintf("; %v to %v", c.Min.Seconds(), c.Max.Seconds())
	case c.Min > time.Millisecond:
		return fmt.Sprintf("; at least %v", c.Min.Seconds())
	case c.AlwaysOn:
		return "; never 0"
	}
	return ""
}

// checkBetween compares the text between two marks of a file, or writes it there.
func checkBetween(t *testing.T, file, from, to, want string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(text, []byte(from))
	got, after, ok2 := bytes.Cut(rest, []byte(to))
	switch {
	case !ok || !ok2:
		t.Errorf("%s has no part between %q and %q", file, from, to)
	case *update:
		if err := os.WriteFile(file, slices.Concat(before, []byte(from+want+to), after), 0o644); err != nil {
			t.Fatal(err)
		}
	case string(got) != want:
		t.Errorf("%s does not say what job.Clocks does; run this test with -update", file)
	}
}
