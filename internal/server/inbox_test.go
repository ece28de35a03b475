package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// recorder is an executor that records the jobs that it runs. It keeps them until open is closed.
type recorder struct {
	open chan struct{}
	mu   sync.Mutex
	// guarded by mu
	ran    []string          // ids, in the order of their starts
	inputs map[string]string // by id
}

func newRecorder(open bool) *recorder {
	r := &recorder{open: make(chan struct{}), inputs: map[string]string{}}
	if open {
		close(r.open)
	}
	return r
}

func (*recorder) Kind() string       { return "func" }
func (*recorder) TakesFiles() bool   { return false }
func (*recorder) Check([]byte) error { return nil }

func (r *recorder) Execute(ctx context.Context, t exec.Task, out exec.Sink) error {
	r.mu.Lock()
	id := t.Job.ID.String()
	r.ran, r.inputs[id] = append(r.ran, id), string(t.Input)
	r.mu.Unlock()
	select {
	case <-r.open:
		out.Result(job.Result{ContentType: "text/plain", Body: []byte("done")})
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// order returns the ids of the jobs in the order of their starts.
func (r *recorder) order() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ran)
}

// inboxTest is a database with an inbox.
type inboxTest struct {
	*testing.T
	db   pgtest.Database
	conn *pgx.Conn
}

func newInboxTest(t *testing.T) *inboxTest {
	db := pgtest.Shared(t).Schema(t)
	return &inboxTest{T: t, db: db, conn: db.Connect(t)}
}

// serve starts a server with queues that an executor runs.
func (x *inboxTest) serve(e exec.Executor, change func(*Server), queues map[string]func(*config.Queue)) *testServer {
	x.Helper()
	return serveWith(x.T, func(c *config.Config) { c.Database = x.db.URL() }, func(s *Server) error {
		if change != nil {
			change(s)
		}
		var errs []error
		for name, set := range queues {
			q := config.FuncQueue()
			if set != nil {
				set(&q)
			}
			errs = append(errs, s.Add(name, q, e))
		}
		return errors.Join(errs...)
	})
}

// insert inserts a row as another program does.
func (x *inboxTest) insert(columns string, values ...any) (id string) {
	x.Helper()
	if err := insertInto(x.Context(), x.conn, columns, values...).Scan(&id); err != nil {
		x.Fatal(err)
	}
	return id
}

func insertInto(ctx context.Context, db interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}, columns string, values ...any) pgx.Row {
	var places []string
	for i := range values {
		places = append(places, fmt.Sprint("$", i+1))
	}
	return db.QueryRow(ctx, "insert into inbox ("+columns+") values ("+strings.Join(places, ", ")+") returning id", values...)
}

// until reads a value until it is one that a test wants.
func until[T comparable](t *testing.T, want T, read func() T) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); ; {
		got := read()
		if got == want {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it is %v, want %v", got, want)
		}
	}
}

// rows counts the rows of a table.
func (x *inboxTest) rows(table string) (n int) {
	x.Helper()
	if err := x.conn.QueryRow(x.Context(), "select count(*) from "+table).Scan(&n); err != nil {
		x.Fatal(err)
	}
	return n
}

// A job of the inbox exists exactly when the transaction that inserted it is committed.
func TestInboxFollowsTheTransactionOfItsCaller(t *testing.T) {
	t.Parallel()
	pgtest.InShort(t)
	x := newInboxTest(t)
	done := newRecorder(true)
	s := x.serve(done, nil, map[string]func(*config.Queue){"work": nil})
	insert := func(end func(pgx.Tx) error) (id string) {
		tx, err := x.conn.Begin(t.Context())
		if err == nil {
			err = insertInto(t.Context(), tx, "queue, body", "work", `{"input":{"n":1}}`).Scan(&id)
		}
		if err := errors.Join(err, end(tx)); err != nil {
			t.Fatal(err)
		}
		return id
	}
	rolledBack := insert(func(tx pgx.Tx) error { return tx.Rollback(t.Context()) })
	committed := insert(func(tx pgx.Tx) error { return tx.Commit(t.Context()) })
	until(t, 0, func() int { return x.rows("inbox") })
	s.ends(committed, "succeeded")
	if status, j := s.call("GET", "/v1/jobs/"+rolledBack, ""); status != 404 {
		t.Errorf("the job of a transaction that was rolled back: %d %v", status, j)
	}
	if ran := done.order(); len(ran) != 1 || ran[0] != committed {
		t.Errorf("%v ran", ran)
	}
}

