package pgbus_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/bus/pgbus"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// received collects the notices of a member.
type received struct {
	mu     sync.Mutex
	jobs   map[job.ID]int
	queues map[string]int
	more   chan struct{}
}

func newReceived() *received {
	return &received{jobs: map[job.ID]int{}, queues: map[string]int{}, more: make(chan struct{}, 1)}
}

func (r *received) wake(n bus.Notice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range n.Jobs {
		r.jobs[id]++
	}
	for _, name := range n.Queues {
		r.queues[name]++
	}
	select {
	case r.more <- struct{}{}:
	default:
	}
}

// wait waits until ok holds, and calls again in between.
func (r *received) wait(t *testing.T, what string, ok func() bool, again func()) {
	t.Helper()
	deadline := time.After(patience)
	for {
		r.mu.Lock()
		done := ok()
		r.mu.Unlock()
		if done {
			return
		}
		if again != nil {
			again()
		}
		select {
		case <-r.more:
		case <-time.After(50 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%s: after %s the jobs are %v and the queues %v", what, patience, r.jobs, r.queues)
		}
	}
}

func open(t *testing.T, url string, o pgbus.Options) *pgbus.Bus {
	t.Helper()
	b, err := pgbus.Open(url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// awaitOpen waits until a ping came through.
func awaitOpen(t *testing.T, buses ...*pgbus.Bus) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for _, b := range buses {
		for tick := time.NewTicker(5 * time.Millisecond); b.Lag() < 0; <-tick.C {
			if time.Now().After(deadline) {
				t.Fatal("no ping came through the bus")
			}
		}
	}
}

var quick = pgbus.Options{Ping: 200 * time.Millisecond}

// A notice of one process reaches the others, once, and not its sender.
func TestNoticeReachesOtherProcesses(t *testing.T) {
	t.Parallel()
	pgtest.InShort(t)
	db := pgtest.Shared(t).Schema(t)
	a, b := open(t, db.URL(), quick), open(t, db.URL(), quick)
	at := [3]*received{newReceived(), newReceived(), newReceived()}
	sender := a.Join(at[0].wake)
	a.Join(at[1].wake) // another member of the same process
	b.Join(at[2].wake)
	awaitOpen(t, a, b)
	ids := make([]job.ID, 5000)
	for i := range ids {
		ids[i] = job.NewID()
		sender.Publish(bus.Notice{Jobs: ids[i : i+1], Queues: []string{fmt.Sprint("queue ", i%7)}})
	}
	for _, r := range at[1:] {
		r.wait(t, "the notices of another member", func() bool { return len(r.jobs) == len(ids) && len(r.queues) == 7 }, nil)
	}
	if len(at[0].jobs) > 0 {
		t.Error("the sender got its own notices")
	}
}

// Processes on two schemas of one database do not hear each other.
func TestInstallationsAreApart(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	ours, theirs := server.Schema(t), server.Schema(t)
	a, b, other := open(t, ours.URL(), quick), open(t, ours.URL(), quick), open(t, theirs.URL(), quick)
	heard, foreign := newReceived(), newReceived()
	b.Join(heard.wake)
	other.Join(foreign.wake)
	awaitOpen(t, a, b, other)
	mine := a.Join(func(bus.Notice) {})
	mine.Publish(bus.Notice{Queues: []string{"ours"}})
	heard.wait(t, "a notice", func() bool { return heard.queues["ours"] == 1 }, nil)
	// A notice of their own comes after everything that was sent before it.
	last := open(t, theirs.URL(), quick)
	awaitOpen(t, last)
	last.Join(func(bus.Notice) {}).Publish(bus.Notice{Queues: []string{"theirs"}})
	foreign.wait(t, "a notice", func() bool { return foreign.queues["theirs"] == 1 }, nil)
	if len(foreign.queues) != 1 {
		t.Errorf("another schema heard %v", foreign.queues)
	}
}

// What Postgres or a network does to the connections costs notices, not the bus.
func TestBusComesBackAfterLostConnections(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t).Schema(t)
	a, b := open(t, db.URL(), quick), open(t, db.URL(), quick)
	sender, heard := a.Join(func(bus.Notice) {}), newReceived()
	b.Join(heard.wake)
	awaitOpen(t, a, b)
	for round := range 3 {
		db.KillBackends(t)
		name := fmt.Sprint("after kill ", round)
		heard.wait(t, "a notice after the connections were killed", func() bool { return heard.queues[name] > 0 },
			func() { sender.Publish(bus.Notice{Queues: []string{name}}) })
	}
}

// The bus works from the moment at which its database can be reached.
func TestBusWaitsForDatabase(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, pgtest.Options{})
	db := server.Database(t)
	server.Stop(t)
	a, b := open(t, db.URL(), quick), open(t, db.URL(), quick)
	sender, heard := a.Join(func(bus.Notice) {}), newReceived()
	b.Join(heard.wake)
	server.Restart(t)
	heard.wait(t, "a notice after the start of the database", func() bool { return heard.queues["q"] > 0 },
		func() { sender.Publish(bus.Notice{Queues: []string{"q"}}) })
}

