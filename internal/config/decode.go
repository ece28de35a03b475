package config

import (
	"fmt"
	"iter"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// decoder overlays a YAML tree on values that hold the defaults, so a missing key keeps
// its default. It is strict, and records the place of each key.
type decoder struct {
	*loader
	file string
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	queuesType   = reflect.TypeFor[map[string]Queue]()
	textsType    = reflect.TypeFor[map[string]string]()
	clocksType   = reflect.TypeFor[job.Timeouts]()
	listType     = reflect.TypeFor[[]string]()
)

func (d *decoder) at(n *yaml.Node) string { return fmt.Sprintf("%s:%d", d.file, n.Line) }

// value overlays n on v.
func (d *decoder) value(v reflect.Value, n *yaml.Node, key string) {
	d.where[key] = d.at(n)
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.problem(d.at(n), key, "anchors and aliases are not supported; write the value out")
	case isNull(n):
		// "queues:" with nothing under it changes nothing.
	case v.Type() == queuesType:
		d.queues(v, n, key)
	case v.Kind() == reflect.Pointer: // a key without a default
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.value(v.Elem(), n, key)
	case v.Type() == textsType:
		d.texts(v, n, key)
	case v.Kind() == reflect.Struct:
		d.structure(v, n, key)
	case v.Kind() == reflect.Slice:
		d.list(v, n, key)
	case n.Kind != yaml.ScalarNode:
		d.problem(d.at(n), key, "this must be %s%s", wanted(v), unquoted(n))
	default:
		if err := setScalar(v, n.Value); err != nil {
			d.problem(d.at(n), key, "%v", err)
		}
	}
}

// unquoted returns a hint to quote a text such as {file}, which YAML reads as a mapping.
func unquoted(n *yaml.Node) string {
	if n.Kind == yaml.MappingNode && n.Style&yaml.FlowStyle != 0 {
		return `; what has braces stands in quotes, such as "{file}"`
	}
	return ""
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// structure overlays a mapping on a struct.
func (d *decoder) structure(v reflect.Value, n *yaml.Node, key string) {
	known := strings.Join(keysOf(v.Type()), ", ")
	for name, value := range d.pairs(n, key, "keys with values: "+known) {
		field, ok := fieldOf(v, name.Value)
		if !ok {
			d.problem(d.at(name), join(key, job.Quote(name.Value)), "there is no such key; those here are %s", known)
			continue
		}
		d.value(field, value, join(key, name.Value))
	}
}

// queues overlays a mapping on the queues. A queue that exists is changed. A new queue
// starts with the defaults of its executor, and so does a queue that gets another
// executor.
func (d *decoder) queues(v reflect.Value, n *yaml.Node, key string) {
	all := v.Interface().(map[string]Queue)
	for at, value := range d.pairs(n, key, "the names of queues, each with its keys and values under it") {
		name := at.Value
		if !validQueueName(name) {
			d.problem(d.at(at), join(key, job.Quote(name)), queueNameRule, job.MaxQueueName)
			continue
		}
		q, known := all[name]
		if executor := scalarUnder(value, "executor"); executor != "" && executor != q.Executor {
			q = Defaults(executor)
		} else if !known && executor == "" {
			d.problem(d.at(at), join(key, name), "a new queue needs an executor: one of %s", strings.Join(executorNames(), ", "))
			continue
		}
		d.value(reflect.ValueOf(&q).Elem(), value, join(key, name))
		if t := &q.Timeouts; d.where[join(key, name)+".timeouts.run_soft_s"] == "" && 0 < t.RunHard && t.RunHard < t.RunSoft {
			t.RunSoft = t.RunHard // the default soft limit has no effect past a shorter hard limit
		}
		if t := &q.Timeouts; d.where[join(key, name)+".timeouts.request_s"] == "" {
			t.RaiseRequest()
		}
		all[name] = q
	}
}

// scalarUnder returns the text of a mapping's key; "" for none.
func scalarUnder(n *yaml.Node, name string) string {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1].Value
		}
	}
	return ""
}

// texts replaces a map of texts.
func (d *decoder) texts(v reflect.Value, n *yaml.Node, key string) {
	all := map[string]string{}
	for at, value := range d.pairs(n, key, "names with texts, such as {name: value}") {
		text := reflect.New(reflect.TypeFor[string]()).Elem()
		d.value(text, value, join(key, at.Value))
		all[at.Value] = text.String()
	}
	v.Set(reflect.ValueOf(all))
}

