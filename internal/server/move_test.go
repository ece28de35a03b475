package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// moveQueues has a queue for files, and one that runs one job at a time.
func moveQueues(c *config.Config) {
	filesQueue(c)
	c.AllowedOrigins = []string{"https://app.example"}
	q := c.Queues["sim"]
	q.Concurrency = 1
	c.Queues["line"] = q
}

// untilRuns waits until a job runs.
func (s *testServer) untilRuns(id string) {
	s.t.Helper()
	for late := time.Now().Add(time.Minute); s.jobStatus(id) != "running"; runtime.Gosched() {
		if time.Now().After(late) {
			s.t.Fatalf("%s does not run", id)
		}
	}
}

func quietly(MoveReport) {}

// moveTo moves the data of a server that has stopped.
func (s *testServer) moveTo(database string) (Moved, error) {
	cfg := s.cfg
	cfg.Database = database
	return Move(s.t.Context(), cfg, s.cfg.Data, false, quietly)
}

// A server of the database goes on where that of the directory has stopped: with waiting jobs in
// the same order, with what ran, files, conversations, idempotency keys, pauses and tokens.
func TestServerGoesOnAfterMove(t *testing.T) {
	onlySQLite(t)
	t.Parallel()
	a := serve(t, moveQueues)
	db := pgtest.Shared(t).Schema(t)

	// What ended before.
	status, echoed := a.call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":"before"}}`, "Prefer", "wait=60", "Idempotency-Key", "order 7")
	if status != 200 || echoed["status"] != "succeeded" {
		t.Fatal(status, echoed)
	}
	ended := echoed["id"].(string)
	_, task := a.call("POST", "/api/chat", `{"query":"hello","conversation_id":"conv-1"}`)
	a.done(task["task_id"].(string), "local")
	status, shelved := a.submitFiles(`{"queue":"shelf"}`, map[string]string{"a.txt": strings.Repeat("page ", 70_000)})
	if status != 202 {
		t.Fatal(status, shelved)
	}
	if status, j := a.call("GET", "/v1/jobs/"+shelved["id"].(string), "", "Prefer", "wait=60"); status != 200 || j["status"] != "succeeded" {
		t.Fatal(status, j)
	}
	watched, url := a.watchURL(`{"echo":"watched"}`)

	// What runs and what waits: a job that runs for an hour, and the line behind it.
	_, running := a.call("POST", "/v1/jobs", `{"queue":"line","input":{"duration_ms":3600000}}`)
	a.untilRuns(running["id"].(string))
	var line []string
	for n := range 6 {
		_, j := a.call("POST", "/v1/jobs", fmt.Sprintf(`{"queue":"line","key":"k%d","priority":%d,"input":{"echo":%d}}`, n%2, 3+n%3, n))
		line = append(line, j["id"].(string))
	}
	order := func(s *testServer) []string {
		at := map[string]float64{}
		for _, id := range line {
			_, j := s.call("GET", "/v1/jobs/"+id, "")
			at[id], _ = j["queue_position"].(float64)
		}
		list := slices.Clone(line)
		slices.SortFunc(list, func(a, b string) int { return cmp.Compare(at[a], at[b]) })
		if at[list[5]]-at[list[0]] < 5 {
			t.Errorf("the positions are %v", at)
		}
		return list
	}
	before := order(a)
	a.call("POST", "/v1/queues/line/pause", "")
	if _, err := a.moveTo(db.URL()); err == nil || !strings.Contains(err.Error(), "another server (pid") {
		t.Errorf("while the server runs: %v", err)
	}
	a.quit()

	moved, err := a.moveTo(db.URL())
	if err != nil {
		t.Fatal(err)
	}
	if moved.Running != 0 || moved.Jobs < 10 || len(moved.Lost) > 0 { // a server that stops hands its jobs back
		t.Errorf("%+v", moved)
	}
	b := serveOn(t, db.URL(), moveQueues)
	if got := order(b); !slices.Equal(got, before) {
		t.Errorf("the line is %v, want %v", got, before)
	}
	if status, text := b.text("GET", "/v1/jobs/"+ended+"/result", ""); status != 200 || !strings.Contains(text, "before") {
		t.Error(status, text)
	}
	if status, again := b.call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":"before"}}`, "Idempotency-Key", "order 7"); status != 200 || again["id"] != ended {
		t.Error(status, again)
	}
	if status, text := b.text("GET", "/api/conversations/conv-1", ""); status != 200 || !strings.Contains(text, "hello") {
		t.Error(status, text)
	}
	if status, text := b.text("GET", "/v1/jobs/"+shelved["id"].(string)+"/files/a.txt", ""); status != 200 || text != strings.Repeat("page ", 70_000) {
		t.Errorf("%d, %d bytes", status, len(text))
	}
	if res, text := b.stranger("GET", b.URL()+strings.TrimPrefix(url, a.URL())); res.StatusCode != 200 || !strings.Contains(text, watched) {
		t.Errorf("a watch URL from before: %d %.300s", res.StatusCode, text)
	}
	if status, q := b.call("GET", "/v1/queues/line", ""); status != 200 || q["paused"] != true {
		t.Error(status, q)
	}
	if status, text := b.text("DELETE", "/v1/jobs/"+running["id"].(string), ""); status != 204 {
		t.Error(status, text)
	}
	b.call("POST", "/v1/queues/line/resume", "")
	for _, id := range line {
		if status, j := b.call("GET", "/v1/jobs/"+id, "", "Prefer", "wait=60"); status != 200 || j["status"] != "succeeded" {
			t.Error(status, j)
		}
	}
	b.quit()
	if err := CheckDatabase(t.Context(), b.cfg, func(defect string) { t.Error(defect) }); err != nil {
		t.Error(err)
	}
}

