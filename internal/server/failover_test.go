package server

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// A PostgreSQL is killed for ever and its standby takes over: until then submits are refused,
// and afterwards the same servers go on with everything that the standby has. With a synchronous
// standby that is all that was acknowledged.
func TestServersFollowFailover(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("copies a database")
	}
	for _, c := range []struct {
		name, parameter string
		synchronous     bool
	}{
		{"to an asynchronous standby", "target_session_attrs=read-write", false},
		{"to a synchronous standby", "target_session_attrs=read-write", true},
		{"with a URL that takes the read-only standby too", "target_session_attrs=any", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			primary := pgtest.Start(t, pgtest.Options{})
			database := primary.Schema(t)
			standby := primary.Standby(t)
			if c.synchronous {
				primary.Exec(t, "alter system set synchronous_standby_names = '*'")
				primary.Exec(t, "select pg_reload_conf()")
			}
			r := &inTrouble{replicas: &replicas{T: t, database: database, work: &work{attempts: map[string]*attempt{}, changed: make(chan struct{})}}}
			q := config.FuncQueue()
			q.Timeouts.Lease = 10 * time.Minute // the failover may take long on a busy machine
			for i := range 2 {
				r.servers[i] = serveWith(t, func(cfg *config.Config) {
					cfg.Database = database.URLBefore(standby, c.parameter)
				}, func(s *Server) error { return s.Add("work", q, workOf{r.work, i}) })
			}
			r.failOver(primary, standby, c.synchronous)
		})
	}
}

func (r *inTrouble) failOver(primary, standby *pgtest.Server, synchronous bool) {
	r.Helper()
	var acknowledged []string
	for n := range 40 {
		status, j := r.servers[n%2].call("POST", "/v1/jobs", fmt.Sprintf(`{"queue":"sim","delay_s":%d,"input":{}}`, 3600+n))
		if status != http.StatusAccepted {
			r.Fatal(status, j)
		}
		acknowledged = append(acknowledged, j["id"].(string))
	}
	running := r.submit(0, "")
	a := r.running(running)
	a.say("before")
	r.servers[a.server].watch(running, "").until("output", "before")
	if !synchronous {
		primary.AwaitStandby(r, standby)
	}
	primary.Kill(r)
	for i := range 2 {
		r.untilRefusedBy(i) // the standby can be read: a server learns by a write that it is none for it
	}
	if status, _ := r.servers[0].text("GET", "/healthz", ""); status != http.StatusOK {
		r.Errorf("/healthz: %d", status)
	}
	r.servers[1].untilStatus("GET", "/readyz", "", http.StatusServiceUnavailable)
	standby.Promote(r)
	for _, s := range r.servers[:2] {
		s.untilStatus("POST", "/v1/jobs", `{"queue":"sim","input":{}}`, http.StatusAccepted)
	}
	for n, id := range acknowledged {
		if status := r.servers[n%2].jobStatus(id); status != "scheduled" {
			r.Errorf("a job that was acknowledged before the failover is %q", status)
		}
	}
	stream := r.servers[1-a.server].watch(running, "")
	a.say("after")
	stream.until("output", "after")
	a.end()
	stream.until("done", "succeeded")
	if _, j := r.servers[0].call("GET", "/v1/jobs/"+running, ""); j["attempt"] != 1.0 {
		r.Errorf("the failover cost an attempt: %v", j["attempt"])
	}
}
