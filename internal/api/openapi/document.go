package openapi

import (
	"embed"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

//go:embed document/*.yaml
var written embed.FS

// parts are the files of the document, in the order of its calls.
var parts = []string{"base", "jobs", "many", "watching", "queues", "chat", "server"}

// document is the whole description, made once, when it is first asked for.
var document = sync.OnceValues(func() (tree, error) {
	var whole tree
	for _, name := range parts {
		part, err := parsePart("document/" + name + ".yaml")
		if err != nil {
			return whole, err
		}
		if whole.node == nil {
			whole = part
			continue
		}
		for _, section := range []string{"paths", "components"} {
			if err := whole.in(section).join(part.at(section)); err != nil {
				return whole, fmt.Errorf("%s.yaml: %w", name, err)
			}
		}
	}
	if err := describeClocks(whole.at("components", "schemas", "Timeouts", "properties")); err != nil {
		return whole, err
	}
	return whole, describeEvery(whole)
})

// describeClocks adds the clocks that a submit may set under "timeouts".
func describeClocks(properties tree) error {
	for i := range job.Clocks {
		c := &job.Clocks[i]
		if c.SubmitField != "" {
			continue
		}
		bounds := fmt.Sprintf("minimum: %s, maximum: %s", inSeconds(c.Min), inSeconds(c.Max))
		if c.Min > 0 && !c.AlwaysOn {
			bounds = fmt.Sprintf("anyOf: [{const: 0}, {%s}]", bounds)
		}
		var schema yaml.Node
		if err := yaml.Unmarshal(fmt.Appendf(nil, "{type: number, %s, description: %q}", bounds, c.Help), &schema); err != nil {
			return fmt.Errorf("the clock %s: %w", c.Name, err)
		}
		properties.set(c.Key(), tree{plain(schema.Content[0])})
	}
	return nil
}

func inSeconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

func parsePart(file string) (tree, error) {
	text, err := written.ReadFile(file)
	if err != nil {
		return tree{}, err
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return tree{}, fmt.Errorf("%s: %w", file, err)
	}
	return tree{plain(root.Content[0])}, nil
}

// JSON is the whole description as JSON.
func JSON() ([]byte, error) {
	doc, err := document()
	if err != nil {
		return nil, err
	}
	return doc.appendJSON(nil), nil
}

// describeEvery puts what is true of every call into each.
func describeEvery(doc tree) error {
	every := doc.take("x-every-call")
	headers := every.at("headers")
	for _, r := range doc.at("components", "responses").pairs() {
		if err := r.value.in("headers").join(headers.copy()); err != nil {
			return err
		}
	}
	for _, c := range callsOf(doc) {
		for _, p := range every.at("parameters").items() {
			c.in("parameters").add(p.copy())
		}
		answers := c.at("responses")
		for _, r := range answers.pairs() {
			if r.value.ref() == "" {
				if err := r.value.in("headers").join(headers.copy()); err != nil {
					return err
				}
			}
		}
		for _, r := range every.at("responses").pairs() {
			if answers.at(r.key).node == nil {
				answers.set(r.key, r.value.copy())
			}
		}
		answers.sort()
	}
	return nil
}

// call is one operation of the document.
type call struct {
	tree
	method, path string // in capitals; as the mux has it
	shared       []tree // the parameters that stand at its path
}

// callsOf lists the operations, in the order of the document.
func callsOf(doc tree) []call {
	var all []call
	for _, p := range doc.at("paths").pairs() {
		shared := p.value.at("parameters").items()
		for _, op := range p.value.pairs() {
			if op.key != "parameters" {
				all = append(all, call{op.value, strings.ToUpper(op.key), p.key, shared})
			}
		}
	}
	return all
}

// codesOf lists the codes that an answer may have.
func codesOf(doc, answer tree) (codes []string) {
	problem := doc.follow(answer).at("content", "application/problem+json", "schema")
	code := problem.at("properties", "code")
	if code.node == nil {
		code = doc.follow(problem).at("properties", "code")
	}
	for _, c := range doc.follow(code).at("enum").items() {
		codes = append(codes, c.text())
	}
	return codes
}

// follow is what a reference in the document leads to, or what is no reference.
func (t tree) follow(x tree) tree {
	if ref := x.ref(); ref != "" {
		return t.at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
	return x
}
