package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/strictjson"
)

// DecodeJSON decodes data, which must be one JSON value, into the value that v points to:
// a struct with json tags, or anything that such a struct may contain. These are strings,
// bools, ints, floats, pointers, slices, maps with string keys, structs, [Items], and
// [json.RawMessage] for any value. A RawMessage aliases data.
//
// DecodeJSON is stricter than encoding/json. It refuses a field that v does not have, a
// field given twice, a name in the wrong case, invalid UTF-8, the character U+0000, half
// of a surrogate pair, and nesting deeper than [job.MaxDepth]. The null of a field has the
// effect of a missing field, except for a RawMessage, which keeps it. Elsewhere null is
// refused: as the whole value, in an array, and in a map unless its values are pointers.
//
// Errors are *[job.Error] with the code [job.Invalid] and a pointer to the field.
func DecodeJSON(data []byte, v any) error {
	d := decoder{Scanner: strictjson.New(data)}
	if d.AtEnd() {
		return job.Errorf(job.Invalid, "there is no body; send JSON")
	}
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		return job.Errorf(job.Invalid, "the JSON begins with a byte order mark; send it without one")
	}
	if err := d.element(reflect.ValueOf(v).Elem()); err != nil {
		return err
	}
	if !d.AtEnd() {
		return d.SyntaxError("there is more after the end of the value")
	}
	return nil
}

type decoder struct {
	strictjson.Scanner
	name []byte // the field whose value is read next; nil at the top and in an array
}

var rawType = reflect.TypeFor[json.RawMessage]()

// element decodes a value that no null may stand for: there is no field that could be
// missing.
func (d *decoder) element(v reflect.Value) *job.Error {
	if d.Peek() == 'n' && v.Type() != rawType && v.Kind() != reflect.Pointer {
		if err := d.Skip(); err != nil {
			return err // no null at all
		}
		return job.Errorf(job.Invalid, "%s must be %s, not null", d.describe(), kindFor(v))
	}
	return d.value(v)
}

// kindFor returns the kind of JSON value that is decoded into v.
func kindFor(v reflect.Value) string {
	switch v.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "an array"
	case reflect.Struct, reflect.Map:
		if _, ok := v.Addr().Interface().(itemsDecoder); ok {
			return "an array"
		}
		return "an object"
	default:
		return number
	}
}

// value decodes the next value into v.
func (d *decoder) value(v reflect.Value) *job.Error {
	if v.Type() == rawType {
		text, err := d.Value()
		if err != nil {
			return err
		}
		v.SetBytes(text)
		return nil
	}
	if d.Peek() == 'n' {
		return d.Literal("null")
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(v.Elem())
	case reflect.String:
		return d.text(v)
	case reflect.Bool:
		return d.bool(v)
	case reflect.Int, reflect.Int32, reflect.Int64:
		return d.int(v)
	case reflect.Float64:
		return d.float(v)
	case reflect.Struct:
		if items, ok := v.Addr().Interface().(itemsDecoder); ok {
			return items.decode(d)
		}
		return d.object(v)
	case reflect.Map:
		return d.stringMap(v)
	case reflect.Slice:
		return d.slice(v)
	default:
		panic(fmt.Sprintf("api: cannot decode JSON into a %s", v.Type()))
	}
}

func (d *decoder) text(v reflect.Value) *job.Error {
	if d.Peek() != '"' {
		return d.wrongType("a string")
	}
	text, err := d.String()
	if err == nil {
		v.SetString(string(text))
	}
	return err
}

func (d *decoder) bool(v reflect.Value) *job.Error {
	switch d.Peek() {
	case 't':
		v.SetBool(true)
		return d.Literal("true")
	case 'f':
		return d.Literal("false")
	}
	return d.wrongType("true or false")
}

func (d *decoder) int(v reflect.Value) *job.Error {
	text, err := d.numberText("a whole number")
	if err != nil {
		return err
	}
	n, bad := strconv.ParseInt(text, 10, v.Type().Bits())
	if bad != nil {
		return job.Errorf(job.Invalid, "%s must be a whole number, not %s", d.describe(), job.Quote(text))
	}
	v.SetInt(n)
	return nil
}