// Jobs that ran when their server was killed wait again, as after a restart.
func TestMoveTakesRunningJobsBack(t *testing.T) {
	onlySQLite(t)
	t.Parallel()
	a := serve(t, moveQueues)
	_, running := a.call("POST", "/v1/jobs", `{"queue":"line","input":{"duration_ms":3600000}}`)
	a.untilRuns(running["id"].(string))
	// A copy of a running server's directory is what a kill leaves.
	killed := *a
	killed.cfg.Data = filepath.Join(t.TempDir(), "killed")
	if _, err := Backup(t.Context(), a.cfg.Data, killed.cfg.Data, silent); err != nil {
		t.Fatal(err)
	}
	a.quit()
	db := pgtest.Shared(t).Schema(t)
	moved, err := killed.moveTo(db.URL())
	if err != nil || moved.Running != 1 {
		t.Fatalf("%+v, %v", moved, err)
	}
	cfg := killed.cfg
	cfg.Database = db.URL()
	if err := CheckDatabase(t.Context(), cfg, func(defect string) { t.Error(defect) }); err != nil {
		t.Error(err)
	}
	b := serveOn(t, db.URL(), moveQueues)
	status, j := b.call("GET", "/v1/jobs/"+running["id"].(string), "")
	if status != 200 || j["status"] == "succeeded" || j["attempt"] == 0.0 {
		t.Error(status, j)
	}
	b.untilRuns(running["id"].(string)) // it waits for the backoff of a loss
}

// An interrupted move is continued by the same call. Until then no server uses the database, and
// afterwards none uses the directory, unless its mark is deleted.
func TestInterruptedMoveGoesOn(t *testing.T) {
	onlySQLite(t)
	t.Parallel()
	a := serve(t, nil)
	status, j := a.call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":"x"}}`, "Prefer", "wait=60")
	if status != 200 {
		t.Fatal(status, j)
	}
	a.quit()
	db := pgtest.Shared(t).Schema(t)
	cfg := a.cfg
	cfg.Database, cfg.Data = db.URL(), t.TempDir()
	for _, table := range []string{"", "jobs", "ended", "queues"} {
		ctx, interrupt := context.WithCancel(t.Context())
		_, err := Move(ctx, cfg, a.cfg.Data, false, func(r MoveReport) {
			if r.Table == table {
				interrupt()
			}
		})
		if err == nil || ctx.Err() == nil {
			t.Errorf("at %q: %v", table, err)
		}
		_, err = Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), `run "meanwhile move" again`) {
			t.Errorf("a server of the database: %v", err)
		}
	}
	if err := CheckDatabase(t.Context(), cfg, func(string) {}); err != nil {
		t.Error(err)
	}
	for _, already := range []bool{false, true} {
		if moved, err := a.moveTo(db.URL()); err != nil || moved.Before != already || moved.Sums["ended"].Rows != 1 {
			t.Errorf("%+v, %v", moved, err)
		}
		_, err := Open(t.Context(), a.cfg, slog.New(slog.DiscardHandler))
		mark := filepath.Join(a.cfg.Data, movedFile)
		if err == nil || !strings.Contains(err.Error(), "was moved to the database") || !strings.Contains(err.Error(), "delete "+mark) {
			t.Fatalf("a server of the directory: %v", err)
		}
		if _, err := a.moveTo(db.URL()); err == nil || !strings.Contains(err.Error(), "was moved") {
			t.Error(err)
		}
		if err := os.Remove(mark); err != nil {
			t.Fatal(err)
		}
	}
	again := serve(t, func(c *config.Config) { c.Data = a.cfg.Data })
	if status, text := again.text("GET", "/v1/jobs/"+j["id"].(string)+"/result", ""); status != 200 || !strings.Contains(text, "x") {
		t.Error(status, text)
	}
	again.call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":"y"}}`, "Prefer", "wait=60")
	again.quit()
	if _, err := again.moveTo(db.URL()); err == nil || !strings.Contains(err.Error(), "has jobs already") {
		t.Errorf("a move of what has changed since: %v", err)
	}
}
