package sqlite

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// writeDatabase returns the path of a database with some jobs that was closed cleanly.
func writeDatabase(t *testing.T) (path string) {
	a := newBulkStore(t, Options{Unsynced: true})
	a.addEnded(100, 1000)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	return a.path
}

func overwrite(t *testing.T, path string, at int64, with []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(with, at); err != nil {
		t.Fatal(err)
	}
}

func execSQL(t *testing.T, path, sql string) {
	t.Helper()
	conn, err := sqlite.OpenConn(path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := sqlitex.ExecuteScript(conn, sql, nil); err != nil {
		t.Fatal(err)
	}
}

// leaveLog makes a database look as if its last process had been killed: a log is left.
func leaveLog(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path+"-wal", make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Open refuses an unusable file with advice in the message, and does not change the file.
func TestOpenRefusesUnusableFile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		spoil  func(t *testing.T, path string)
		is     error
		advice string
	}{
		{"another header", func(t *testing.T, path string) { overwrite(t, path, 0, []byte("garbage")) }, store.ErrDamaged, "put a backup"},
		{"a file of text", func(t *testing.T, path string) { _ = os.WriteFile(path, []byte("hello"), 0o600) }, store.ErrDamaged, "put a backup"},
		{"cut in half", func(t *testing.T, path string) { _ = os.Truncate(path, 100_000) }, store.ErrDamaged, "put a backup"},
		{"an unreadable schema", func(t *testing.T, path string) { overwrite(t, path, 100, make([]byte, 3000)) }, store.ErrDamaged, "put a backup"},
		{"pages flipped before a kill", func(t *testing.T, path string) {
			overwrite(t, path, 10*pageSize, bytes.Repeat([]byte{0xAA}, 10*pageSize))
			leaveLog(t, path)
		}, store.ErrDamaged, "put a backup"},
		{"another program's database", func(t *testing.T, path string) { execSQL(t, path, "PRAGMA application_id = 1") }, ErrForeign, "another data directory"},
		{"a database without an application id", func(t *testing.T, path string) {
			_ = os.Remove(path)
			execSQL(t, path, "CREATE TABLE a (b)")
		}, ErrForeign, "another data directory"},
		{"a newer schema", func(t *testing.T, path string) { execSQL(t, path, "PRAGMA user_version = 1000") }, ErrNewer, "run that version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := writeDatabase(t)
			c.spoil(t, path)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), path, Options{})
			if err == nil {
				_ = s.Close()
			}
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.advice) || !strings.Contains(err.Error(), path) {
				t.Errorf("Open returned %v", err)
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
				t.Errorf("the refused file was changed: %v", err)
			}
		})
	}
}

func TestOpenAcceptsUsableFile(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, path string){
		"closed cleanly":           func(*testing.T, string) {},
		"left by a killed process": leaveLog,
		"missing":                  func(t *testing.T, path string) { _ = os.Remove(path) },
		"empty":                    func(t *testing.T, path string) { _ = os.Truncate(path, 0) },
		"without a table": func(t *testing.T, path string) {
			_ = os.Remove(path)
			execSQL(t, path, "CREATE TABLE a (b); DROP TABLE a")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := writeDatabase(t)
			spoil(t, path)
			s, err := Open(t.Context(), path, Options{Unsynced: true})
			if err != nil {
				t.Fatal(err)
			}
			_ = s.Close()
		})
	}
}

// Once damage is found, every later batch is refused.
func TestDamageStopsWrites(t *testing.T) {
	t.Parallel()
	path := writeDatabase(t)
	overwrite(t, path, 60*pageSize, bytes.Repeat([]byte{0xAA}, 30*pageSize))
	s, err := Open(t.Context(), path, Options{Unsynced: true, Clock: func() time.Time { return time.Unix(1_900_000_000, 0) }})
	if err != nil {
		t.Fatalf("Open found the damage: %v", err)
	}
	defer func() { _ = s.Close() }()
	pruneAll := func() *store.Batch {
		b := store.NewBatch()
		b.Prunes = []*store.Prune{{Limit: 1000, Early: true}}
		return b
	}
	err = store.Commit(t.Context(), s, pruneAll())
	if !errors.Is(err, store.ErrDamaged) {
		t.Fatalf("a prune of damaged pages: %v", err)
	}
	b := store.NewBatch()
	b.Submits = []*store.Submit{{Job: job.Job{ID: job.NewID(), Queue: "q", Priority: 5, MaxAttempts: 1}}}
	if err := store.Commit(t.Context(), s, b); !errors.Is(err, store.ErrDamaged) || !errors.Is(err, store.ErrNotCommitted) {
		t.Errorf("the next batch: %v", err)
	}
}

func TestDamageFoundByReadStopsWrites(t *testing.T) {
	t.Parallel()
	a := newBulkStore(t, Options{Unsynced: true})
	err := a.read(t.Context(), func(*reader) error { return store.ErrDamaged })
	if job.CodeOf(err) != job.Unavailable {
		t.Errorf("the read returned %v", err)
	}
	b := store.NewBatch()
	b.Prunes = []*store.Prune{{Limit: 1}}
	if err := store.Commit(t.Context(), a.Store, b); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("the next batch: %v", err)
	}
}

func TestCheckReportsDefects(t *testing.T) {
	t.Parallel()
	path := writeDatabase(t)
	var found []string
	report := func(defect string) { found = append(found, defect) }
	if err := Check(t.Context(), path, report); err != nil || len(found) > 0 {
		t.Fatalf("an intact file: %v %q", err, found)
	}
	overwrite(t, path, 10*pageSize, bytes.Repeat([]byte{0xAA}, 10*pageSize))
	if err := Check(t.Context(), path, report); !errors.Is(err, store.ErrDamaged) || len(found) == 0 {
		t.Errorf("a damaged file: %v %q", err, found)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Check(ctx, path, report); err == nil || errors.Is(err, store.ErrDamaged) {
		t.Errorf("an interrupted check: %v", err)
	}
	if err := Check(t.Context(), filepath.Join(t.TempDir(), "none.db"), report); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// A waiting job whose record is damaged ends, by a cancel or a delete, without its resource being
// counted any more: the jobs of others are claimed although that resource has no room.
func TestDamagedWaitingJobHoldsNoResource(t *testing.T) {
	t.Parallel()
	for name, op := range map[string]func(id job.ID) any{
		"cancel": func(id job.ID) any { return &store.Cancel{Owner: testOwner, ID: id} },
		"delete": func(id job.ID) any { return &store.Delete{Owner: testOwner, ID: id} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newHarness(t)
			id := d.submit(func(s *store.Submit) { s.Job.Resource = "m" })
			d.spoil("extra", id)
			d.apply(op(id))
			plain := d.submit()
			b := store.NewBatch()
			b.Room = map[string]int{"m": 0}
			b.Add(newClaim(3))
			if err := store.Commit(t.Context(), d.Store, b); err != nil {
				t.Fatal(err)
			}
			if c := b.Claims[0].Claimed; len(c) != 1 || c[0].Job.ID != plain {
				t.Errorf("%d jobs were claimed, want the one without a resource", len(c))
			}
		})
	}
}
