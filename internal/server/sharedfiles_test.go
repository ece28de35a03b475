package server

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// storedFiles counts the rows of files and of their chunks.
func storedFiles(t *testing.T, conn *pgx.Conn) (n int) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "select (select count(*) from files) + (select count(*) from file_chunks)").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A job that was submitted with files at one server runs at another after the first is gone, with
// its files. Any server returns them, and a delete at any removes them.
func TestFilesOnPostgres(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t).Schema(t)
	a := serveOn(t, db.URL(), filesQueue)
	if status, text := a.text("POST", "/v1/queues/shelf/pause", ""); status != 200 {
		t.Fatal(status, text)
	}
	large := strings.Repeat("0123456789", 60_000)
	status, j := a.submitFiles(`{"queue":"shelf"}`, map[string]string{"a.txt": "one ", "b.txt": large})
	if status != http.StatusAccepted {
		t.Fatal(status, j)
	}
	id := j["id"].(string)
	if status, refusal := a.submitFiles(`{"queue":"sim"}`, map[string]string{"a": "x"}); status != 400 {
		t.Error(status, refusal)
	}
	if got := a.onDisk(); len(got) != 0 {
		t.Errorf("the server that received the files has copies: %v", got)
	}
	a.quit()

	b := serveOn(t, db.URL(), filesQueue)
	if status, text := b.text("POST", "/v1/queues/shelf/resume", ""); status != 200 {
		t.Fatal(status, text)
	}
	if status, j = b.call("GET", "/v1/jobs/"+id, "", "Prefer", "wait=60"); status != 200 || j["status"] != "succeeded" {
		t.Fatal(status, j)
	}
	if got := b.onDisk(); len(got) != 1 || got[0] != id {
		t.Errorf("copies of %v", got)
	}
	if status, text := b.text("GET", "/v1/jobs/"+id+"/result", ""); status != 200 || text != "one "+large {
		t.Errorf("%d: it wrote %d bytes: %.100s", status, len(text), text)
	}

	c := serveOn(t, db.URL(), filesQueue)
	if status, text := c.text("GET", "/v1/jobs/"+id+"/files/b.txt", ""); status != 200 || text != large {
		t.Errorf("%d, %d bytes", status, len(text))
	}
	if status, text := c.text("GET", "/v1/jobs/"+id+"/files/b.txt", "", "Range", "bytes=300001-300003"); status != 206 || text != "123" {
		t.Errorf("%d %q", status, text)
	}
	conn := db.Connect(t)
	if got := storedFiles(t, conn); got != 2+4 {
		t.Errorf("%d rows", got)
	}
	if status, text := c.text("DELETE", "/v1/jobs/"+id, ""); status != http.StatusNoContent {
		t.Error(status, text)
	}
	for late := time.Now().Add(time.Minute); storedFiles(t, conn) > 0; {
		if time.Now().After(late) {
			t.Fatal("files of a deleted job are left in the database")
		}
		runtime.Gosched()
	}
	if _, err := os.Stat(filepath.Join(b.cfg.Data, watchKeyFile)); !os.IsNotExist(err) {
		t.Errorf("there is a key in the cache: %v", err)
	}
}

// A token of one server opens at another, also right after a new key, and earlier ones stay valid
// until they are forgotten.
func TestTokensOnPostgres(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t).Schema(t)
	a, b := serveOn(t, db.URL(), nil), serveOn(t, db.URL(), nil)
	opens := func(s *testServer, token string) bool {
		t.Helper()
		status, _ := s.call("GET", "/api/conversations", "", "Authorization", "Bearer "+token)
		return status == 200
	}
	rotate := func(forget bool, want int) {
		t.Helper()
		if n, err := RotateTokenKey(t.Context(), a.cfg, forget); n != want || err != nil {
			t.Fatalf("%d keys, %v", n, err)
		}
		a.loadKeys()
	}
	first, _ := a.mint("ann", `{}`)
	if !opens(b, first) {
		t.Error("a token of the first key")
	}
	rotate(false, 2)
	second, _ := a.mint("ann", `{}`)
	if keyOf := func(token string) string { id, _, _ := strings.Cut(token, "."); return id }; keyOf(first) == keyOf(second) {
		t.Error("the new key is not used")
	}
	if !opens(b, second) || !opens(b, first) || !opens(a, first) {
		t.Error("tokens after a new key")
	}
	rotate(true, 1)
	third, _ := a.mint("ann", `{}`)
	if !opens(b, third) || opens(b, second) || opens(a, first) {
		t.Error("tokens after the earlier keys were forgotten")
	}
	if opens(b, third+"x") {
		t.Error("an altered token")
	}
	other := pgtest.Shared(t).Schema(t)
	if opens(serveOn(t, other.URL(), nil), third) {
		t.Error("a token opens at a server of another database")
	}
}

// Tokens of unknown keys load the keys at most every 20 ms, and only once for those that come
// together. After a failure they wait for the regular load.
func TestUnknownKeysLoadSeldom(t *testing.T) {
	t.Parallel()
	k := &tokenKeys{interval: time.Second}
	loads := 0
	k.read = func(context.Context) ([][]byte, error) {
		loads++
		return nil, os.ErrDeadlineExceeded
	}
	k.loadUnknown()
	k.loadUnknown()
	if loads != 1 {
		t.Errorf("%d loads after a failure", loads)
	}
	k.failed, k.began = false, time.Now().Add(time.Hour)
	k.loadUnknown()
	if loads != 1 {
		t.Error("a load that began later is not shared")
	}
	k.began = time.Now()
	began := k.began
	k.loadUnknown()
	if loads != 2 || k.began.Sub(began) < unknownInterval {
		t.Errorf("%d loads, %v apart", loads, k.began.Sub(began))
	}
}