func TestInboxTakesWhatASubmitTakes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a database")
	}
	x := newInboxTest(t)
	done := newRecorder(true)
	s := x.serve(done, nil, map[string]func(*config.Queue){"work": nil})
	const input = `{"big":12345678901234567890.10,"same":1e9,"z":0,"a":[null]}`
	id := x.insert("usr, queue, body", "ann", "work", `{"input":`+input+`,"key":"k","priority":2,"metadata":{"order":"7"},"max_attempts":9,"timeouts":{"run_soft_s":70},"delay_s":0.01}`)
	until(t, 0, func() int { return x.rows("inbox") })
	status, j := s.call("GET", "/v1/jobs/"+id, "", "X-User-ID", "ann", "Prefer", "wait=60")
	if status != 200 || j["status"] != "succeeded" || j["key"] != "k" || j["priority"] != 2.0 || j["max_attempts"] != 9.0 ||
		j["metadata"].(map[string]any)["order"] != "7" {
		t.Errorf("%d %v", status, j)
	}
	if got := done.inputs[id]; got != input {
		t.Errorf("the input is %s, not %s", got, input)
	}
	if status, _ := s.call("GET", "/v1/jobs/"+id, "", "X-User-ID", "bob"); status != 404 {
		t.Errorf("another user sees the job: %d", status)
	}
}

// Each row becomes exactly one job, although processes die between the submit and the delete of a
// batch, and connections are cut.
func TestInboxMakesEachJobOnce(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a database")
	}
	x := newInboxTest(t)
	done := newRecorder(true)
	var batches, cut atomic.Int64
	for range 2 {
		x.serve(done, func(s *Server) {
			s.components.afterInboxSubmit = func() error {
				if batches.Add(1)%3 != 0 {
					cut.Add(1)
					return errors.New("the process dies here")
				}
				return nil
			}
		}, map[string]func(*config.Queue){"a": nil, "b": nil})
	}
	const rows, kills = 400, 3
	want := map[string]int{}
	for i := range rows {
		if i%(rows/kills) == rows/kills/2 {
			x.db.KillBackends(t)
			x.conn = x.db.Connect(t)
		}
		want[x.insert("queue, body", string("ab"[i%2]), fmt.Sprintf(`{"input":%d}`, i))] = 1
	}
	until(t, 0, func() int { return x.rows("inbox") })
	until(t, rows, func() int { return len(done.order()) })
	ran := map[string]int{}
	for _, id := range done.order() {
		ran[id]++
	}
	for id := range want {
		if ran[id] != 1 {
			t.Errorf("%s ran %d times", id, ran[id])
		}
	}
	until(t, rows, func() int { return x.rows("ended") })
	if n := x.rows("inbox_refused"); n != 0 || cut.Load() == 0 {
		t.Errorf("%d rows were refused, %d batches were cut", n, cut.Load())
	}
}

// A row over a limit waits, in its order, and holds back no other queue and no other key.
func TestInboxWaitsForLimits(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a database")
	}
	x := newInboxTest(t)
	slow, done := newRecorder(false), newRecorder(true)
	s := serveWith(t, func(c *config.Config) { c.Database = x.db.URL() }, func(s *Server) error {
		full, keyed := config.FuncQueue(), config.FuncQueue()
		full.Concurrency, full.MaxDepth = 1, 1
		keyed.Concurrency, keyed.PerKey.Running, keyed.PerKey.Waiting = 4, 1, 1
		return errors.Join(s.Add("full", full, slow), s.Add("keyed", keyed, slow), s.Add("free", config.FuncQueue(), done))
	})
	var full, keyed []string
	for range 6 {
		full = append(full, x.insert("queue, body", "full", `{"input":1}`))
		keyed = append(keyed, x.insert("queue, body", "keyed", `{"input":1,"key":"a"}`))
	}
	other := x.insert("queue, body", "keyed", `{"input":1,"key":"b"}`)
	free := x.insert("queue, body", "free", `{"input":1}`)
	until(t, true, func() bool { return slices.Contains(done.order(), free) })
	until(t, true, func() bool { return slices.Contains(slow.order(), other) })
	const n = 8 // of each list one job runs and one waits in the queue
	until(t, n, func() int { return x.rows("inbox") })
	_, metrics := s.text("GET", "/metrics", "")
	if !strings.Contains(metrics, fmt.Sprintf("meanwhile_inbox_rows %d\n", n)) || strings.Contains(metrics, "meanwhile_inbox_oldest_seconds 0\n") {
		t.Errorf("%d rows wait, and the metrics say %s", n, metrics[strings.Index(metrics, "meanwhile_inbox"):][:400])
	}
	close(slow.open)
	until(t, 0, func() int { return x.rows("inbox") })
	for _, id := range slices.Concat(full, keyed) {
		s.ends(id, "succeeded")
	}
	order := slow.order()
	for _, list := range [][]string{full, keyed} {
		if got := slices.DeleteFunc(slices.Clone(order), func(id string) bool { return !slices.Contains(list, id) }); !slices.Equal(got, list) {
			t.Errorf("they ran in the order %v, not %v", got, list)
		}
	}
	if n := x.rows("inbox_refused"); n != 0 {
		t.Errorf("%d rows were refused", n)
	}
}

