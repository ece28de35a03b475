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
var sources embed.FS

// partNames are the files of the document, in the order of their calls.
var partNames = []string{"base", "jobs", "many", "watching", "queues", "tokens", "access", "webhooks", "chat", "server"}

// loadDocument returns the whole description. The first call builds it.
var loadDocument = sync.OnceValues(func() (tree, error) {
	var doc tree
	for _, name := range partNames {
		part, err := parsePart("document/" + name + ".yaml")
		if err != nil {
			return doc, err
		}
		if doc.node == nil {
			doc = part
			continue
		}
		for _, section := range []string{"paths", "components"} {
			if err := doc.ensure(section).merge(part.at(section)); err != nil {
				return doc, fmt.Errorf("%s.yaml: %w", name, err)
			}
		}
	}
	if err := describeClocks(doc.at("components", "schemas", "Timeouts", "properties")); err != nil {
		return doc, err
	}
	return doc, addShared(doc)
})

// describeClocks adds the clocks that a submit may set under "timeouts".
func describeClocks(properties tree) error {
	for i := range job.Clocks {
		c := &job.Clocks[i]
		if c.SubmitField != "" {
			continue
		}
		bounds := fmt.Sprintf("minimum: %s, maximum: %s", formatSeconds(c.Min), formatSeconds(c.Max))
		if c.Min > 0 && !c.AlwaysOn {
			bounds = fmt.Sprintf("anyOf: [{const: 0}, {%s}]", bounds)
		}
		var schema yaml.Node
		if err := yaml.Unmarshal(fmt.Appendf(nil, "{type: number, %s, description: %q}", bounds, c.Help), &schema); err != nil {
			return fmt.Errorf("the clock %s: %w", c.Name, err)
		}
		properties.set(c.Key(), tree{expand(schema.Content[0])})
	}
	return nil
}

func formatSeconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

func parsePart(file string) (tree, error) {
	text, err := sources.ReadFile(file)
	if err != nil {
		return tree{}, err
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return tree{}, fmt.Errorf("%s: %w", file, err)
	}
	return tree{expand(root.Content[0])}, nil
}

// JSON returns the whole description as JSON.
func JSON() ([]byte, error) {
	doc, err := loadDocument()
	if err != nil {
		return nil, err
	}
	return doc.appendJSON(nil), nil
}

// addShared adds what all calls share to each call.
func addShared(doc tree) error {
	shared := doc.remove("x-every-call")
	headers := shared.at("headers")
	for _, r := range doc.at("components", "responses").pairs() {
		if err := r.value.ensure("headers").merge(headers.copy()); err != nil {
			return err
		}
	}
	for _, c := range operations(doc) {
		for _, p := range shared.at("parameters").items() {
			c.ensure("parameters").append(p.copy())
		}
		responses := c.at("responses")
		for _, r := range responses.pairs() {
			if r.value.ref() == "" {
				if err := r.value.ensure("headers").merge(headers.copy()); err != nil {
					return err
				}
			}
		}
		for _, r := range shared.at("responses").pairs() {
			if responses.at(r.key).node == nil {
				responses.set(r.key, r.value.copy())
			}
		}
		responses.sort()
	}
	return nil
}

// operation is one operation of the document.
type operation struct {
	tree
	method, path   string // upper case; as in a pattern of the mux
	pathParameters []tree // the parameters that all operations of the path share
}

// operations returns all operations, in the order of the document.
func operations(doc tree) []operation {
	var all []operation
	for _, p := range doc.at("paths").pairs() {
		shared := p.value.at("parameters").items()
		for _, op := range p.value.pairs() {
			if op.key != "parameters" {
				all = append(all, operation{op.value, strings.ToUpper(op.key), p.key, shared})
			}
		}
	}
	return all
}

// errorCodes returns the error codes of a response.
func errorCodes(doc, answer tree) (codes []string) {
	problem := doc.resolve(answer).at("content", "application/problem+json", "schema")
	code := problem.at("properties", "code")
	if code.node == nil {
		code = doc.resolve(problem).at("properties", "code")
	}
	for _, c := range doc.resolve(code).at("enum").items() {
		codes = append(codes, c.text())
	}
	return codes
}

// resolve returns the target of a reference, or x itself where it is no reference.
func (t tree) resolve(x tree) tree {
	if ref := x.ref(); ref != "" {
		return t.at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
	return x
}
