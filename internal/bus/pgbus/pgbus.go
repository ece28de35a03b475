// Package pgbus is a [bus.Bus] over Postgres' LISTEN and NOTIFY, for processes that share one
// database.
//
// A Bus has two connections of its own: one listens, one sends. A NOTIFY takes a lock of the
// whole database until its commit is flushed, so the sender commits without waiting for the
// disk, and sends at most once in [Options.Interval] what all its members published meanwhile.
//
// Every few seconds the bus sends a ping to itself. A ping that does not come back shows a dead
// connection, which is then replaced, or a pooler that does not pass notices on, which is
// logged. Notices that are published meanwhile are lost; package bus says why that is allowed.
package pgbus

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Options configure a Bus. A zero field has the default value that its comment names.
type Options struct {
	Interval time.Duration // the least time between two sends; 5 ms
	Ping     time.Duration // between two pings; 5 s. A ping may take as long.
	Log      *slog.Logger  // nil discards
}

// maxPending bounds the jobs, and the queues, that wait to be sent. More are dropped: their
// watchers notice the changes a second later.
const maxPending = 20_000

// Bus is a bus over one database. Any goroutine may call its methods.
type Bus struct {
	// Set once.
	config  *pgconn.Config // of the connection that sends; the other one also has a callback
	options Options
	log     *slog.Logger
	cancel  context.CancelFunc
	running sync.WaitGroup
	ready   chan struct{} // has a value when something waits to be sent

	channel atomic.Pointer[string] // named after the schema; nil until the first connection
	lag     atomic.Int64           // nanoseconds; see Lag
	lost    atomic.Int64           // see Lost
	pings   pings

	mu sync.Mutex
	// Guarded by mu.
	members map[memberID]*member
	pending map[memberID]*pending // what waits to be sent, by sender
}

type memberID [8]byte

// pending is what a member has published and the bus has not sent. Its maps have each job and
// queue once, however often it changed.
type pending struct {
	jobs   map[job.ID]struct{}
	queues map[string]struct{}
}

// Open connects to the database of a connection string. It returns at once: a database that
// cannot be reached is tried again until Close.
func Open(url string, o Options) (*Bus, error) {
	config, err := pgconn.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("the database URL cannot be used: %w", err)
	}
	if o.Interval == 0 {
		o.Interval = 5 * time.Millisecond
	}
	if o.Ping == 0 {
		o.Ping = 5 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &Bus{config: config, options: o, log: o.Log, cancel: cancel, ready: make(chan struct{}, 1),
		members: map[memberID]*member{}, pending: map[memberID]*pending{}}
	b.lag.Store(-1)
	listening := config.Copy()
	listening.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { b.receive(n) }
	b.running.Go(func() { b.keep(ctx, listening, "listens for", b.listen) })
	b.running.Go(func() { b.keep(ctx, config, "sends", b.send) })
	return b, nil
}

// Close ends both connections. No wake is called after it.
func (b *Bus) Close() {
	b.cancel()
	b.running.Wait()
}

// Lag is the time that the last ping took through the database, or negative while pings do not
// come back.
func (b *Bus) Lag() time.Duration { return time.Duration(b.lag.Load()) }

// Lost is how many notices the bus has dropped since it was opened.
func (b *Bus) Lost() int64 { return b.lost.Load() }

// Join adds a member; see [bus.Bus].
func (b *Bus) Join(wake func(bus.Notice)) bus.Member {
	m := &member{bus: b, wake: wake}
	_, _ = rand.Read(m.id[:]) // never fails
	b.mu.Lock()
	defer b.mu.Unlock()
	b.members[m.id] = m
	return m
}

type member struct {
	bus  *Bus
	id   memberID
	wake func(bus.Notice)

	calls sync.RWMutex // read-locked during a wake
	left  bool         // guarded by calls
}

// Publish adds a notice to those that are sent next; see [bus.Member].
func (m *member) Publish(n bus.Notice) {
	b := m.bus
	b.mu.Lock()
	p := b.pending[m.id]
	if p == nil {
		p = &pending{jobs: map[job.ID]struct{}{}, queues: map[string]struct{}{}}
		b.pending[m.id] = p
	}
	for _, id := range n.Jobs {
		if len(p.jobs) < maxPending {
			p.jobs[id] = struct{}{}
		} else {
			b.lost.Add(1)
		}
	}
	for _, name := range n.Queues {
		if len(p.queues) < maxPending {
			p.queues[name] = struct{}{}
		} else {
			b.lost.Add(1)
		}
	}
	b.mu.Unlock()
	b.wakeSender()
}

// Leave ends the membership; see [bus.Member].
func (m *member) Leave() {
	m.bus.mu.Lock()
	delete(m.bus.members, m.id)
	m.bus.mu.Unlock()
	m.calls.Lock()
	m.left = true
	m.calls.Unlock()
}

// deliver passes a notice to every member but its sender.
func (b *Bus) deliver(from memberID, n bus.Notice) {
	b.mu.Lock()
	var to []*member
	for id, m := range b.members {
		if id != from {
			to = append(to, m)
		}
	}
	b.mu.Unlock()
	for _, m := range to {
		m.calls.RLock()
		if !m.left {
			m.wake(n)
		}
		m.calls.RUnlock()
	}
}

func (b *Bus) wakeSender() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}
