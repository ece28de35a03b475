package openapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// tree is a part of the document. What is not there is the zero tree, of which
// everything else is not there either.
type tree struct{ node *yaml.Node }

// pair is a member of an object.
type pair struct {
	key   string
	value tree
}

// plain copies a node, with what its anchors and merge keys stand for in their place.
func plain(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return plain(n.Alias)
	}
	c := *n
	c.Anchor, c.Content = "", nil
	if n.Kind != yaml.MappingNode {
		for _, item := range n.Content {
			c.Content = append(c.Content, plain(item))
		}
		return &c
	}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], plain(n.Content[i+1])
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

func (t tree) copy() tree { return tree{plain(t.node)} }

// at is what stands under a path of keys.
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

// in is what stands under a key; an empty object, or list of parameters, is made where
// there is none.
func (t tree) in(key string) tree {
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

// take removes what stands under a key, and gives it.
func (t tree) take(key string) tree {
	i := t.index(key)
	if i < 0 {
		return tree{}
	}
	value := tree{t.node.Content[i+1]}
	t.node.Content = slices.Delete(t.node.Content, i, i+2)
	return value
}

func (t tree) add(item tree) { t.node.Content = append(t.node.Content, item.node) }

// join adds the members of another object, down to where one of both has none.
func (t tree) join(more tree) error {
	for _, p := range more.pairs() {
		there := t.at(p.key)
		switch {
		case there.node == nil:
			t.set(p.key, p.value)
		case there.node.Kind != yaml.MappingNode || there.ref() != "" || strings.HasPrefix(p.key, "/"):
			return fmt.Errorf("%s is there twice", p.key)
		default:
			if err := there.join(p.value); err != nil {
				return err
			}
		}
	}
	return nil
}

// sort puts the members in the order of their keys.
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

// text is a scalar's text; "" of anything else.
func (t tree) text() string {
	if t.node == nil || t.node.Kind != yaml.ScalarNode {
		return ""
	}
	return t.node.Value
}

// ref is where a reference leads, or "".
func (t tree) ref() string { return t.at("$ref").text() }

// appendJSON writes the tree as JSON, in its own order.
func (t tree) appendJSON(b []byte) []byte {
	switch n := t.node; {
	case n.Kind == yaml.MappingNode:
		b = append(b, '{')
		for i, p := range t.pairs() {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(b, quoted(p.key)...), ':')
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
		return append(b, quoted(n.Value)...)
	default: // a number, true, false, null: their spelling is JSON's own
		return append(b, n.Value...)
	}
}

func quoted(text string) []byte {
	q, err := json.Marshal(text)
	if err != nil {
		panic("openapi: " + err.Error()) // strings can always be marshalled
	}
	return q
}
