package sqlite

import (
	"context"
	"path/filepath"
	"reflect"
	"testing"
	"unsafe"

	"zombiezen.com/go/sqlite/sqlitex"
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
	r := takeReader(t, &s.readers)
	defer s.readers.giveBack(r)
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

// A statement that could not be prepared when its first parameter was bound is not run with the
// others in the wrong places, even if a later bind could prepare it. The next use is not affected.
func TestFailedPrepareShiftsNoParameter(t *testing.T) {
	t.Parallel()
	conn, err := connect(filepath.Join(t.TempDir(), "a.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	q := newQuery(conn, "INSERT INTO t (a, b) VALUES (?, ?)")
	q.int(1) // there is no table yet
	if err := sqlitex.ExecuteScript(conn, "CREATE TABLE t (a, b)", nil); err != nil {
		t.Fatal(err)
	}
	if err := q.int(2).run(); err == nil {
		t.Error("the statement ran without its first parameter")
	}
	if err := q.int(1).int(2).run(); err != nil {
		t.Error(err)
	}
	found, err := newQuery(conn, "SELECT a, b FROM t").first(func(c column) error {
		if c.int(0) != 1 || c.int(1) != 2 {
			t.Errorf("the row is %d, %d", c.int(0), c.int(1))
		}
		return nil
	})
	if !found || err != nil {
		t.Error(found, err)
	}
}
