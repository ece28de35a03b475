package sqlite

import (
	"context"
	"path/filepath"
	"reflect"
	"testing"
	"unsafe"
)

// Statements are prepared at their first use, so a mistake in one that is rarely used would show
// late.
func TestEveryStatementCanBePrepared(t *testing.T) {
	t.Parallel()
	s, err := Open(context.Background(), filepath.Join(t.TempDir(), "jobs.db"), Options{Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := <-s.readers
	defer func() { s.readers <- r }()
	prepareAll(t, s.q)
	prepareAll(t, r)
}

// prepareAll prepares the queries in the fields of the struct that p points to.
func prepareAll(t *testing.T, p any) {
	t.Helper()
	v, count := reflect.ValueOf(p).Elem(), 0
	for i := range v.NumField() {
		switch f := v.Field(i); f.Type() {
		case reflect.TypeFor[listQueries]():
			prepareAll(t, (*listQueries)(unsafe.Pointer(f.UnsafeAddr())))
		case reflect.TypeFor[groupIndex]():
			prepareAll(t, (*groupIndex)(unsafe.Pointer(f.UnsafeAddr())))
		}
		if v.Field(i).Type() != reflect.TypeFor[*query]() {
			continue
		}
		q := *(**query)(unsafe.Pointer(v.Field(i).UnsafeAddr()))
		count++
		if q == nil {
			t.Errorf("%s has no statement", v.Type().Field(i).Name)
		} else if !q.prepared() {
			t.Errorf("%s: %v", v.Type().Field(i).Name, q.err)
		}
	}
	if count == 0 {
		t.Error("there is no statement")
	}
}
