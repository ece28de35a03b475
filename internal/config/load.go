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

// Sources are where a configuration comes from. The zero value gives [Default].
type Sources struct {
	File    string            // "" for the file that MEANWHILE_CONFIG names, if any
	Environ []string          // as from os.Environ
	Flags   map[string]string // by [Flag.Name]; only those that were given
}

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Where   string // "meanwhile.yaml:12", "MEANWHILE_LISTEN", "--listen"
	Key     string // "queues.chat.concurrency"; "" when the file itself is wrong
	Message string // what would be right
}

func (p *Problem) Error() string {
	return strings.Join(nonEmpty(p.Where, p.Key, p.Message), ": ")
}

// Load reads a configuration. Its error joins a *[Problem] for each thing that is
// wrong.
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
	if !l.told("") {
		l.check(&cfg)
	}
	return cfg, errors.Join(l.problems...)
}

// loader is one Load under way.
type loader struct {
	env      map[string]string
	where    map[string]string // key → where it was set last
	problems []error
}

func (l *loader) problem(where, key, format string, args ...any) {
	l.problems = append(l.problems, &Problem{Where: where, Key: key, Message: fmt.Sprintf(format, args...)})
}

// told says whether there is a problem with the key, or with something in it; of ""
// with a file as a whole.
func (l *loader) told(key string) bool {
	return slices.ContainsFunc(l.problems, func(err error) bool {
		p, _ := errors.AsType[*Problem](err)
		in, ok := strings.CutPrefix(p.Key, key)
		return ok && (in == "" || key != "" && strings.ContainsAny(in[:1], ".["))
	})
}

func (l *loader) file(cfg *Config, name string) {
	text, err := readBounded(name)
	if err != nil {
		l.problem(name, "", "cannot read the configuration file: %v", err)
		return
	}
	l.yaml(cfg, name, text)
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, errors.Unwrap(err) // the name is in the problem already
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(text) > MaxFile {
		err = fmt.Errorf("it is longer than %d bytes", MaxFile)
	}
	return text, err
}

// yaml reads a file's text onto cfg.
func (l *loader) yaml(cfg *Config, name string, text []byte) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return // an empty file says nothing
	case err != nil:
		l.notYAML(name, text, err)
		return
	}
	if !errors.Is(dec.Decode(&more), io.EOF) {
		l.problem(name, "", "there is to be one YAML document in the file")
		return
	}
	d := decoder{loader: l, file: name}
	d.value(reflect.ValueOf(cfg).Elem(), doc.Content[0], "")
}

// searched bounds the files in which a mistake is looked for: that takes as many
// readings as there are lines.
const searched = 32 << 10 // bytes

// notYAML says where a text stops being YAML, and why. The reader of YAML names the line
// at which it began to read what it got lost in; the mistake is on the line behind the
// longest beginning of the text that can be read.
func (l *loader) notYAML(name string, text []byte, err error) {
	why := strings.TrimPrefix(err.Error(), "yaml: ")
	if len(text) > searched {
		l.problem(name, "", "this is not YAML: %s", why)
		return
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	good := len(lines) - 1
	for good > 0 && yaml.Unmarshal(bytes.Join(lines[:good], nil), new(yaml.Node)) != nil {
		good--
	}
	if _, sentence, ok := strings.Cut(why, ": "); ok {
		why = sentence // without the other line
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

func nonEmpty(parts ...string) []string {
	var kept []string
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return kept
}