func TestInboxRefusesWhatIsNoJob(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a database")
	}
	x := newInboxTest(t)
	s := x.serve(newRecorder(true), nil, map[string]func(*config.Queue){"work": nil})
	_, j := s.call("POST", "/v1/jobs", `{"queue":"work","input":1}`, "Prefer", "wait=60")
	_, deleted := s.call("POST", "/v1/jobs", `{"queue":"work","input":1}`, "Prefer", "wait=60")
	long := strings.Repeat("x", job.MaxInput)
	cases := []struct {
		columns string
		values  []any
		code    string
		reason  string
	}{
		{"queue, body", []any{"work", `{}`}, "invalid_request", "input is missing"},
		{"queue, body", []any{"work", `3`}, "invalid_request", "must be an object"},
		{"queue, body", []any{"work", `null`}, "invalid_request", "not null"},
		{"queue, body", []any{"work", `{"input":1,"prio":3}`}, "invalid_request", `no field "prio"`},
		{"queue, body", []any{"work", `{"input":1,"input":2}`}, "invalid_request", "twice"},
		{"queue, body", []any{"work", `{"input":1,"queue":"free"}`}, "invalid_request", "column queue"},
		{"queue, body", []any{"work", `{"input":1,"idempotency_key":"k"}`}, "invalid_request", "column idempotency"},
		{"queue, body", []any{"work", `{"input":1,"priority":10}`}, "invalid_request", "/priority"},
		{"queue, body", []any{"work", `{"input":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`}, "invalid_request", "nested"},
		{"queue, body", []any{"work", `{"input":"` + long + `"}`}, "too_large", "the queue \"work\" takes"},
		{"queue, body", []any{"work", `{"input":"` + long + long + `"}`}, "too_large", "the body has more than"},
		{"usr, queue, body", []any{"", "work", `{"input":1}`}, "invalid_request", "usr"},
		{"usr, queue, body", []any{"a\nb", "work", `{"input":1}`}, "invalid_request", "usr"},
		{"queue, body, idempotency", []any{"work", `{"input":1}`, "ä"}, "invalid_request", "ASCII"},
		{"id, queue, body", []any{j["id"], "work", `{"input":1}`}, "conflict", "belongs to another job"},
		{"id, queue, body, idempotency", []any{deleted["id"], "work", `{"input":1}`, "mine"}, "conflict", "belongs to another job"},
	}
	var ids []string
	for _, c := range cases {
		ids = append(ids, x.insert(c.columns, c.values...))
	}
	until(t, 0, func() int { return x.rows("inbox") })
	for i, c := range cases {
		var code, reason string
		err := x.conn.QueryRow(t.Context(), "select code, reason from inbox_refused where id = $1", ids[i]).Scan(&code, &reason)
		if err != nil || code != c.code || !strings.Contains(reason, c.reason) {
			t.Errorf("%.100v: %s, %s, %v; want %s, …%s…", c.values, code, reason, err, c.code, c.reason)
		}
	}
	if n, read := x.rows("inbox_refused where body is not null"), len(cases)-1; n != read {
		t.Errorf("%d bodies are kept, want %d", n, read)
	}
	for _, body := range []string{`{"input":"\u0000"}`, `{"input":`, `{"input":"\ud800"}`} {
		if _, err := x.conn.Exec(t.Context(), "insert into inbox (queue, body) values ('work', $1)", body); err == nil {
			t.Errorf("the table takes %s", body)
		}
	}
	for _, id := range []string{"job_1", "job_06bn7v8dk4zk9cqxpa7bxzq7y1", strings.ToUpper(j["id"].(string))} {
		if _, err := x.conn.Exec(t.Context(), "insert into inbox (id, queue, body) values ($1, 'work', '{}')", id); err == nil {
			t.Errorf("the table takes the id %s", id)
		}
	}
}

