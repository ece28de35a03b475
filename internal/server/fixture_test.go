package server

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// fixture has the answers of an older version of the program about a data directory that it
// wrote; see testdata/written-by-3e59390/README.md.
type fixture struct {
	Jobs          map[string]map[string]any   // as GET /v1/jobs/{id} answered, by their purpose
	Outputs       map[string][]map[string]any // their entries
	Deleted       map[string]string           // ids of jobs that were deleted
	Conversations []map[string]any
	Messages      map[string][]map[string]any // by conversation
	Page          struct {
		After string   // a cursor of a list
		IDs   []string // the page after the cursor
	}
	Idempotency struct{ Key, Request, Job string }
	Watch       struct{ Token, Job string } // a token that is valid until 2100
	Config      string

	testServer *testServer
}

const fixtureDir = "testdata/written-by-3e59390"

func readFixture(t *testing.T) *fixture {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(fixtureDir, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{}
	if err := json.Unmarshal(text, f); err != nil {
		t.Fatal(err)
	}
	return f
}

// unpack makes a copy of the old data directory.
func (f *fixture) unpack(t *testing.T) (path string) {
	t.Helper()
	packed, err := os.Open(filepath.Join(fixtureDir, "data.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	plain, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	for files := tar.NewReader(plain); ; {
		entry, err := files.Next()
		if err == io.EOF {
			return filepath.Join(to, "data")
		}
		if err == nil {
			err = unpackEntry(filepath.Join(to, filepath.FromSlash(entry.Name)), entry, files)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func unpackEntry(path string, entry *tar.Header, content io.Reader) error {
	if entry.Typeflag == tar.TypeDir {
		return os.MkdirAll(path, 0o700)
	}
	bytes, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	return os.WriteFile(path, bytes, 0o600)
}

// serve opens a copy of the directory, with the configuration of the server that wrote it.
func (f *fixture) serve(t *testing.T) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "meanwhile.yaml")
	if err := os.WriteFile(path, []byte(f.Config), 0o600); err != nil {
		t.Fatal(err)
	}
	old, err := config.Load(config.Sources{File: path})
	if err != nil {
		t.Fatal(err)
	}
	f.testServer = serve(t, func(c *config.Config) {
		listen, grace := c.Listen, c.ShutdownGrace
		*c = old
		c.Listen, c.ShutdownGrace, c.Data = listen, grace, f.unpack(t)
		allowApp(c)
	})
}

func (f *fixture) id(name string) string { return f.Jobs[name]["id"].(string) }

// user returns the owner of a job.
func (f *fixture) user(name string) string {
	if name == "bobs" {
		return "bob"
	}
	return "ann"
}

// The data directory of a killed older version works: it has every acknowledged job, and every
// cursor and token of that version is valid.
func TestDataDirectoryOfAnOlderVersion(t *testing.T) {
	onlySQLite(t)
	f := readFixture(t)
	f.serve(t)
	for _, c := range []struct {
		name  string
		check func(*testing.T)
	}{
		{"jobs that had ended are as they were", f.endedJobs},
		{"jobs that waited wait, and jobs that ran run again", f.unfinishedJobs},
		{"deleted jobs are gone", f.deletedJobs},
		{"a job belongs to its owner", f.owners},
		{"what was said stays said", f.outputs},
		{"a stream goes on after its Last-Event-ID", f.resume},
		{"a stream that was read to its end has ended", f.resumeAfterDone},
		{"results are there", f.results},
		{"files are there", f.files},
		{"files of a job that was deleted before the kill are removed", f.deletedFiles},
		{"conversations and their messages are there", f.conversations},
		{"the next page follows a cursor of before", f.page},
		{"an idempotency key answers the job that it made", f.idempotency},
		{"a watch token opens its job", f.watchToken},
		{"a paused queue is paused", f.paused},
		{"a failed job can be retried", f.retry},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.testServer.t = t
			c.check(t)
		})
	}
	f.testServer.t = t
	f.testServer.quit()
}

// Rows that an older version left of removed jobs are removed and never shown, not under
// reused row numbers either.
func TestOrphansOfAnOlderVersionAreHidden(t *testing.T) {
	f := readFixture(t)
	path := databaseIn(f.unpack(t))
	open := func() *sqlite.Store {
		s, err := sqlite.Open(t.Context(), path, sqlite.Options{AtEnd: conversation.AtEnd})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	states := map[string]job.State{
		"succeeded": job.Succeeded, "failed": job.Failed, "cancelled": job.Cancelled, "expired": job.Expired,
		"scheduled": job.Scheduled, "queued": job.Queued, "parked": job.Parked, "running": job.Running,
	}
	for name, state := range states {
		id, _ := job.ParseID(f.id(name))
		if j, err := s.Job(t.Context(), job.Owner{User: "ann"}, id); err != nil || j.State != state {
			t.Errorf("a job that was %s is %s: %v", state, j.State, err)
		}
	}
	eve := job.Owner{User: "eve"}
	var news []job.ID
	for range 3 {
		op := &store.Submit{Job: job.Job{ID: job.NewID(), Owner: eve, Queue: "sim", Priority: 5, MaxAttempts: 1}, Token: job.NewToken(), LeaseFor: time.Hour}
		b := store.NewBatch()
		b.Add(op)
		if err := store.Commit(t.Context(), s, b); err != nil || op.Err != nil {
			t.Fatal(err, op.Err)
		}
		news = append(news, op.Job.ID)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open()
	}
	defer func() { _ = s.Close() }()
	for _, id := range news {
		if j, text, err := s.Text(t.Context(), eve, id, 1000); err != nil || j.Cursor != 0 || text != "" {
			t.Errorf("a new job that said nothing has the cursor %d and the text %q: %v", j.Cursor, text, err)
		}
	}
}

// steady are the fields of an ended job that do not change. Its expiry was changed for the
// fixture, and all other fields depend on the time of the read.
var steady = []string{"id", "object", "queue", "status", "key", "priority", "attempt", "max_attempts", "abandon_after_s", "progress", "output_text", "cursor",
	"result", "error", "usage", "files", "metadata", "cancel_requested_at", "created_at", "run_at", "started_at", "finished_at"}

func (f *fixture) endedJobs(t *testing.T) {
	for _, name := range []string{"succeeded", "failed", "retried", "scanned", "bobs", "cancelled", "expired", "answer"} {
		status, is := f.testServer.call("GET", "/v1/jobs/"+f.id(name), "", "X-User-ID", f.user(name))
		if status != 200 {
			t.Errorf("%s: %d %v", name, status, is)
			continue
		}
		for _, field := range steady {
			if was := f.Jobs[name][field]; !reflect.DeepEqual(is[field], was) {
				t.Errorf("%s: %s was %v and is %v", name, field, was, is[field])
			}
		}
	}
}

func (f *fixture) unfinishedJobs(t *testing.T) {
	for _, c := range []struct {
		name string
		may  string // the possible states now
	}{
		{"scheduled", "scheduled"},
		{"queued", "queued"},
		{"parked", "parked queued"}, // two jobs of its key wait: one of them has the key's turn
		{"running of a key", "parked queued scheduled"},
		{"running", "running queued scheduled"},
		{"answer under way", "running queued scheduled succeeded"},
	} {
		status, is := f.testServer.call("GET", "/v1/jobs/"+f.id(c.name), "", "X-User-ID", "ann")
		state, _ := is["status"].(string)
		if status != 200 || !slices.Contains(strings.Fields(c.may), state) {
			t.Errorf("%s: %d %v", c.name, status, is)
		}
		for _, field := range []string{"queue", "key", "priority", "max_attempts", "abandon_after_s", "metadata", "created_at"} {
			if was := f.Jobs[c.name][field]; !reflect.DeepEqual(is[field], was) {
				t.Errorf("%s: %s was %v and is %v", c.name, field, was, is[field])
			}
		}
	}
}

func (f *fixture) deletedJobs(t *testing.T) {
	for name, id := range f.Deleted {
		if status, text := f.testServer.text("GET", "/v1/jobs/"+id, "", "X-User-ID", "ann"); status != 404 {
			t.Errorf("%s: %d %s", name, status, text)
		}
		if status, text := f.testServer.text("DELETE", "/v1/jobs/"+id, "", "X-User-ID", "ann"); status != 204 {
			t.Errorf("%s, deleted again: %d %s", name, status, text)
		}
	}
}

func (f *fixture) owners(t *testing.T) {
	for name := range f.Jobs {
		if status, text := f.testServer.text("GET", "/v1/jobs/"+f.id(name), "", "X-User-ID", "eve"); status != 404 {
			t.Errorf("%s of %s, asked for by another: %d %s", name, f.user(name), status, text)
		}
	}
}

// outputs checks that every log begins with the entries of the fixture.
func (f *fixture) outputs(t *testing.T) {
	for name, was := range f.Outputs {
		var is []any
		for len(is) < len(was) {
			after := strconv.Itoa(len(is))
			status, page := f.testServer.call("GET", "/v1/jobs/"+f.id(name)+"/output?after="+after, "", "X-User-ID", f.user(name))
			data, _ := page["data"].([]any)
			if status != 200 || len(data) == 0 {
				t.Fatalf("%s: after %d of %d entries: %d %v", name, len(is), len(was), status, page)
			}
			is = append(is, data...)
		}
		for i := range was {
			if !reflect.DeepEqual(is[i], any(was[i])) {
				t.Errorf("%s: entry %d was %v and is %v", name, i+1, was[i], is[i])
			}
		}
	}
}

// ids reads the ids of a stream's events, up to a number of ids or the end of the stream.
func (f *fixture) ids(name, lastEventID string, most int) (ids []string) {
	f.testServer.t.Helper()
	res := f.testServer.send("GET", "/v1/jobs/"+f.id(name)+"/events", "", "X-User-ID", "ann", "Last-Event-ID", lastEventID)
	defer res.Body.Close()
	if res.StatusCode != 200 {
		f.testServer.t.Fatalf("%s from %q: %d", name, lastEventID, res.StatusCode)
	}
	event := ""
	for lines := bufio.NewScanner(res.Body); len(ids) < most && lines.Scan(); {
		if kind, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			event = kind
		}
		if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok && event != "snapshot" {
			ids = append(ids, id)
		}
	}
	return ids
}

func (f *fixture) resume(t *testing.T) {
	if ids, want := f.ids("succeeded", "5", 100), []string{"6", "7", "8", "8.done"}; !slices.Equal(ids, want) {
		t.Errorf("after 5 the stream of a job that had ended tells %v, not %v", ids, want)
	}
	if ids, want := f.ids("running", "20", 3), []string{"21", "22", "23"}; !slices.Equal(ids, want) {
		t.Errorf("after 20 the stream of a job that ran tells %v, not %v", ids, want)
	}
}

func (f *fixture) resumeAfterDone(t *testing.T) {
	if status, text := f.testServer.text("GET", "/v1/jobs/"+f.id("succeeded")+"/events", "", "X-User-ID", "ann", "Last-Event-ID", "8.done"); status != 204 {
		t.Errorf("%d %s", status, text)
	}
}

func (f *fixture) results(t *testing.T) {
	status, is := f.testServer.call("GET", "/v1/jobs/"+f.id("succeeded")+"/result", "", "X-User-ID", "ann")
	if was := f.Jobs["succeeded"]["result"]; status != 200 || !reflect.DeepEqual(any(is), was) {
		t.Errorf("%d %v, which was %v", status, is, was)
	}
}

func (f *fixture) files(t *testing.T) {
	status, text := f.testServer.text("GET", "/v1/jobs/"+f.id("scanned")+"/files/page.txt", "", "X-User-ID", "ann")
	if status != 200 || text != "what the page says\n" {
		t.Errorf("%d %q", status, text)
	}
}

func (f *fixture) deletedFiles(*testing.T) {
	for slices.Contains(f.testServer.onDisk(), f.Deleted["deleted with a file"]) {
		f.testServer.text("GET", "/healthz", "") // they are removed after the start
	}
}

func (f *fixture) conversations(t *testing.T) {
	_, is := f.testServer.call("GET", "/api/conversations", "", "X-User-ID", "ann")
	list, _ := is["conversations"].([]any)
	if len(list) != len(f.Conversations) {
		t.Fatalf("there were %d conversations, and are %v", len(f.Conversations), list)
	}
	for i, was := range f.Conversations {
		// The earlier version listed them in the order of their creation.
		at := slices.IndexFunc(list, func(c any) bool { return c.(map[string]any)["id"] == was["id"] })
		for field, v := range was {
			if is := list[max(at, 0)].(map[string]any)[field]; !reflect.DeepEqual(is, v) {
				t.Errorf("conversation %d: %s was %v and is %v", i, field, v, is)
			}
		}
		f.messages(t, was["id"].(string))
	}
}

func (f *fixture) messages(t *testing.T, conversation string) {
	_, is := f.testServer.call("GET", "/api/conversations/"+conversation+"/messages", "", "X-User-ID", "ann")
	list, _ := is["data"].([]any)
	if len(list) != len(f.Messages[conversation]) {
		t.Fatalf("it had %d messages, and has %v", len(f.Messages[conversation]), list)
	}
	for i, was := range f.Messages[conversation] {
		is := list[i].(map[string]any)
		fields := []string{"id", "role", "content", "task_id", "created_at"}
		if was["status"] == "processing" {
			fields = []string{"id", "role", "task_id", "created_at"}
			if status := is["status"]; status != "processing" && status != "completed" {
				t.Errorf("an answer under way is %v", status)
			}
		}
		for _, field := range fields {
			if !reflect.DeepEqual(is[field], was[field]) {
				t.Errorf("message %d: %s was %v and is %v", i, field, was[field], is[field])
			}
		}
	}
}

func (f *fixture) page(t *testing.T) {
	status, is := f.testServer.call("GET", "/v1/jobs?limit=5&created_before=2100-01-01T00:00:00Z&after="+f.Page.After, "", "X-User-ID", "ann")
	list, _ := is["data"].([]any)
	var ids []string
	for _, j := range list {
		ids = append(ids, j.(map[string]any)["id"].(string))
	}
	if status != 200 || !slices.Equal(ids, f.Page.IDs) {
		t.Errorf("%d: the page was %v and is %v", status, f.Page.IDs, ids)
	}
}

func (f *fixture) idempotency(t *testing.T) {
	k := f.Idempotency
	status, j := f.testServer.call("POST", "/v1/jobs", k.Request, "X-User-ID", "ann", "Idempotency-Key", k.Key)
	if status != 202 && status != 200 || j["id"] != k.Job {
		t.Errorf("the request again: %d %v", status, j)
	}
	if status, j := f.testServer.call("POST", "/v1/jobs", `{"queue":"sim","input":{}}`, "X-User-ID", "ann", "Idempotency-Key", k.Key); status != 422 {
		t.Errorf("another request with its key: %d %v", status, j)
	}
	if status, j := f.testServer.call("POST", "/v1/jobs", `{"queue":"sim","input":{}}`, "X-User-ID", "ann", "Idempotency-Key", "gone-1"); status != 422 {
		t.Errorf("another request with the key of a deleted job: %d %v", status, j)
	}
}

func (f *fixture) watchToken(t *testing.T) {
	res, text := f.testServer.stranger("GET", f.testServer.URL()+"/v1/jobs/"+f.Watch.Job+"/events?token="+f.Watch.Token)
	if res.StatusCode != 200 || !strings.Contains(text, "id: 8.done") {
		t.Errorf("%d %s", res.StatusCode, text)
	}
}

func (f *fixture) paused(t *testing.T) {
	if status, q := f.testServer.call("GET", "/v1/queues/keyed", ""); status != 200 || q["paused"] != true {
		t.Errorf("%d %v", status, q)
	}
}

func (f *fixture) retry(t *testing.T) {
	path := "/v1/jobs/" + f.id("failed")
	if status, j := f.testServer.call("POST", path+"/retry", "", "X-User-ID", "ann"); status != 202 {
		t.Fatalf("%d %v", status, j)
	}
	if status, j := f.testServer.call("GET", path, "", "X-User-ID", "ann", "Prefer", "wait=60"); status != 200 || j["status"] != "failed" {
		t.Errorf("%d %v", status, j)
	}
}
