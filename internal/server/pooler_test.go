package server

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// Behind a pooler that gives every transaction another connection, three servers work as without
// it. It passes no notices on.
func TestServersBehindTransactionPooler(t *testing.T) {
	t.Parallel()
	database := pgtest.Shared(t).Database(t)
	pooled := database.Pooler(t)
	r := &replicas{T: t, database: database, work: &work{attempts: map[string]*attempt{}, changed: make(chan struct{})}}
	for i := range r.servers {
		q := config.FuncQueue()
		q.MaxRunning = 2
		r.servers[i] = serveWith(t, func(c *config.Config) {
			c.Database, c.DatabasePooler = pooled, true
		}, func(s *Server) error { return s.Add("work", q, workOf{r.work, i}) })
	}
	var ids []string
	for n := range 60 {
		status, j := r.servers[n%3].call("POST", "/v1/jobs", `{"queue":"sim","input":{"tokens":3}}`, "Idempotency-Key", fmt.Sprint(n))
		if status != http.StatusAccepted {
			t.Fatal(status, j)
		}
		ids = append(ids, j["id"].(string))
	}
	for n, id := range ids {
		r.servers[(n+1)%3].ends(id, "succeeded")
	}
	first, second, third := r.submit(0, ""), r.submit(1, ""), r.submit(2, "")
	a, b := r.running(first), r.running(second)
	stream := r.servers[(a.server+1)%3].watch(first, "")
	a.say("hello")
	stream.until("output", "hello")
	if status := r.servers[0].jobStatus(third); status != "queued" {
		t.Errorf("the third job is %s, and two may run", status)
	}
	if status, _ := r.servers[(b.server+1)%3].text("POST", "/v1/jobs/"+second+"/cancel", ""); status != http.StatusOK && status != http.StatusAccepted {
		t.Errorf("cancel: %d", status)
	}
	<-b.ctx.Done()
	a.end()
	stream.until("done", "succeeded")
	r.running(third).end()
	r.servers[0].ends(third, "succeeded")
	r.servers[0].ends(second, "cancelled")
}
