package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
	"github.com/meanwhile-run/meanwhile/internal/simmodel"
)

// replicas are three servers on one database. Their queue "work" runs what the test says.
type replicas struct {
	*testing.T
	database pgtest.Database
	servers  [3]*testServer
	*work
}

// work is what the queue "work" of all servers runs.
type work struct {
	mu sync.Mutex
	// guarded by mu
	attempts map[string]*attempt // the running ones, by job
	begun    int                 // how many attempts have begun
	changed  chan struct{}       // closed, and made anew, when an attempt begins
}

// attempt is a running attempt of a job of the queue "work".
type attempt struct {
	server int // which of the servers runs it
	task   exec.Task
	ctx    context.Context
	steps  chan func(exec.Sink) error // what it does next; it ends with errEnd
}

// errEnd ends an attempt that succeeds.
var errEnd = fmt.Errorf("the end of an attempt")

// withReplicas runs a test with three servers, and again while every notice between them is lost.
// change may change their configuration and the queue "work".
func withReplicas(t *testing.T, change func(*config.Config, *config.Queue), test func(*replicas)) {
	t.Helper()
	model := httptest.NewServer(simmodel.New(simmodel.Options{}))
	t.Cleanup(model.Close)
	for _, name := range []string{"notices", "no notices"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &replicas{T: t, database: pgtest.Shared(t).Schema(t), work: &work{attempts: map[string]*attempt{}, changed: make(chan struct{})}}
			for i := range r.servers {
				r.start(i, model.URL, change, name == "notices")
			}
			test(r)
		})
	}
}

// in returns the servers for a part of the test.
func (r *replicas) in(t *testing.T) *replicas {
	part := *r
	part.T = t
	for i, s := range r.servers {
		s := *s
		s.t = t
		part.servers[i] = &s
	}
	return &part
}

// start starts one of the servers.
func (r *replicas) start(i int, model string, change func(*config.Config, *config.Queue), notices bool) {
	r.Helper()
	q := config.FuncQueue()
	q.Concurrency = 4
	r.servers[i] = serveWith(r.T, func(c *config.Config) {
		c.Database = r.database.URL()
		c.Models = []config.Model{{Name: "sim", BaseURL: model + "/v1"}}
		if change != nil {
			change(c, &q)
		}
	}, func(s *Server) error {
		if !notices {
			s.components.store.notices.Close()
			s.components.store.bus, s.components.store.notices = new(bus.Local), nil
		}
		return s.Add("work", q, workOf{r.work, i})
	})
}

// workOf is the executor of one of the servers.
type workOf struct {
	*work
	server int
}

func (workOf) Kind() string       { return "func" }
func (workOf) TakesFiles() bool   { return true }
func (workOf) Check([]byte) error { return nil }

func (w workOf) Execute(ctx context.Context, t exec.Task, out exec.Sink) error {
	a := &attempt{server: w.server, task: t, ctx: ctx, steps: make(chan func(exec.Sink) error)}
	w.mu.Lock()
	w.attempts[t.Job.ID.String()] = a
	w.begun++
	close(w.changed)
	w.changed = make(chan struct{})
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.attempts[t.Job.ID.String()] == a {
			delete(w.attempts, t.Job.ID.String())
		}
	}()
	for {
		select {
		case step := <-a.steps:
			if err := step(out); err == errEnd {
				return nil
			} else if err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// do makes an attempt do something.
func (a *attempt) do(step func(exec.Sink) error) {
	select {
	case a.steps <- step:
	case <-a.ctx.Done():
	}
}

func (a *attempt) say(text string) {
	a.do(func(out exec.Sink) error { return out.Text(text) })
}

// end makes an attempt succeed.
func (a *attempt) end() {
	a.do(func(out exec.Sink) error {
		out.Result(job.Result{ContentType: "text/plain", Body: []byte("done")})
		return errEnd
	})
}

// running waits until an attempt of a job runs.
func (r *replicas) running(id string) *attempt {
	r.Helper()
	for {
		r.mu.Lock()
		a, changed := r.attempts[id], r.changed
		r.mu.Unlock()
		if a != nil {
			return a
		}
		select {
		case <-changed:
		case <-time.After(time.Minute):
			r.Fatalf("the job %s does not run", id)
		}
	}
}

// beginnings returns how many attempts have begun.
func (w *work) beginnings() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.begun
}

// others returns the two servers that are not the given one.
func (r *replicas) others(than int) (a, b *testServer) {
	return r.servers[(than+1)%3], r.servers[(than+2)%3]
}

// submit submits a job of the queue "work" at a server.
func (r *replicas) submit(at int, fields string, headers ...string) (id string) {
	r.Helper()
	status, j := r.servers[at].call("POST", "/v1/jobs", `{"queue":"work","input":{}`+fields+`}`, headers...)
	if status != http.StatusAccepted {
		r.Fatal(status, j)
	}
	return j["id"].(string)
}

// ends waits at a server until a job has ended, and checks how.
func (s *testServer) ends(id, status string) {
	s.t.Helper()
	if code, j := s.call("GET", "/v1/jobs/"+id, "", "Prefer", "wait=60"); code != 200 || j["status"] != status {
		s.t.Errorf("the job is %d %v, want %s", code, j, status)
	}
}

// jobStatus returns the status of a job as a server answers it.
func (s *testServer) jobStatus(id string) string {
	s.t.Helper()
	_, j := s.call("GET", "/v1/jobs/"+id, "")
	status, _ := j["status"].(string)
	return status
}

// events is a stream of a job's events.
type events struct {
	t     *testing.T
	body  io.Closer
	lines *bufio.Scanner
	last  string // the id of the last event
}

// watch follows a job at a server, after an event.
func (s *testServer) watch(id, after string) *events {
	s.t.Helper()
	res := s.send("GET", "/v1/jobs/"+id+"/events", "", "Last-Event-ID", after)
	if res.StatusCode != http.StatusOK {
		s.t.Fatal(res.Status)
	}
	s.t.Cleanup(func() { _ = res.Body.Close() })
	return &events{t: s.t, body: res.Body, lines: bufio.NewScanner(res.Body)}
}

// until reads events until one of a kind comes whose data has a text, and returns its data.
func (e *events) until(kind, text string) map[string]any {
	e.t.Helper()
	name := ""
	for e.lines.Scan() {
		line := e.lines.Text()
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			e.last = id
		}
		if event, ok := strings.CutPrefix(line, "event: "); ok {
			name = event
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok && name == kind && strings.Contains(data, text) {
			var value map[string]any
			if err := json.Unmarshal([]byte(data), &value); err != nil {
				e.t.Fatalf("%s: %v", data, err)
			}
			return value
		}
	}
	e.t.Fatalf("the stream ended without %s %q: %v", kind, text, e.lines.Err())
	return nil
}
