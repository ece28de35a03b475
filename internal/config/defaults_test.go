package config

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	row     = regexp.MustCompile("(?m)^\\| `([a-z_*.\\[\\]]+)` \\| ([^|]*) \\|")
	comment = regexp.MustCompile(` \([^)]*\)`)
	of      = regexp.MustCompile("^`([a-z]+)` (.+)$")
)

// A default in docs/configuration.md is a single value, or one value for each of some
// executors, for the queue chat and for "else".
func TestDocumentationHasEveryDefault(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, r := range row.FindAllStringSubmatch(string(page), -1) {
		key, cell := r[1], comment.ReplaceAllString(r[2], "")
		for subject, is := range defaultsOf(key) {
			checked++
			if documented := documentedFor(cell, subject); documented != is {
				t.Errorf("docs/configuration.md has %s as %q for %s; it is %q", key, documented, subject, is)
			}
		}
	}
	if checked < 60 {
		t.Errorf("only %d defaults were checked", checked)
	}
}

func TestClocksAllowTheDefaultsOfEveryExecutor(t *testing.T) {
	t.Parallel()
	for _, executor := range executorNames() {
		l := loader{where: map[string]string{}}
		l.checkTimeouts(Defaults(executor).Timeouts, executor)
		for _, p := range l.problems {
			t.Error(p)
		}
	}
}

// defaultsOf returns the defaults of a key, by executor or queue.
func defaultsOf(key string) map[string]string {
	within, ofQueue := strings.CutPrefix(key, "queues.*.")
	switch {
	case strings.HasPrefix(key, "models[]."):
		return map[string]string{"a model": leaf(Model{}, strings.TrimPrefix(key, "models[]."))}
	case !ofQueue:
		return map[string]string{"a server": leaf(Default(), key)}
	case within == "executor":
		return nil
	default:
		defaults := map[string]string{"chat": leaf(Default().Queues["chat"], within)}
		for _, executor := range executorNames() {
			defaults[executor] = leaf(Defaults(executor), within)
		}
		return defaults
	}
}

// leaf returns a key's value in the form of a configuration file.
func leaf(of any, key string) string {
	v := reflect.New(reflect.TypeOf(of)).Elem() // an addressable copy
	v.Set(reflect.ValueOf(of))
	for name := range strings.SplitSeq(key, ".") {
		v, _ = fieldOf(v, name)
	}
	switch x := v.Interface().(type) {
	case time.Duration:
		return strconv.FormatFloat(x.Seconds(), 'f', -1, 64)
	case []string:
		return strings.Join(x, ",")
	case map[string]string:
		return strings.Join(slices.Sorted(maps.Keys(x)), ",")
	default:
		return fmt.Sprint(x)
	}
}

// documentedFor returns the default that a cell of the documentation has for an executor
// or queue.
func documentedFor(cell, subject string) string {
	names := []string{subject, "else", ""}
	if subject == "chat" {
		names = []string{"chat", LLM, "else", ""}
	}
	values := map[string]string{}
	for _, piece := range regexp.MustCompile(`[,;] `).Split(cell, -1) {
		name, value := "", piece
		if m := of.FindStringSubmatch(piece); m != nil {
			name, value = m[1], m[2]
		} else if rest, ok := strings.CutPrefix(piece, "else "); ok {
			name, value = "else", rest
		}
		values[name] = value
	}
	for _, name := range names {
		if value, ok := values[name]; ok {
			return plain(value)
		}
	}
	return "nothing"
}

func plain(value string) string {
	switch value {
	case "none", "–", "the first of `models`":
		return ""
	case "learned":
		return "<nil>"
	case "the cores":
		return strconv.Itoa(runtime.GOMAXPROCS(0))
	}
	value = strings.Trim(value, "`")
	if number := strings.ReplaceAll(value, ",", ""); regexp.MustCompile(`^[0-9.]+$`).MatchString(number) {
		return number
	}
	return value
}
