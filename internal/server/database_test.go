package server

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// serveOn starts a server on a database.
func serveOn(t *testing.T, database string, change func(*config.Config)) *testServer {
	t.Helper()
	return serve(t, func(c *config.Config) {
		c.Database = database
		if change != nil {
			change(c)
		}
	})
}

func TestServerRunsJobsOnPostgres(t *testing.T) {
	t.Parallel()
	pgtest.InShort(t)
	db := pgtest.Shared(t).Schema(t)
	s := serveOn(t, db.URL(), nil)
	if status, text := s.text("GET", "/readyz", ""); status != 200 || text != "ready\n" {
		t.Errorf("/readyz: %d %q", status, text)
	}
	status, j := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":"hello"}}`, "Prefer", "wait=20")
	if status != 200 || j["status"] != "succeeded" {
		t.Fatalf("%d %v", status, j)
	}
	id := j["id"].(string)
	s.quit()
	again := serveOn(t, db.URL(), nil)
	if status, text := again.text("GET", "/v1/jobs/"+id+"/result", ""); status != 200 || !strings.Contains(text, "hello") {
		t.Errorf("after a restart: %d %q", status, text)
	}
}

// Any number of servers may start at once, also the first ones.
func TestManyServersStartAtOnce(t *testing.T) {
	t.Parallel()
	database := pgtest.Shared(t).Schema(t)
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			s, err := Open(t.Context(), onDatabase(t, database.URL()), slog.New(slog.NewTextHandler(t.Output(), nil)))
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// A server outlives its database. Submits are refused meanwhile, running work goes on, and what
// was acknowledged is there afterwards, without a restart.
func TestServerOutlivesItsDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a database of its own")
	}
	t.Parallel()
	db := pgtest.Start(t, pgtest.Options{})
	for _, end := range []func(testing.TB){db.Stop, db.Kill} {
		w := &work{attempts: map[string]*attempt{}, changed: make(chan struct{})}
		r := &replicas{T: t, database: db.Schema(t), work: w}
		s := serveWith(t, func(c *config.Config) { c.Database = r.database.URL() }, func(s *Server) error {
			return s.Add("work", config.FuncQueue(), workOf{w, 0})
		})
		r.servers[0] = s
		id, later := r.submit(0, ""), r.submit(0, `,"delay_s":0.1`)
		a := r.running(id)
		stream := s.watch(id, "")
		end(t)
		s.untilStatus("GET", "/readyz", "", 503)
		s.untilStatus("POST", "/v1/jobs", `{"queue":"work","input":{}}`, 503)
		if _, text := s.text("GET", "/metrics", ""); !strings.Contains(text, "\nmeanwhile_database_up 0\n") {
			t.Error("the metrics do not say that the database is away")
		}
		res := s.send("POST", "/v1/jobs", `{"queue":"work","input":{}}`)
		_ = res.Body.Close()
		if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
			t.Errorf("a submit: %s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
		}
		if status, _ := s.text("GET", "/healthz", ""); status != 200 {
			t.Errorf("/healthz: %d", status)
		}
		if a.ctx.Err() != nil {
			t.Error("the work was stopped while its lease holds")
		}
		db.Restart(t)
		a.say("still here")
		stream.until("output", "still here")
		a.end()
		stream.until("done", "succeeded")
		s.untilStatus("GET", "/readyz", "", 200)
		s.untilStatus("POST", "/v1/jobs", `{"queue":"sim","input":{}}`, 202)
		r.running(later).end()
		s.ends(later, "succeeded")
		if _, j := s.call("GET", "/v1/jobs/"+id, ""); j["attempt"] != 1.0 {
			t.Errorf("the outage cost an attempt: %v", j["attempt"])
		}
		s.quit()
	}
}

// untilStatus makes a request until it is answered with a status.
func (s *testServer) untilStatus(method, path, body string, want int) {
	s.t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for deadline := time.After(time.Minute); ; {
		status, text := s.text(method, path, body)
		if status == want {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			s.t.Fatalf("%s %s: %d %s, want %d", method, path, status, text, want)
		}
	}
}

// A start waits for its database, and the log says so.
func TestStartWaitsForItsDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a database of its own")
	}
	t.Parallel()
	db := pgtest.Start(t, pgtest.Options{Fast: true})
	url := db.Schema(t).URL()
	db.Stop(t)
	waits := make(chan string, 100)
	log := slog.New(slog.NewTextHandler(lineWriter(waits), nil))
	opened := make(chan error)
	go func() {
		s, err := Open(t.Context(), onDatabase(t, url), log)
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	if line := <-waits; !strings.Contains(line, "the database is away: the start waits for it") || !strings.Contains(line, `database="the database postgres at `) {
		t.Errorf("the log says %s", line)
	}
	db.Restart(t)
	if err := <-opened; err != nil {
		t.Error(err)
	}

	db.Stop(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := Open(ctx, onDatabase(t, url), log)
		opened <- err
	}()
	for line := range waits {
		if strings.Contains(line, "the start waits for it") {
			break
		}
	}
	cancel()
	if err := <-opened; err == nil || !strings.Contains(err.Error(), "cannot be used") {
		t.Errorf("an interrupted start: %v", err)
	}
}

// lineWriter sends what is written, a line at a time.
type lineWriter chan string

func (w lineWriter) Write(line []byte) (int, error) {
	select {
	case w <- string(line):
	default:
	}
	return len(line), nil
}

// A start ends with a sentence for what somebody must mend.
func TestStartRefusesUnusableDatabase(t *testing.T) {
	t.Parallel()
	shared := pgtest.Shared(t)
	good := shared.Schema(t)
	unsafe := shared.Schema(t)
	shared.Exec(t, "alter role "+unsafe.Role()+" set synchronous_commit = off")
	for _, tt := range []struct{ rule, url, want string }{
		{"no such database", strings.Replace(good.URL(), "/postgres?", "/nothere?", 1), `database "nothere" does not exist`},
		{"no such role", strings.Replace(good.URL(), good.Role()+"@", "stranger:pa55@", 1), `role "stranger" does not exist`},
		{"commits that are not synced", unsafe.URL(), "synchronous_commit"},
		{"a setting that does not exist", "postgres://ann:pa55@127.0.0.1:1/jobs?sslmode=never", "sslmode is invalid"},
	} {
		_, err := Open(t.Context(), onDatabase(t, tt.url), slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "cannot be used") {
			t.Errorf("%s: %v", tt.rule, err)
		}
		if err != nil && strings.Contains(err.Error(), "pa55") {
			t.Errorf("%s: the error has the password: %v", tt.rule, err)
		}
	}
	cfg := onDatabase(t, shared.Schema(t).URL())
	cfg.DatabaseMigrate = false
	if _, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "meanwhile migrate up") {
		t.Errorf("an empty database, and database_migrate is false: %v", err)
	}
}

// onDatabase returns the configuration of a server without an address.
func onDatabase(t *testing.T, database string) config.Config {
	cfg := config.Default()
	cfg.Listen, cfg.Data, cfg.Database = "", t.TempDir(), database
	return cfg
}
