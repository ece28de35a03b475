package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxFile is the size of the largest configuration file that is read.
const MaxFile = 1 << 20

// Sources are the inputs of [Load]. The zero value gives [Default].
type Sources struct {
	File    string            // "" for the file in MEANWHILE_CONFIG, or none if that is not set
	Environ []string          // as from os.Environ
	Flags   map[string]string // by [Flag.Name]; only those that were given
}

// Problem is one mistake in a configuration.
type Problem struct {
	Where   string // "meanwhile.yaml:12", "MEANWHILE_LISTEN", "--listen"
	Key     string // "queues.chat.concurrency"; "" when the file itself is wrong
	Message string // what is wrong, or a valid value
}

func (p *Problem) Error() string {
	parts := slices.DeleteFunc([]string{p.Where, p.Key, p.Message}, func(part string) bool { return part == "" })
	return strings.Join(parts, ": ")
}

// Load reads a configuration. Its error joins a *[Problem] for each mistake.
func Load(src Sources) (Config, error) {
	cfg := Default()
	l := loader{env: environ(src.Environ), where: map[string]string{}}
	file := src.File
	if file == "" {
		file = l.env["MEANWHILE_CONFIG"]
	}
	if file != "" {
		l.file(&cfg, file)
	}
	l.settings(&cfg, src.Flags)
	if !l.hasProblem("") {
		l.check(&cfg)
	}
	return cfg, errors.Join(l.problems...)
}

// loader holds the state of one Load.
type loader struct {
	env      map[string]string
	where    map[string]string // key → where it was set last
	problems []error
}

func (l *loader) problem(where, key, format string, args ...any) {
	l.problems = append(l.problems, &Problem{Where: where, Key: key, Message: fmt.Sprintf(format, args...)})
}

// hasProblem reports whether the key or a key under it has a problem. The key "" stands for
// the file as a whole.
func (l *loader) hasProblem(key string) bool {
	return slices.ContainsFunc(l.problems, func(err error) bool {
		p, _ := errors.AsType[*Problem](err)
		in, ok := strings.CutPrefix(p.Key, key)
		return ok && (in == "" || key != "" && strings.ContainsAny(in[:1], ".["))
	})
}

func (l *loader) file(cfg *Config, name string) {
	text, err := readBounded(name, MaxFile)
	if err != nil {
		l.problem(name, "", "cannot read the configuration file: %v", err)
		return
	}
	l.yaml(cfg, name, text)
}

func readBounded(name string, limit int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, errors.Unwrap(err) // the name is in the problem already
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(text) > limit {
		err = fmt.Errorf("it is longer than %d bytes", limit)
	}
	return text, err
}

// yaml overlays the text of a file on cfg.
func (l *loader) yaml(cfg *Config, name string, text []byte) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return // an empty file changes nothing
	case err != nil:
		l.notYAML(name, text, err)
		return
	}
	if !errors.Is(dec.Decode(&more), io.EOF) {
		l.problem(name, "", "the file must hold one YAML document")
		return
	}
	d := decoder{loader: l, file: name}
	d.value(reflect.ValueOf(cfg).Elem(), doc.Content[0], "")
}

// maxSearched is the size of the largest file in which notYAML searches for the line of a
// mistake. The search may parse the file once for each line.
const maxSearched = 32 << 10 // bytes

// notYAML reports where and why a text is not YAML. The parser only gives the line on which
// the broken construct begins. The mistake itself is on the line after the longest prefix
// of the text that can be parsed.
func (l *loader) notYAML(name string, text []byte, err error) {
	why := strings.TrimPrefix(err.Error(), "yaml: ")
	if len(text) > maxSearched {
		l.problem(name, "", "this is not YAML: %s", why)
		return
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	good := len(lines) - 1
	for good > 0 && yaml.Unmarshal(bytes.Join(lines[:good], nil), new(yaml.Node)) != nil {
		good--
	}
	if _, sentence, ok := strings.Cut(why, ": "); ok {
		why = sentence // without the parser's line
	}
	if bad := lines[good]; bytes.ContainsRune(bad[:len(bad)-len(bytes.TrimLeft(bad, " \t"))], '\t') {
		why = "a line is indented with spaces, not with tabs"
	}
	l.problem(fmt.Sprintf("%s:%d", name, good+1), "", "this is not YAML: %s", why)
}

func environ(list []string) map[string]string {
	env := make(map[string]string, len(list))
	for _, pair := range list {
		if name, value, ok := strings.Cut(pair, "="); ok {
			env[name] = value
		}
	}
	return env
}
