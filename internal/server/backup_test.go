package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

func silent(int64, int64) {}

// load submits jobs of all kinds until it is stopped, and records which were
// acknowledged.
type load struct {
	*testServer
	stop func() // and waits

	mu sync.Mutex
	// Guarded by mu.
	more  sync.Cond // signals every acknowledged job
	acked []string
	files map[string]string // job → content of its file
}

// maxLong limits the jobs of a client that run longer than the test. The queue runs 1,000
// jobs at once, so the other jobs need not wait for these.
const maxLong = 50

func startLoad(s *testServer) *load {
	l := &load{testServer: s, files: map[string]string{}}
	l.more.L = &l.mu
	done := make(chan struct{})
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
					l.submit(n, i)
				}
			}
		})
	}
	l.stop = sync.OnceFunc(func() { close(done); all.Wait() })
	s.t.Cleanup(l.stop)
	return l
}

func (l *load) submit(n, i int) {
	text := fmt.Sprintf("job %d of %d", i, n)
	var status int
	var j map[string]any
	switch kind := i % 4; {
	case kind == 0:
		status, j = l.submitFiles(`{"queue":"shelf"}`, map[string]string{"a.txt": text})
	case kind == 1 && i < 4*maxLong:
		status, j = l.call("POST", "/v1/jobs", `{"queue":"sim","input":{"duration_ms":300000}}`)
	case kind == 2:
		status, j = l.call("POST", "/v1/jobs", `{"queue":"sim","input":{"tokens":3}}`, "Prefer", "wait=60")
	default:
		status, j = l.call("POST", "/v1/jobs", fmt.Sprintf(`{"queue":"sim","input":{"echo":%q}}`, text), "Prefer", "wait=60")
	}
	if status != 202 && status != 200 {
		return // the queue is full, as expected under load
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	id := j["id"].(string)
	l.acked = append(l.acked, id)
	if i%4 == 0 {
		l.files[id] = text
	}
	l.more.Broadcast()
}

// waitForIDs waits for enough acknowledged jobs, and returns their ids.
func (l *load) waitForIDs(enough int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.acked) < enough {
		l.more.Wait()
	}
	return slices.Clone(l.acked)
}

// A backup under load has every job that was acknowledged before it began, with its
// files. A server that starts on the copy runs the jobs that had not ended.
func TestBackupOfARunningServerRestores(t *testing.T) {
	onlySQLite(t)
	if testing.Short() {
		t.Skip("it runs a load for seconds")
	}
	t.Parallel()
	s := serve(t, filesQueue)
	l := startLoad(s)
	acked := l.waitForIDs(100)
	before := map[string]map[string]any{}
	for _, id := range acked {
		_, before[id] = s.call("GET", "/v1/jobs/"+id, "")
	}
	to := filepath.Join(t.TempDir(), "deep", "copy")
	copied, err := Backup(t.Context(), s.cfg.Data, to, silent)
	if err != nil {
		t.Fatal(err)
	}
	l.stop()
	s.quit()
	if copied.Files == 0 || copied.Database == 0 || len(copied.Gone) > 0 {
		t.Errorf("%+v", copied)
	}

	again := serve(t, func(c *config.Config) { filesQueue(c); c.Data = to })
	for _, id := range acked {
		status, is := again.call("GET", "/v1/jobs/"+id, "")
		if status != 200 {
			t.Fatalf("%s was acknowledged before the backup, and is not in it: %d %v", id, status, is)
		}
		if was := before[id]; was["status"] == "succeeded" && (is["status"] != "succeeded" || text(is["result"]) != text(was["result"]) || is["output_text"] != was["output_text"]) {
			t.Errorf("it was\n%v and is\n%v", was, is)
		}
		if want, ok := l.files[id]; ok {
			if status, got := again.text("GET", "/v1/jobs/"+id+"/files/a.txt", ""); status != 200 || got != want {
				t.Errorf("the file of %s: %d %q", id, status, got)
			}
			if status, j := again.call("GET", "/v1/jobs/"+id, "", "Prefer", "wait=60"); status != 200 || j["status"] != "succeeded" || j["output_text"] != want {
				t.Errorf("the job that reads its file: %d %v", status, j)
			}
		}
	}
	if status, j := again.call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":1}}`, "Prefer", "wait=60"); status != 200 || j["status"] != "succeeded" {
		t.Errorf("a new job on the copy: %d %v", status, j)
	}
	again.quit()
}