func TestInboxMakesOneJobOfAnIdempotencyKey(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a database")
	}
	x := newInboxTest(t)
	done := newRecorder(true)
	x.serve(done, nil, map[string]func(*config.Queue){"work": nil})
	insert := func(user, body string) string {
		return x.insert("usr, queue, body, idempotency", user, "work", body, "message-7")
	}
	first := insert("ann", `{"input":1}`)
	second := insert("ann", `{"input":1}`)
	different := insert("ann", `{"input":2}`)
	bobs := insert("bob", `{"input":2}`)
	until(t, 0, func() int { return x.rows("inbox") })
	until(t, 2, func() int { return len(done.order()) })
	if ran := done.order(); !slices.Contains(ran, first) || !slices.Contains(ran, bobs) {
		t.Errorf("%v ran, want %s and %s", ran, first, bobs)
	}
	refused := map[string]string{}
	rows, err := x.conn.Query(t.Context(), "select id, code || ' ' || coalesce(job, '') from inbox_refused")
	var id, outcome string
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&id, &outcome}, func() error { refused[id] = outcome; return nil })
	}
	if err != nil || len(refused) != 2 || refused[second] != "existing "+first || refused[different] != "idempotency_mismatch " {
		t.Errorf("%v, %v", refused, err)
	}
}

// A row waits for a server that has its queue.
func TestInboxLeavesRowsOfOtherQueues(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a database")
	}
	x := newInboxTest(t)
	done := newRecorder(true)
	x.serve(done, nil, map[string]func(*config.Queue){"work": nil})
	later := x.insert("queue, body", "later", `{"input":1}`)
	until(t, 1, func() int {
		x.insert("queue, body", "work", `{"input":1}`)
		return min(1, len(done.order()))
	})
	if n := x.rows("inbox where queue = 'later'"); n != 1 {
		t.Fatalf("%d rows wait for the queue", n)
	}
	s := x.serve(done, nil, map[string]func(*config.Queue){"later": nil})
	until(t, true, func() bool { return slices.Contains(done.order(), later) })
	s.ends(later, "succeeded")
}

// Another program needs no more than the right to insert.
func TestInboxNeedsFewRights(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a database")
	}
	x := newInboxTest(t)
	done := newRecorder(true)
	x.serve(done, nil, map[string]func(*config.Queue){"work": nil})
	schema, role := x.db.Role(), x.db.Role()+"_web"
	pgtest.Shared(t).Exec(t, fmt.Sprintf("create role %[1]s; grant %[1]s to %[2]s", role, schema))
	t.Cleanup(func() { pgtest.Shared(t).Exec(t, fmt.Sprintf("drop owned by %[1]s; drop role %[1]s", role)) })
	for _, sql := range []string{
		"grant usage on schema " + schema + " to " + role,
		"grant insert (queue, body, usr, idempotency), select (id) on inbox to " + role,
		"set role " + role, "set search_path = pg_catalog",
	} {
		if _, err := x.conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	var id string
	if err := x.conn.QueryRow(t.Context(), "insert into "+schema+`.inbox (queue, body) values ('work', '{"input":1}') returning id`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	until(t, id, func() string { return strings.Join(done.order(), " ") })
	for _, sql := range []string{
		"insert into %s.inbox (id, queue, body) values ('" + id + `', 'work', '{"input":1}')`,
		`insert into %s.inbox (tenant, queue, body) values ('t', 'work', '{"input":1}')`,
		"select body from %s.inbox", "delete from %s.inbox", "select 1 from %s.jobs", "select 1 from %s.inbox_refused",
	} {
		if _, err := x.conn.Exec(t.Context(), fmt.Sprintf(sql, schema)); err == nil {
			t.Errorf("the role may %s", sql)
		}
	}
}

// The statements of docs/inbox.md work. TestInboxNeedsFewRights has the one about rights.
func TestStatementsOfTheInboxPage(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a database")
	}
	x := newInboxTest(t)
	done := newRecorder(true)
	x.serve(done, nil, map[string]func(*config.Queue){"mail": nil})
	page, err := os.ReadFile("../../docs/inbox.md")
	if err == nil {
		_, err = x.conn.Exec(t.Context(), `create table orders (item text); insert into inbox (queue, body) values ('mial', '{"input":1}'), ('mail', '{}')`)
	}
	if err != nil {
		t.Fatal(err)
	}
	until(t, 1, func() int { return x.rows("inbox_refused") })
	if _, err := x.conn.Exec(t.Context(), "update inbox_refused set id = 'job_…'"); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, block := range regexp.MustCompile("(?ms)^```sql\n(.*?)^```").FindAllStringSubmatch(string(page), -1) {
		if strings.Contains(block[1], "create role") {
			continue
		}
		ran++
		if _, err := x.conn.Exec(t.Context(), block[1]); err != nil {
			t.Errorf("%s: %v", block[1], err)
		}
	}
	until(t, 0, func() int { return x.rows("inbox") })
	until(t, ran, func() int { return len(done.order()) })
	if ran != 3 {
		t.Errorf("%d statements ran", ran)
	}
}
