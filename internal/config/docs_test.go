package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const example = "../../examples/meanwhile.yaml"

// allKeys lists every key of a type: "models[].name", "queues.*.timeouts.lease_s".
func allKeys(t reflect.Type, prefix string) []string {
	switch t.Kind() {
	case reflect.Struct:
		var keys []string
		for i := range t.NumField() {
			if tag := t.Field(i).Tag.Get("yaml"); tag != "-" {
				keys = append(keys, allKeys(t.Field(i).Type, join(prefix, tag))...)
			}
		}
		return keys
	case reflect.Map:
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

func TestTheExampleLoadsAndHasEveryKey(t *testing.T) {
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
	said := map[string]bool{}
	for key := range l.where {
		said[index.ReplaceAllString(queueName.ReplaceAllString(key, "queues.*"), "[]")] = true
	}
	for _, key := range allKeys(reflect.TypeFor[Config](), "") {
		if !said[key] {
			t.Errorf("the example does not show %s", key)
		}
	}
}

func TestTheExampleShowsTheDefaultsOfTheChatQueue(t *testing.T) {
	cfg, err := Load(Sources{File: example, Environ: []string{"OPENAI_API_KEY=k"}})
	if err != nil {
		t.Fatal(err)
	}
	chat, want := cfg.Queues["chat"], Default().Queues["chat"]
	want.Model = chat.Model
	if !reflect.DeepEqual(chat, want) {
		t.Errorf("the example says\n%+v\nthe default is\n%+v", chat, want)
	}
}

func TestTheOtherExamplesLoad(t *testing.T) {
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

func TestThePageDescribesEveryKeyAndNoOther(t *testing.T) {
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
