package cli

import (
	"context"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/pgtest"
	"github.com/meanwhile-run/meanwhile/internal/store/postgres"
)

// rotate-key works on the database that a flag or the environment names, and then on no directory.
func TestRotateKeyInDatabase(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t).Schema(t)
	dir := t.TempDir()
	early := newTestEnv("")
	if code := early.run(t, "rotate-key", "--database", db.URL()); code != exitError {
		t.Errorf("without a schema: exit status %d", code)
	}
	early.wantErr(t, "meanwhile migrate up")
	if code := newTestEnv("").run(t, "migrate", "up", "--database", db.URL()); code != exitOK {
		t.Fatalf("exit status %d", code)
	}
	for i, args := range []string{"rotate-key --database " + db.URL(), "rotate-key", "rotate-key", "rotate-key", "rotate-key", "rotate-key --forget"} {
		s := newTestEnv("")
		s.Environ = append(s.Environ, "MEANWHILE_DATA="+dir)
		if i > 0 {
			s.Environ = append(s.Environ, "MEANWHILE_DATABASE="+db.URL())
		}
		want := "keeps " + []string{"0", "1", "2", "3", "3", "0"}[i] + " earlier ones"
		if code := s.run(t, strings.Fields(args)...); code != exitOK || !strings.Contains(s.out.String(), want) || !strings.HasPrefix(s.out.String(), "the database ") {
			t.Errorf("%s: exit status %d: %s%s", args, code, &s.out, &s.err)
		}
	}
	keys, err := postgres.TokenKeys(context.Background(), db.Connect(t))
	if err != nil || len(keys) != 1 || len(keys[0]) != 32 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("in the directory are %v", left)
	}
	// A directory that is named goes before the database of the environment.
	s := newTestEnv("")
	s.Environ = append(s.Environ, "MEANWHILE_DATABASE="+db.URL())
	if code := s.run(t, "rotate-key", "--data", dir); code != exitOK {
		t.Errorf("exit status %d: %s", code, &s.err)
	}
	if info, err := os.Stat(dir + "/watch.key"); err != nil || info.Mode() != fs.FileMode(0o600) {
		t.Error(info, err)
	}
	both := newTestEnv("")
	if code := both.run(t, "rotate-key", "--data", dir, "--database", db.URL()); code != exitUsage {
		t.Errorf("with both: exit status %d", code)
	}
	both.wantErr(t, "give one of them")
}
