package server

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/cutproxy"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// inTrouble are servers that each reach their database through a proxy.
type inTrouble struct {
	*replicas
	proxies [3]*cutproxy.Proxy
}

// newInTrouble starts a number of servers on one database.
func newInTrouble(t *testing.T, number int, change func(*config.Queue)) *inTrouble {
	t.Helper()
	r := &inTrouble{replicas: &replicas{T: t, database: pgtest.Shared(t).Schema(t), work: &work{attempts: map[string]*attempt{}, changed: make(chan struct{})}}}
	for i := range number {
		r.proxies[i] = cutproxy.New(t)
		r.proxies[i].SetTarget(pgtest.Shared(t).Socket())
		q := config.FuncQueue()
		if change != nil {
			change(&q)
		}
		r.servers[i] = serveWith(t, func(c *config.Config) {
			c.Database = r.database.NetworkURL(r.proxies[i].Addr())
		}, func(s *Server) error { return s.Add("work", q, workOf{r.work, i}) })
	}
	return r
}

// exec runs statements as the administrator of the database.
func (r *inTrouble) exec(sql string) {
	r.Helper()
	pgtest.Shared(r.T).Exec(r.T, strings.ReplaceAll(sql, "ROLE", r.database.Role()))
}

// lock holds what a statement locks, until the returned function is called.
func (r *inTrouble) lock(sql string) (unlock func()) {
	r.Helper()
	conn, err := pgx.Connect(r.Context(), pgtest.Shared(r.T).URL())
	if err == nil {
		_, err = conn.Exec(r.Context(), "begin; "+strings.ReplaceAll(sql, "ROLE", r.database.Role()))
	}
	if err != nil {
		r.Fatal(err)
	}
	return func() { _ = conn.Close(r.Context()) }
}

// failBatches lets every batch fail with an error of the database.
func (r *inTrouble) failBatches(code string) (end func()) {
	r.Helper()
	r.exec(fmt.Sprintf(`create or replace function ROLE.fail() returns trigger language plpgsql as $$ begin raise exception 'trouble' using errcode = '%s'; end $$;
		create trigger trouble before insert on ROLE.applied for each row execute function ROLE.fail()`, code))
	return func() { r.exec("drop trigger trouble on ROLE.applied") }
}

// restrict sets something for the role, in new connections, until the returned function is called.
func (r *inTrouble) restrict(sql, back string) (end func()) {
	r.Helper()
	r.exec(sql)
	r.database.KillBackends(r.T)
	return func() { r.exec(back) }
}

// Whatever keeps a server from its database, submits are refused meanwhile, running work goes on,
// and afterwards everything works without a restart.
func TestServerOutlivesTrouble(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes long")
	}
	for _, c := range []struct {
		trouble string
		slow    bool
		begin   func(r *inTrouble) (end func())
	}{
		{"the network is gone", false, func(r *inTrouble) func() {
			r.proxies[0].SetTarget("")
			r.proxies[0].Cut()
			return func() { r.proxies[0].SetTarget(pgtest.Shared(r.T).Socket()) }
		}},
		{"the network loses everything", false, func(r *inTrouble) func() {
			r.proxies[0].Hang()
			return r.proxies[0].Resume
		}},
		{"the network loses everything, and the connections for ever", true, func(r *inTrouble) func() {
			r.proxies[0].Hang()
			return func() { r.proxies[0].Abandon() }
		}},
		{"no connection is left", false, func(r *inTrouble) func() {
			return r.restrict("alter role ROLE connection limit 0", "alter role ROLE connection limit -1")
		}},
		{"the database can only be read", false, func(r *inTrouble) func() {
			return r.restrict("alter role ROLE set default_transaction_read_only = on", "alter role ROLE reset default_transaction_read_only")
		}},
		{"commits are not synced", false, func(r *inTrouble) func() {
			return r.restrict("alter role ROLE set synchronous_commit = off", "alter role ROLE reset synchronous_commit")
		}},
		{"somebody holds a table", false, func(r *inTrouble) func() { return r.lock("lock table ROLE.jobs in access exclusive mode") }},
		{"somebody holds the lock of all moves", false, func(r *inTrouble) func() {
			return r.lock("select pg_advisory_xact_lock(1836543350, 'ROLE.moves'::regclass::oid::bigint::bit(32)::int)")
		}},
		{"a statement takes too long", false, func(r *inTrouble) func() { return r.failBatches("57014") }},
		{"the disk of the database is full", false, func(r *inTrouble) func() { return r.failBatches("53100") }},
		{"the disk of the database fails", false, func(r *inTrouble) func() { return r.failBatches("58030") }},
	} {
		t.Run(c.trouble, func(t *testing.T) {
			if testing.Short() && c.slow {
				t.Skip("waits until a connection is given up")
			}
			t.Parallel()
			r := newInTrouble(t, 1, nil)
			r.outlives(func() func() { return c.begin(r) })
		})
	}
}

// outlives checks what holds during a trouble and after it.
func (r *inTrouble) outlives(begin func() (end func())) {
	r.Helper()
	s := r.servers[0]
	id, later := r.submit(0, ""), r.submit(0, `,"delay_s":0.1`)
	a := r.running(id)
	stream := s.watch(id, "")
	end := begin()
	r.untilRefused()
	if status, _ := s.text("GET", "/healthz", ""); status != http.StatusOK {
		r.Errorf("/healthz: %d", status)
	}
	if a.ctx.Err() != nil {
		r.Error("the work was stopped while its lease holds")
	}
	end()
	a.say("still here")
	stream.until("output", "still here")
	a.end()
	stream.until("done", "succeeded")
	s.untilStatus("GET", "/readyz", "", http.StatusOK)
	s.untilStatus("POST", "/v1/jobs", `{"queue":"sim","input":{}}`, http.StatusAccepted)
	r.running(later).end()
	s.ends(later, "succeeded")
	if _, j := s.call("GET", "/v1/jobs/"+id, ""); j["attempt"] != 1.0 {
		r.Errorf("the trouble cost an attempt: %v", j["attempt"])
	}
}

