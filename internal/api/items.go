package api

import (
	"reflect"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Items is a list of which [DecodeJSON] takes no more than Most elements, and in
// which each answers for itself: one that is not what T wants, and is JSON all the
// same, keeps its refusal, and the others are read on.
type Items[T any] struct {
	Max      int
	Elements []Item[T]
}

// Item is an element of such a list.
type Item[T any] struct {
	Value T
	Text  []byte     // its own JSON; it aliases what was read
	Err   *job.Error // why it could not be read, or nil; its Field is within the element
}

// list is an [Items] of whatever kind.
type list interface{ read(d *decoder) *job.Error }

func (l *Items[T]) read(d *decoder) *job.Error {
	if d.Peek() != '[' {
		return d.wrong("an array")
	}
	list := d.what()
	return d.Array(func() *job.Error {
		d.name = nil
		if len(l.Elements) == l.Max {
			return job.Errorf(job.TooLarge, "%s has at most %d elements", list, l.Max)
		}
		l.Elements = append(l.Elements, Item[T]{})
		return l.Elements[len(l.Elements)-1].read(d)
	})
}

// read reads one element; the error is of JSON that is broken.
func (it *Item[T]) read(d *decoder) *job.Error {
	d.Peek()
	before := d.Scanner
	if it.Err = d.value(reflect.ValueOf(&it.Value).Elem()); it.Err != nil {
		d.Scanner = before
		if broken := d.Skip(); broken != nil {
			return broken
		}
	}
	it.Text = d.Since(before)
	return nil
}
