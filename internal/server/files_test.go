package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/exec/sim"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// submitFiles submits a job with files.
func (s *testServer) submitFiles(text string, list map[string]string, headers ...string) (int, map[string]any) {
	s.t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	if err := form.WriteField("job", text); err != nil {
		s.t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		part, err := form.CreateFormFile("file", name)
		if err != nil {
			s.t.Fatal(err)
		}
		_, _ = io.WriteString(part, list[name])
	}
	_ = form.Close()
	return s.call("POST", "/v1/jobs", body.String(), append(headers, "Content-Type", form.FormDataContentType())...)
}

// onDisk lists the directories of jobs with files.
func (s *testServer) onDisk() (names []string) {
	s.t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.cfg.Data, "files"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// filesQueue adds a queue whose jobs output their files.
func filesQueue(c *config.Config) {
	q := config.Defaults(config.Process)
	q.Process.Command, q.Process.Env = []string{"cat", "{files}"}, []string{"PATH"}
	c.Queues = maps.Clone(c.Queues)
	c.Queues["shelf"] = q
}

// A job reads its files, lists them and serves them; a delete removes them.
func TestFilesLiveAndEndWithTheirJob(t *testing.T) {
	t.Parallel()
	s := serve(t, filesQueue)
	list := map[string]string{"a.txt": "one ", "b.txt": "two"}
	status, j := s.submitFiles(`{"queue":"shelf"}`, list, "Prefer", "wait=60", "Idempotency-Key", "k")
	if status != 200 || j["status"] != "succeeded" || j["output_text"] != "one two" {
		t.Fatalf("%d %v", status, j)
	}
	id := j["id"].(string)
	if shown, _ := json.Marshal(j["files"]); !bytes.Contains(shown, []byte(`"name":"a.txt"`)) || !bytes.Contains(shown, []byte(`"size":4`)) {
		t.Errorf("it shows %s", shown)
	}
	if status, text := s.text("GET", "/v1/jobs/"+id+"/files/b.txt", ""); status != 200 || text != "two" {
		t.Errorf("%d %q", status, text)
	}
	if status, _ := s.call("GET", "/v1/jobs/"+id+"/files/b.txt", "", "X-User-ID", "someone"); status != 404 {
		t.Errorf("to someone else: %d", status)
	}
	if status, again := s.submitFiles(`{"queue":"shelf"}`, list, "Idempotency-Key", "k"); status != 200 || again["id"] != id {
		t.Errorf("again: %d %v", status, again)
	}
	list["b.txt"] = "three"
	if status, other := s.submitFiles(`{"queue":"shelf"}`, list, "Idempotency-Key", "k"); status != 422 {
		t.Errorf("another file: %d %v", status, other)
	}
	if got := s.onDisk(); !slices.Equal(got, []string{id}) {
		t.Errorf("on the disk are %v", got)
	}
	if status, text := s.text("DELETE", "/v1/jobs/"+id, ""); status != http.StatusNoContent {
		t.Errorf("%d %s", status, text)
	}
	for late := time.Now().Add(time.Minute); len(s.onDisk()) > 0; runtime.Gosched() { // they are removed once the delete is on disk
		if time.Now().After(late) {
			t.Fatalf("of a deleted job there are %v", s.onDisk())
		}
	}
	s.quit()
}

func TestQueuesWithoutFilesRefuseThem(t *testing.T) {
	t.Parallel()
	s := serve(t, filesQueue)
	for _, queue := range []string{"sim"} {
		if status, refusal := s.submitFiles(`{"queue":"`+queue+`"}`, map[string]string{"a": "x"}); status != 400 || refusal["field"] != "/queue" {
			t.Errorf("%s: %d %v", queue, status, refusal)
		}
	}
	status, j := s.call("POST", "/v1/jobs", `{"queue":"shelf","input":1}`, "Prefer", "wait=60")
	if status != 200 || j["status"] != "failed" || j["error"].(map[string]any)["code"] != "wrong_files" {
		t.Errorf("a command without its files: %d %v", status, j)
	}
	if got := s.onDisk(); len(got) != 0 {
		t.Errorf("on the disk are %v", got)
	}
	s.quit()
}

// A crash between the files and their job leaves files without a job. The next start
// removes those and keeps the others.
func TestStartRemovesFilesOfACrash(t *testing.T) {
	onlySQLite(t)
	t.Parallel()
	first := serve(t, filesQueue)
	_, j := first.submitFiles(`{"queue":"shelf","delay_s":3600}`, map[string]string{"a": "kept"})
	orphan := first.components.files.Stage(job.NewID())
	if _, err := orphan.Receive(t.Context(), "a", "", bytes.NewReader([]byte("left"))); err != nil {
		t.Fatal(err)
	}
	if err := orphan.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	first.quit()
	for !time.Now().After(orphan.ID().Time().Add(time.Millisecond)) {
	}
	second := serve(t, func(c *config.Config) { filesQueue(c); c.Data = first.cfg.Data })
	id := j["id"].(string)
	if got := second.onDisk(); !slices.Equal(got, []string{id}) {
		t.Errorf("on the disk are %v", got)
	}
	if status, text := second.text("GET", "/v1/jobs/"+id+"/files/a", ""); status != 200 || text != "kept" {
		t.Errorf("%d %q", status, text)
	}
	second.quit()
}

func TestFullQueueAnswersARepeatedSubmitWithFiles(t *testing.T) {
	onlySQLite(t)
	t.Parallel()
	s := serve(t, func(c *config.Config) {
		filesQueue(c)
		q := c.Queues["shelf"]
		q.Concurrency, q.MaxDepth = 1, 1
		c.Queues["shelf"] = q
	})
	const later = `{"queue":"shelf","delay_s":3600}`
	list := map[string]string{"a": "x"}
	_, first := s.submitFiles(later, list, "Idempotency-Key", "first")
	stored, status, answer := 1, 0, map[string]any(nil)
	for stored < 5 {
		if status, answer = s.submitFiles(later, list); status != 202 {
			break
		}
		stored++
	}
	if status != 503 || answer["code"] != "queue_full" {
		t.Errorf("after %d jobs: %d %v", stored, status, answer)
	}
	if status, again := s.submitFiles(later, list, "Idempotency-Key", "first"); status != 202 || again["id"] != first["id"] {
		t.Errorf("the first one again: %d %v", status, again)
	}
	if got := s.onDisk(); len(got) != stored {
		t.Errorf("of %d jobs on the disk are %v", stored, got)
	}
	s.quit()
}

// Files count in retention.max_bytes, also those from before the start. The oldest ended
// jobs are deleted with their files.
func TestRetentionLimitCountsFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("stores large files")
	}
	synctest.Test(t, func(t *testing.T) {
		cfg := config.Default()
		cfg.Data, cfg.Listen, cfg.Queues, cfg.Retention.MaxBytes = t.TempDir(), "", nil, 16<<20
		owner := job.Owner{User: "local"}
		var ids []job.ID
		run := func(work func(*components)) {
			s, err := Open(t.Context(), cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
			if err == nil {
				err = s.Add("shelf", config.FuncQueue(), sim.Executor{})
			}
			ctx, stop := context.WithCancel(t.Context())
			if err == nil {
				err = s.start(ctx)
			}
			if err != nil {
				t.Fatal(err)
			}
			work(s.components)
			stop()
			if err := s.Wait(); err != nil {
				t.Error(err)
			}
		}
		submit := func(h *components) {
			stage := h.files.Stage(job.NewID())
			_, err := stage.Receive(t.Context(), "a", "text/plain", bytes.NewReader(make([]byte, 1<<20)))
			if err == nil {
				err = stage.Commit(t.Context())
			}
			if err == nil {
				_, _, err = h.engine.Submit(t.Context(), engine.Request{ID: stage.ID(), Owner: owner, Queue: "shelf", Input: []byte("{}"), Files: stage.Files()})
			}
			if err == nil {
				_, err = h.engine.Wait(t.Context(), owner, stage.ID(), time.Hour)
			}
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, stage.ID())
		}
		run(func(h *components) {
			for range 4 {
				submit(h)
			}
		})
		cfg.Retention.MaxBytes = 5 << 20
		run(func(h *components) {
			for range 4 {
				submit(h)
			}
			time.Sleep(time.Minute)
			for i, id := range ids {
				_, err := h.engine.Get(t.Context(), owner, id)
				_, gone := os.Stat(filepath.Join(cfg.Data, "files", id.String(), "a"))
				if left := i >= 4; left != (err == nil) || left != (gone == nil) {
					t.Errorf("job %d of 8: %v, its file: %v", i+1, err, gone)
				}
			}
		})
	})
}