// untilRefused submits jobs until one is refused. A job whose commit was under way when the trouble
// began is answered only when its outcome is known, so each client waits for a moment only.
func (r *inTrouble) untilRefused() {
	r.Helper()
	r.untilRefusedBy(0)
}

func (r *inTrouble) untilRefusedBy(server int) {
	r.Helper()
	client := &http.Client{Timeout: time.Second}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		res, err := client.Post(r.servers[server].URL()+"/v1/jobs", "application/json", strings.NewReader(`{"queue":"sim","input":{}}`))
		if err != nil {
			continue
		}
		_ = res.Body.Close()
		if res.StatusCode == http.StatusServiceUnavailable {
			if res.Header.Get("Retry-After") == "" {
				r.Error("the refusal of a submit is without Retry-After")
			}
			return
		}
	}
	r.Fatal("no submit was refused")
}

// While backends are killed, a submit is stored or refused, and what was acknowledged is there.
func TestAcknowledgedJobsOutliveKilledBackends(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes long")
	}
	r := newInTrouble(t, 2, nil)
	stop := make(chan struct{})
	var submitters sync.WaitGroup
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	for i := range 8 {
		submitters.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				status, j := r.servers[i%2].call("POST", "/v1/jobs", `{"queue":"sim","input":{}}`, "Idempotency-Key", fmt.Sprintf("%d-%d", i, n))
				switch status {
				case http.StatusAccepted:
					mu.Lock()
					acknowledged[j["id"].(string)] = true
					mu.Unlock()
				case http.StatusServiceUnavailable:
				default:
					t.Errorf("%d %v", status, j)
				}
			}
		})
	}
	for range 10 {
		r.database.KillBackends(t)
	}
	close(stop)
	submitters.Wait()
	for id := range acknowledged {
		r.servers[0].untilStatus("GET", "/v1/jobs/"+id, "", http.StatusOK)
		r.servers[1].ends(id, "succeeded")
	}
	t.Logf("%d jobs", len(acknowledged))
}

// shortLease makes the leases of a queue short.
func shortLease(q *config.Queue) { q.Timeouts.Lease = 2 * time.Second }

// Work whose lease cannot be renewed stops before the lease ends and another server runs the job.
func TestWorkStopsBeforeItsLeaseEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for leases")
	}
	t.Parallel()
	r := newInTrouble(t, 2, shortLease)
	id := r.submit(0, "")
	first := r.running(id)
	other := 1 - first.server
	// What the first server cannot know while it is away: it must not take this lease later.
	held := r.submit(other, "")
	kept := r.running(held)
	for kept.server != other {
		kept.end()
		held = r.submit(other, "")
		kept = r.running(held)
	}
	r.proxies[first.server].Hang()
	<-first.ctx.Done()
	if a := r.current(id); a != nil && a != first {
		t.Error("the other server had the job before the first one had stopped")
	}
	second := r.next(id, first)
	if second.server != other {
		t.Fatal("the job runs at a server that is cut off")
	}
	<-time.After(5 * time.Second) // more than two leases: the server is away for long
	r.proxies[first.server].Resume()
	r.servers[first.server].untilStatus("GET", "/readyz", "", http.StatusOK)
	r.servers[first.server].untilStatus("POST", "/v1/jobs", `{"queue":"sim","input":{}}`, http.StatusAccepted)
	<-time.After(3 * time.Second) // the sweep of the server that is back has run
	if second.ctx.Err() != nil || kept.ctx.Err() != nil {
		t.Error("the server that is back has taken a lease of the other one")
	}
	second.end()
	kept.end()
	r.servers[first.server].ends(id, "succeeded")
	r.servers[first.server].ends(held, "succeeded")
	if _, j := r.servers[first.server].call("GET", "/v1/jobs/"+held, ""); j["attempt"] != 1.0 {
		t.Errorf("attempt %v", j["attempt"])
	}
}

// current returns the running attempt of a job; nil if there is none.
func (w *work) current(id string) *attempt {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.attempts[id]
}

// next waits for an attempt of a job after another one.
func (r *inTrouble) next(id string, after *attempt) *attempt {
	r.Helper()
	for {
		r.mu.Lock()
		a, changed := r.attempts[id], r.changed
		r.mu.Unlock()
		if a != nil && a != after {
			return a
		}
		select {
		case <-changed:
		case <-time.After(time.Minute):
			r.Fatal("the job does not run again")
		}
	}
}

// Whichever of its connections a start loses, it goes on with a new one.
func TestStartOutlivesLostConnections(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes long")
	}
	database := pgtest.Shared(t).Schema(t)
	for lost := range int64(8) {
		p := cutproxy.New(t)
		p.SetTarget(pgtest.Shared(t).Socket())
		var made atomic.Int64
		p.SetReply(func(to io.Writer, from io.Reader) error {
			// Pools make connections that they do not need yet, and one loss may be of those.
			if n := made.Add(1); lost <= n && n < lost+4 {
				return io.ErrUnexpectedEOF
			}
			_, err := io.Copy(to, from)
			return err
		})
		s := serveOn(t, database.NetworkURL(p.Addr()), nil)
		s.untilStatus("POST", "/v1/jobs", `{"queue":"sim","input":{}}`, http.StatusAccepted)
		s.quit()
	}
}
