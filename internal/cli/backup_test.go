package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A server can start on the copy of a directory that another process was using.
func TestBackupCopiesRunningServer(t *testing.T) {
	t.Parallel()
	k := newServerProcess(t)
	k.start(t)
	url := k.url()
	s := newTestEnv(url)
	if code := s.run(t, "submit", "sim", `{"echo":"kept"}`, "--wait", "--json"); code != exitOK {
		t.Fatalf("exit status %d: %s", code, &s.err)
	}
	_, id, _ := strings.Cut(s.out.String(), `"id":"`)
	id, _, _ = strings.Cut(id, `"`)

	to := filepath.Join(t.TempDir(), "copy")
	b := newTestEnv(url).terminal()
	if code := b.run(t, "backup", to, "--data", k.data); code != exitOK || !strings.HasPrefix(b.out.String(), to+": database ") {
		t.Fatalf("exit status %d: %s%s", code, &b.out, &b.err)
	}
	b.wantErr(t, "100% of ")
	again := newTestEnv(url)
	if code := again.run(t, "backup", to, "--data", k.data); code != exitError {
		t.Errorf("with an existing destination: exit status %d", code)
	}
	again.wantErr(t, "not empty")

	k.kill()
	k.data = to
	k.start(t)
	got := newTestEnv(url)
	if code := got.run(t, "get", id, "--result"); code != exitOK || !strings.Contains(got.out.String(), "kept") {
		t.Errorf("exit status %d: %s%s", code, &got.out, &got.err)
	}
}

func TestInterruptedBackupLeavesNothing(t *testing.T) {
	t.Parallel()
	k := newServerProcess(t)
	k.start(t)
	dir := t.TempDir()
	s := newTestEnv("")
	if code := Run(cancelledContext(t), &s.Env, []string{"backup", filepath.Join(dir, "copy"), "--data", k.data}); code != exitInterrupted {
		t.Errorf("exit status %d: %s", code, &s.err)
	}
	if names, _ := os.ReadDir(dir); len(names) > 0 {
		t.Errorf("the directory still has %v", names)
	}
}

func TestCheckFindsDamage(t *testing.T) {
	t.Parallel()
	k := newServerProcess(t)
	k.start(t)
	whole := newTestEnv("")
	whole.Environ = append(whole.Environ, "MEANWHILE_DATA="+k.data)
	whole.want(t, exitOK, k.data+" is intact\n", "check")
	k.kill()

	copied := filepath.Join(t.TempDir(), "copy")
	if code := newTestEnv("").run(t, "backup", copied, "--data", k.data); code != exitOK {
		t.Fatalf("exit status %d", code)
	}
	f, err := os.OpenFile(filepath.Join(copied, "meanwhile.db"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xAA}, 20_000), 40_000); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	damaged := newTestEnv("")
	if code := damaged.run(t, "check", "--data", copied); code != exitError || damaged.out.Len() == 0 {
		t.Errorf("exit status %d: %s", code, &damaged.out)
	}
	damaged.wantErr(t, "is damaged")

	none := newTestEnv("")
	if code := none.run(t, "check", "--data", t.TempDir()); code != exitError {
		t.Errorf("without a database: exit status %d", code)
	}
}

func TestFormatBytes(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536 << 10: "1.5 MiB", 16 << 30: "16.0 GiB", 5 << 50: "5120.0 TiB"} {
		if got := formatBytes(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}

// A backup of the directory beside a database would lack every job.
func TestBackupRefusesDatabase(t *testing.T) {
	t.Parallel()
	for _, variable := range []string{"MEANWHILE_DATABASE=postgres://a:s3cret@db.example.com/jobs", "MEANWHILE_DATABASE_FILE=/run/url"} {
		s := newTestEnv("")
		s.Environ = append(s.Environ, variable)
		if code := s.run(t, "backup", filepath.Join(t.TempDir(), "copy")); code != exitError {
			t.Errorf("exit status %d", code)
		}
		s.wantErr(t, "the jobs are in a PostgreSQL database", "pg_basebackup")
		if strings.Contains(s.err.String(), "s3cret") {
			t.Errorf("the message has the password: %s", &s.err)
		}
	}
}