func text(v any) string {
	raw, _ := json.Marshal(v)
	return string(raw)
}

// The copy lacks files of jobs that were deleted before it. Files that were partial when
// they were linked are linked again.
func TestBackupHasTheFilesOfItsJobsAndNoOthers(t *testing.T) {
	onlySQLite(t)
	t.Parallel()
	s := serve(t, filesQueue)
	_, j := s.submitFiles(`{"queue":"shelf"}`, map[string]string{"a.txt": "one", "b.txt": "two"}, "Prefer", "wait=60")
	_, gone := s.submitFiles(`{"queue":"shelf"}`, map[string]string{"c.txt": "three"}, "Prefer", "wait=60")
	s.quit()
	id, lost := j["id"].(string), gone["id"].(string)
	to := filepath.Join(t.TempDir(), "copy")
	c := &backup{ctx: t.Context(), from: s.cfg.Data, to: to, partial: to + ".partial"}
	if err := os.MkdirAll(filepath.Join(filesIn(c.partial), id), 0o700); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(filesIn(c.partial), id, "a.txt")
	stray := filepath.Join(filesIn(c.partial), job.NewID().String())
	if err := errors.Join(os.WriteFile(half, []byte("o"), 0o600), os.Mkdir(stray, 0o700), os.RemoveAll(filepath.Join(filesIn(c.from), lost))); err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{
		func() error { return copyFile(databaseIn(c.from), databaseIn(c.partial)) },
		c.completeFiles, c.copyRest, c.finish,
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(filesIn(to), id, "a.txt")); err != nil || string(got) != "one" {
		t.Errorf("the file that was half there: %q %v", got, err)
	}
	if names, _ := os.ReadDir(filesIn(to)); len(names) > 2 {
		t.Errorf("there are the directories %v", names)
	}
	if len(c.Gone) > 0 || len(c.Lost) != 1 || c.Lost[0].String() != lost || c.Files != 2 || c.Bytes != 6 || c.Jobs != 2 {
		t.Errorf("%+v", c.Copied)
	}
}

// A job that is deleted after the copy of the database and before the copy of its files is not
// in the copy. The copy passes Check.
func TestBackupDuringDeletesIsConsistent(t *testing.T) {
	onlySQLite(t)
	if testing.Short() {
		t.Skip("makes many backups")
	}
	t.Parallel()
	s := serve(t, func(c *config.Config) {
		filesQueue(c)
		q := config.Defaults(config.Process)
		q.Process.Command, q.Process.Env = []string{"sh", "-c", "echo begun; exec sleep 600"}, []string{"PATH"}
		c.Queues["slow"] = q
	})
	submit := func(queue string, headers ...string) string {
		t.Helper()
		status, j := s.submitFiles(`{"queue":"`+queue+`"}`, map[string]string{"a.txt": "one"}, headers...)
		if status != 200 && status != 202 {
			t.Fatalf("%d %v", status, j)
		}
		return j["id"].(string)
	}
	before := submit("shelf", "Prefer", "wait=60")
	to := filepath.Join(t.TempDir(), "copy")
	c := &backup{ctx: t.Context(), from: s.cfg.Data, to: to, partial: to + ".partial"}
	if err := errors.Join(os.Mkdir(c.partial, 0o700), c.linkFiles()); err != nil {
		t.Fatal(err)
	}
	s.text("POST", "/v1/queues/shelf/pause", "")
	kept, ended, waiting, running := submit("shelf"), before, submit("shelf"), submit("slow")
	s.call("GET", "/v1/jobs/"+running+"/output", "", "Prefer", "wait=60")
	if err := sqlite.Backup(t.Context(), databaseIn(c.from), databaseIn(c.partial), silent); err != nil {
		t.Fatal(err)
	}
	gone := []string{waiting, running}
	for _, id := range append(gone, ended) {
		if status, text := s.text("DELETE", "/v1/jobs/"+id, ""); status != 204 {
			t.Fatalf("%d %s", status, text)
		}
	}
	for len(s.onDisk()) > 1 {
		s.text("GET", "/healthz", "") // the files are removed after the answers
	}
	if err := errors.Join(c.completeFiles(), c.copyRest(), c.finish()); err != nil {
		t.Fatal(err)
	}
	s.quit()
	if len(c.Gone) != 2 || len(c.Lost) > 0 {
		t.Errorf("gone are %v, lost are %v; deleted were %v", c.Gone, c.Lost, gone)
	}
	if err := Check(t.Context(), to, func(defect string) { t.Error(defect) }); err != nil {
		t.Error(err)
	}
	again := serve(t, func(c *config.Config) { filesQueue(c); c.Data = to })
	for _, id := range gone {
		if status, _ := again.text("GET", "/v1/jobs/"+id, ""); status != 404 {
			t.Errorf("a deleted job is in the copy: %d", status)
		}
	}
	for _, id := range []string{kept, ended} {
		if status, text := again.text("GET", "/v1/jobs/"+id+"/files/a.txt", ""); status != 200 || text != "one" {
			t.Errorf("the file of a job: %d %q", status, text)
		}
	}
	again.quit()
}

