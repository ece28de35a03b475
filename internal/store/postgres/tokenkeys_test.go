package postgres

import (
	"bytes"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// Several processes that start at once on a new database agree on one key. A rotation keeps the
// last keys, the newest last, or only the newest.
func TestTokenKeys(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t).Schema(t)
	pool, err := pgxpool.New(t.Context(), d.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := Up(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	key := func(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }
	if keys, err := TokenKeys(t.Context(), pool); err != nil || len(keys) != 0 {
		t.Fatalf("a new database has the keys %v, %v", keys, err)
	}
	var all sync.WaitGroup
	firsts := make([][][]byte, 4)
	for i := range firsts {
		all.Go(func() {
			var err error
			if firsts[i], err = FirstTokenKey(t.Context(), pool, key(byte(100+i))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	first := firsts[0]
	for _, keys := range firsts {
		if len(keys) != 1 || !bytes.Equal(keys[0], first[0]) {
			t.Errorf("the processes have %v and %v", keys, first)
		}
	}
	want := first
	for n := range byte(5) {
		want = append(want, key(n))
		want = want[max(0, len(want)-4):]
		keys, err := RotateTokenKey(t.Context(), pool, key(n), false)
		if err != nil || !slices.EqualFunc(keys, want, bytes.Equal) {
			t.Errorf("after rotation %d: %v, %v", n, keys, err)
		}
	}
	// A reader does not wait for a rotation that is under way.
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := RotateTokenKey(t.Context(), tx, key(9), true); err != nil {
		t.Fatal(err)
	}
	if keys, err := TokenKeys(t.Context(), pool); err != nil || !slices.EqualFunc(keys, want, bytes.Equal) {
		t.Errorf("before the commit: %v, %v", keys, err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if keys, err := TokenKeys(t.Context(), pool); err != nil || len(keys) != 1 || !bytes.Equal(keys[0], key(9)) {
		t.Errorf("the earlier keys are not forgotten: %v, %v", keys, err)
	}
}
