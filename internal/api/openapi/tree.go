package openapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// tree is a part of the document. The zero tree is a missing part; all parts of it are
// missing too.
type tree struct{ node *yaml.Node }

// pair is a member of an object.
type pair struct {
	key   string
	value tree
}

// expand copies a node. It replaces aliases and merge keys by what they refer to.
func expand(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return expand(n.Alias)
	}
	c := *n
	c.Anchor, c.Content = "", nil
	if n.Kind != yaml.MappingNode {
		for _, item := range n.Content {
			c.Content = append(c.Content, expand(item))
		}
		return &c
	}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], expand(n.Content[i+1])
		if key.ShortTag() != "!!merge" {
			tree{&c}.set(key.Value, tree{value})
			continue
		}
		for _, p := range (tree{value}).pairs() {
			tree{&c}.set(p.key, p.value)
		}
	}
	return &c
}

func (t tree) copy() tree { return tree{expand(t.node)} }

// at returns the part under a path of keys.
func (t tree) at(path ...string) tree {
	for _, key := range path {
		i := t.index(key)
		if i < 0 {
			return tree{}
		}
		t = tree{t.node.Content[i+1]}
	}
	return t
}

func (t tree) index(key string) int {
	if t.node == nil || t.node.Kind != yaml.MappingNode {
		return -1
	}
	for i := 0; i < len(t.node.Content); i += 2 {
		if t.node.Content[i].Value == key {
			return i
		}
	}
	return -1
}

// ensure returns the part under a key. Where it is missing, ensure adds an empty object, or
// an empty list for "parameters".
func (t tree) ensure(key string) tree {
	if t.at(key).node == nil {
		kind := yaml.MappingNode
		if key == "parameters" {
			kind = yaml.SequenceNode
		}
		t.set(key, tree{&yaml.Node{Kind: kind}})
	}
	return t.at(key)
}

func (t tree) set(key string, value tree) {
	if i := t.index(key); i >= 0 {
		t.node.Content[i+1] = value.node
		return
	}
	t.node.Content = append(t.node.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, value.node)
}

// remove removes the part under a key and returns it.
func (t tree) remove(key string) tree {
	i := t.index(key)
	if i < 0 {
		return tree{}
	}
	value := tree{t.node.Content[i+1]}
	t.node.Content = slices.Delete(t.node.Content, i, i+2)
	return value
}

func (t tree) append(item tree) { t.node.Content = append(t.node.Content, item.node) }

// merge adds the members of another object, recursively. It refuses a member that both have,
// and a path in two files.
func (t tree) merge(more tree) error {
	for _, p := range more.pairs() {
		there := t.at(p.key)
		switch {
		case there.node == nil:
			t.set(p.key, p.value)
		case there.node.Kind != yaml.MappingNode || there.ref() != "" || strings.HasPrefix(p.key, "/"):
			return fmt.Errorf("%s is there twice", p.key)
		default:
			if err := there.merge(p.value); err != nil {
				return err
			}
		}
	}
	return nil
}

// sort sorts the members by their keys.
func (t tree) sort() {
	all := t.pairs()
	slices.SortStableFunc(all, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	t.node.Content = nil
	for _, p := range all {
		t.set(p.key, p.value)
	}
}

func (t tree) pairs() []pair {
	if t.node == nil || t.node.Kind != yaml.MappingNode {
		return nil
	}
	var all []pair
	for i := 0; i < len(t.node.Content); i += 2 {
		all = append(all, pair{t.node.Content[i].Value, tree{t.node.Content[i+1]}})
	}
	return all
}

func (t tree) items() []tree {
	if t.node == nil || t.node.Kind != yaml.SequenceNode {
		return nil
	}
	var all []tree
	for _, n := range t.node.Content {
		all = append(all, tree{n})
	}
	return all
}

// text returns the text of a scalar; "" for any other part.
func (t tree) text() string {
	if t.node == nil || t.node.Kind != yaml.ScalarNode {
		return ""
	}
	return t.node.Value
}

// ref returns the target of a reference, or "".
func (t tree) ref() string { return t.at("$ref").text() }

// appendJSON appends the tree as JSON, in the order of the document.
func (t tree) appendJSON(b []byte) []byte {
	switch n := t.node; {
	case n.Kind == yaml.MappingNode:
		b = append(b, '{')
		for i, p := range t.pairs() {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(b, quote(p.key)...), ':')
			b = p.value.appendJSON(b)
		}
		return append(b, '}')
	case n.Kind == yaml.SequenceNode:
		b = append(b, '[')
		for i, item := range t.items() {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.appendJSON(b)
		}
		return append(b, ']')
	case n.ShortTag() == "!!str":
		return append(b, quote(n.Value)...)
	default: // numbers, true, false and null are the same in JSON
		return append(b, n.Value...)
	}
}

func quote(text string) []byte {
	q, err := json.Marshal(text)
	if err != nil {
		panic("openapi: " + err.Error()) // every string has JSON
	}
	return q
}