func TestBackupRefusesUnusableDirectories(t *testing.T) {
	onlySQLite(t)
	t.Parallel()
	s := serve(t, nil)
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	existing := filepath.Join(t.TempDir(), "copy")
	if err := os.Mkdir(existing+".partial", 0o700); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if err := errors.Join(os.WriteFile(databaseIn(other), []byte("no database"), 0o600), os.WriteFile(filepath.Join(other, layoutFile), []byte("2\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, says string }{
		{s.cfg.Data, full, "not empty"},
		{s.cfg.Data, filepath.Join(s.cfg.Data, "copy"), "within"},
		{s.cfg.Data, s.cfg.Data, "within"},
		{s.cfg.Data, existing, "another backup"},
		{full, filepath.Join(t.TempDir(), "copy"), "no data directory"},
		{filepath.Join(full, "none"), filepath.Join(t.TempDir(), "copy"), "no data directory"},
		{other, filepath.Join(t.TempDir(), "copy"), "layout"},
	} {
		if _, err := Backup(t.Context(), c.from, c.to, silent); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s to %s: %v", c.from, c.to, err)
		}
	}
	if err := Check(t.Context(), full, func(string) {}); err == nil || !strings.Contains(err.Error(), "no data directory") {
		t.Errorf("what is no data directory was read: %v", err)
	}
	if _, err := Backup(t.Context(), s.cfg.Data, filepath.Join(t.TempDir(), "copy"), silent); err != nil {
		t.Errorf("a good one: %v", err)
	}
	s.quit()
}

func TestInterruptedBackupLeavesNothing(t *testing.T) {
	onlySQLite(t)
	t.Parallel()
	s := serve(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if _, err := Backup(ctx, s.cfg.Data, filepath.Join(dir, "copy"), silent); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("there are %v: %v", names, err)
	}
	s.quit()
}

// A directory without a layout number gets one.
func TestDataDirectoryOfAnotherLayoutIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d, err := openData(dir, wholeLayout)
	if err != nil {
		t.Fatal(err)
	}
	d.release()
	if text, err := os.ReadFile(filepath.Join(dir, layoutFile)); err != nil || string(text) != "1\n" {
		t.Errorf("%q %v", text, err)
	}
	if d, err = openData(dir, wholeLayout); err != nil {
		t.Fatal(err)
	}
	d.release()
	for _, other := range []string{"2\n", "", "x"} {
		if err := os.WriteFile(filepath.Join(dir, layoutFile), []byte(other), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openData(dir, wholeLayout); err == nil || !strings.Contains(err.Error(), "layout") || !strings.Contains(err.Error(), "run the version that made it") {
			t.Errorf("%q: %v", other, err)
		}
	}
}

// Root may write anywhere, so only the sentence is tested.
func TestUnwritableDirectoryErrorHasAdvice(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{fs.ErrPermission, &fs.PathError{Op: "open", Path: "lock", Err: syscall.EROFS}} {
		if err := unusable("/data", "used", cause); !strings.Contains(err.Error(), "make it writable") || !errors.Is(err, cause) {
			t.Error(err)
		}
	}
}