// Text that is no message of ours does not disturb the bus.
func TestForeignTextIsIgnored(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t).Schema(t)
	a, b := open(t, db.URL(), quick), open(t, db.URL(), quick)
	sender, heard := a.Join(func(bus.Notice) {}), newReceived()
	b.Join(heard.wake)
	awaitOpen(t, a, b)
	conn := db.Connect(t)
	var channel string
	if err := conn.QueryRow(t.Context(), "select 'meanwhile_' || substr(encode(sha256(convert_to(current_schema(), 'UTF8')), 'hex'), 1, 20)").Scan(&channel); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "x", "bg", strings.Repeat("A", 7999)} {
		if _, err := conn.Exec(t.Context(), "select pg_notify($1, $2)", channel, text); err != nil {
			t.Fatal(err)
		}
	}
	sender.Publish(bus.Notice{Queues: []string{"q"}})
	heard.wait(t, "a notice", func() bool { return heard.queues["q"] == 1 }, nil)
}

// logged has the lines of a log.
type logged struct{ lines chan string }

func (l *logged) Write(line []byte) (int, error) {
	select {
	case l.lines <- string(line):
	default:
	}
	return len(line), nil
}

// Where notices get lost although the connections live, as behind a pooler in transaction mode,
// the log says so, once.
func TestPoolerThatLosesNoticesIsLogged(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, pgtest.Options{TCP: true})
	log := &logged{lines: make(chan string, 100)}
	o := pgbus.Options{Ping: 50 * time.Millisecond, Log: slog.New(slog.NewTextHandler(log, nil))}
	a := open(t, server.Database(t).NetworkURL(withoutNotices(t, server.Addr())), o)
	select {
	case line := <-log.lines:
		if !strings.Contains(line, "pooler") {
			t.Errorf("the log says: %s", line)
		}
	case <-time.After(patience):
		t.Fatal("nothing was logged")
	}
	if lag := a.Lag(); lag >= 0 {
		t.Errorf("the lag is %s although no ping came back", lag)
	}
	select {
	case line := <-log.lines:
		t.Errorf("the log also says: %s", line)
	case <-time.After(6 * o.Ping):
	}
}

// withoutNotices returns the address of a proxy that drops the notifications of the server.
func withoutNotices(t *testing.T, server string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", server)
			if err != nil {
				_ = client.Close()
				return
			}
			go func() { _, _ = io.Copy(upstream, client); _ = upstream.Close() }()
			go func() { dropNotices(client, upstream); _ = client.Close() }()
		}
	}()
	return l.Addr().String()
}

// dropNotices copies the messages of the server: a type, a length of four bytes that counts
// itself, and the rest.
func dropNotices(client io.Writer, server io.Reader) {
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(server, head); err != nil {
			return
		}
		rest := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(server, rest); err != nil {
			return
		}
		if head[0] == 'A' { // NotificationResponse
			continue
		}
		if _, err := client.Write(append(head, rest...)); err != nil {
			return
		}
	}
}