// list replaces a slice.
func (d *decoder) list(v reflect.Value, n *yaml.Node, key string) {
	if n.Kind != yaml.SequenceNode {
		like := "such as [one, another]"
		if v.Type().Elem().Kind() == reflect.Struct {
			like = "with a dash before each"
		}
		d.problem(d.at(n), key, "this must be a list, %s", like)
		return
	}
	items := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.value(items.Index(i), item, fmt.Sprintf("%s[%d]", key, i))
	}
	v.Set(items)
}

// pairs yields the nodes of a mapping's keys and values. It reports duplicate keys, and a
// node that is not a mapping.
func (d *decoder) pairs(n *yaml.Node, key, should string) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(name, value *yaml.Node) bool) {
		if n.Kind != yaml.MappingNode {
			d.problem(d.at(n), key, "this must be %s", should)
			return
		}
		given := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			name, value := n.Content[i], n.Content[i+1]
			if given[name.Value] {
				d.problem(d.at(name), join(key, job.Quote(name.Value)), "this key is here twice")
				continue
			}
			given[name.Value] = true
			if !yield(name, value) {
				return
			}
		}
	}
}

// setScalar parses text as a value of v's kind. The items of a list are separated by commas.
func setScalar(v reflect.Value, text string) error {
	refused := fmt.Errorf("this must be %s, not %s", wanted(v), job.Quote(text))
	switch {
	case v.Type() == durationType:
		s, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(s) || s < 0 || s > job.MaxDuration.Seconds() {
			return refused
		}
		v.SetInt(int64(job.Seconds(s)))
	case v.CanInt():
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return refused
		}
		v.SetInt(n)
	case v.CanFloat():
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return refused
		}
		v.SetFloat(n)
	case v.Kind() == reflect.Bool:
		if text != "true" && text != "false" {
			return refused
		}
		v.SetBool(text == "true")
	case v.Type() == listType:
		v.Set(reflect.ValueOf(listOf(text)))
	default:
		v.SetString(text)
	}
	return nil
}

// wanted describes a scalar of v's kind.
func wanted(v reflect.Value) string {
	switch {
	case v.Type() == durationType:
		return fmt.Sprintf("a number of seconds, 0 to %.0f", job.MaxDuration.Seconds())
	case v.CanInt():
		return "a whole number"
	case v.CanFloat():
		return "a number"
	case v.Kind() == reflect.Bool:
		return "true or false"
	default:
		return "a text"
	}
}

// inline is the tag of a struct whose keys belong to the enclosing struct.
const inline = ",inline"

// fieldOf finds the field of a struct that has the key. A struct of clocks must be
// addressable.
func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	if v.Type() == clocksType {
		for i, d := range v.Addr().Interface().(*job.Timeouts).All() {
			if job.Clocks[i].Key() == key {
				return reflect.ValueOf(d).Elem(), true
			}
		}
		return reflect.Value{}, false
	}
	for i := range v.NumField() {
		switch tag := v.Type().Field(i).Tag.Get("yaml"); tag {
		case "-":
		case inline:
			if field, ok := fieldOf(v.Field(i), key); ok {
				return field, true
			}
		case key:
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// keysOf lists the keys of a struct in the order of its fields.
func keysOf(t reflect.Type) []string {
	var keys []string
	if t == clocksType {
		for i := range job.Clocks {
			keys = append(keys, job.Clocks[i].Key())
		}
		return keys
	}
	for i := range t.NumField() {
		switch tag := t.Field(i).Tag.Get("yaml"); tag {
		case "-":
		case inline:
			keys = append(keys, keysOf(t.Field(i).Type)...)
		default:
			keys = append(keys, tag)
		}
	}
	return keys
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

const queueNameRule = "a queue's name is 1 to %d of a-z, 0-9, _ and -, and begins with a letter or digit"

func validQueueName(name string) bool {
	if name == "" || len(name) > job.MaxQueueName {
		return false
	}
	for i, c := range name {
		letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '_' && c != '-') {
			return false
		}
	}
	return true
}