func (d *decoder) float(v reflect.Value) *job.Error {
	text, err := d.numberText("a number")
	if err != nil {
		return err
	}
	n, bad := strconv.ParseFloat(text, 64)
	if bad != nil {
		return job.Errorf(job.Invalid, "%s is too large a number", job.Quote(text))
	}
	v.SetFloat(n)
	return nil
}

func (d *decoder) numberText(want string) (string, *job.Error) {
	if kindOf(d.Peek()) != number {
		return "", d.wrongType(want)
	}
	text, err := d.Value()
	return string(text), err
}

func (d *decoder) object(v reflect.Value) *job.Error {
	if d.Peek() != '{' {
		return d.wrongType("an object")
	}
	var given uint64 // a bit for each field
	return d.Object(func(name []byte) *job.Error {
		i := fieldIndex(v.Type(), name)
		if i < 0 {
			return noField(name, fieldNames(v.Type()))
		}
		if given&(1<<i) != 0 {
			return strictjson.DuplicateField(name)
		}
		given |= 1 << i
		d.name = name
		return d.value(v.Field(i))
	})
}

// Fields is implemented by a map that takes only some names, which Fields lists: an
// object whose fields a table defines.
type Fields interface{ Fields() []string }

func noField(name []byte, there []string) *job.Error {
	return job.Errorf(job.Invalid, "there is no field %s; there are %s", job.Quote(string(name)), strings.Join(there, ", "))
}

func (d *decoder) stringMap(v reflect.Value) *job.Error {
	if d.Peek() != '{' {
		return d.wrongType("an object")
	}
	v.Set(reflect.MakeMap(v.Type()))
	limited, _ := v.Interface().(Fields)
	return d.Object(func(name []byte) *job.Error {
		if limited != nil && !slices.Contains(limited.Fields(), string(name)) {
			return noField(name, limited.Fields())
		}
		key := reflect.ValueOf(string(name))
		if v.MapIndex(key).IsValid() {
			return strictjson.DuplicateField(name)
		}
		item := reflect.New(v.Type().Elem()).Elem()
		d.name = name
		if err := d.element(item); err != nil {
			return err
		}
		v.SetMapIndex(key, item)
		return nil
	})
}

func (d *decoder) slice(v reflect.Value) *job.Error {
	if d.Peek() != '[' {
		return d.wrongType("an array")
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	return d.Array(func() *job.Error {
		d.name = nil
		item := reflect.New(v.Type().Elem()).Elem()
		if err := d.element(item); err != nil {
			return err
		}
		v.Set(reflect.Append(v, item))
		return nil
	})
}

// wrongType returns the error of a value that is not the kind that v needs.
func (d *decoder) wrongType(want string) *job.Error {
	kind := kindOf(d.Peek())
	if kind == "" {
		return d.SyntaxError("a value is missing")
	}
	return job.Errorf(job.Invalid, "%s must be %s, not %s", d.describe(), want, kind)
}

// describe names the current value in an error sentence.
func (d *decoder) describe() string {
	switch {
	case d.name != nil:
		return job.Quote(string(d.name))
	case d.Nested():
		return "it"
	default:
		return "the JSON"
	}
}

const number = "a number"

// kindOf returns the kind of value that begins with a character; "" for none.
func kindOf(c byte) string {
	switch {
	case c == '"':
		return "a string"
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == 't' || c == 'f':
		return "a boolean"
	case c == '-' || '0' <= c && c <= '9':
		return number
	default:
		return ""
	}
}

// fieldIndex returns the index of the field with a json tag; -1 for none. The json tag must
// come first and have no escapes: [reflect.StructTag.Get], which allows more, would take
// longer than the rest of the decoder together.
func fieldIndex(t reflect.Type, name []byte) int {
	for i := range t.NumField() {
		tag, ok := strings.CutPrefix(string(t.Field(i).Tag), `json:"`)
		if !ok {
			continue
		}
		if tag = tag[:strings.IndexAny(tag, `",`)]; tag == string(name) && tag != "-" {
			return i
		}
	}
	return -1
}

// fieldNames lists the json tags of a struct, for the error of an unknown field.
func fieldNames(t reflect.Type) []string {
	names := make([]string, 0, t.NumField())
	for i := range t.NumField() {
		if tag, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); tag != "" && tag != "-" {
			names = append(names, tag)
		}
	}
	if len(names) == 0 {
		return []string{"none"}
	}
	return names
}
