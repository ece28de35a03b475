package cli

import (
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

func TestMigrateBringsSchemaUpToDate(t *testing.T) {
	t.Parallel()
	url := pgtest.Shared(t).Schema(t).URL()
	pending := newTestEnv("")
	if code := pending.run(t, "migrate", "status", "--database", url); code != exitError || !strings.Contains(pending.out.String(), "pending") {
		t.Errorf("before: exit status %d: %s", code, &pending.out)
	}
	pending.wantErr(t, "cannot be used", "meanwhile migrate up")

	up := newTestEnv("")
	up.Environ = append(up.Environ, "MEANWHILE_DATABASE="+url)
	if code := up.run(t, "migrate", "up"); code != exitOK || !strings.HasPrefix(up.out.String(), "applied 1 jobs\n") {
		t.Errorf("exit status %d: %s%s", code, &up.out, &up.err)
	}
	newTestEnv("").want(t, exitOK, "nothing to do: the schema is up to date\n", "migrate", "up", "--database", url)
	status := newTestEnv("")
	if code := status.run(t, "migrate", "status", "--database", url); code != exitOK || strings.Contains(status.out.String(), "pending") {
		t.Errorf("after: exit status %d: %s%s", code, &status.out, &status.err)
	}
}

func TestMigrateDownRefusesToLoseJobs(t *testing.T) {
	t.Parallel()
	url := pgtest.Shared(t).Schema(t).URL()
	if code := newTestEnv("").run(t, "migrate", "up", "--database", url); code != exitOK {
		t.Fatalf("exit status %d", code)
	}
	down := newTestEnv("")
	if code := down.run(t, "migrate", "down", "0", "--database", url); code != exitError {
		t.Errorf("exit status %d: %s", code, &down.out)
	}
	down.wantErr(t, "cannot be taken back without losing data")
	newTestEnv("").want(t, exitOK, "nothing to do: no step after 1000 is applied\n", "migrate", "down", "1000", "--database", url)
}

// What is wrong is said without the password.
func TestMigrateNamesDatabaseWithoutPassword(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"migrate up": "no database is configured",
		"migrate down one --database postgres://a:s3cret@127.0.0.1:1/jobs":                                                              "is no number of a step",
		"migrate up --database postgres://a:s3cret@127.0.0.1:1/jobs?connect_timeout=1":                                                  "the database jobs at 127.0.0.1:1 cannot be used",
		"migrate up --database postgres://a:s3cret@127.0.0.1:1/jobs?sslmode=s3cret":                                                     "the database jobs at 127.0.0.1:1 cannot be used",
		"migrate status --database mysql://a:s3cret@127.0.0.1/jobs":                                                                     "must be the URL of a PostgreSQL database",
		"migrate status --database postgres:///jobs?host=/none&password=s3cret":                                                         "the database jobs at /none cannot be used",
		"migrate status --database postgres://a:s3%63ret@127.0.0.1:1/jobs?statement_cache_capacity=s3cret&default_query_exec_mode=none": "cannot be used",
	} {
		s := newTestEnv("")
		if code := s.run(t, strings.Fields(args)...); code == exitOK {
			t.Errorf("%s: exit status %d", args, code)
		}
		s.wantErr(t, want)
		if strings.Contains(s.err.String(), "s3cret") {
			t.Errorf("%s: the message has the password: %s", args, &s.err)
		}
	}
}
