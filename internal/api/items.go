package api

import (
	"reflect"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Items is a JSON array whose elements succeed or fail one by one. [DecodeJSON] refuses
// an array with more than Max elements. An element that is valid JSON but does not fit T
// keeps its error in Err, and the decoder goes on with the next.
type Items[T any] struct {
	Max      int
	Elements []Item[T]
}

// Item is one element of an [Items].
type Item[T any] struct {
	Value T
	Text  []byte     // the element's JSON; it aliases the decoded text
	Err   *job.Error // why the element was refused, or nil; its Field begins at the element
}

// itemsDecoder is an [Items] of any type.
type itemsDecoder interface{ decode(d *decoder) *job.Error }

func (l *Items[T]) decode(d *decoder) *job.Error {
	if d.Peek() != '[' {
		return d.wrongType("an array")
	}
	array := d.describe()
	return d.Array(func() *job.Error {
		d.name = nil
		if len(l.Elements) == l.Max {
			return job.Errorf(job.TooLarge, "%s has at most %d elements", array, l.Max)
		}
		l.Elements = append(l.Elements, Item[T]{})
		return l.Elements[len(l.Elements)-1].decode(d)
	})
}

// decode decodes one element. It returns an error only for a syntax error, after which
// nothing more can be read.
func (it *Item[T]) decode(d *decoder) *job.Error {
	d.Peek() // skips the space before the element
	before := d.Scanner
	if it.Err = d.element(reflect.ValueOf(&it.Value).Elem()); it.Err != nil {
		// The decoder stopped inside the element. Skip all of it, to find the next one.
		d.Scanner = before
		if err := d.Skip(); err != nil {
			return err
		}
	}
	it.Text = d.Since(before)
	return nil
}
