package pgbus

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/meanwhile-run/meanwhile/internal/bus"
)

// maxBackoff is the longest wait before a connection is tried again.
const maxBackoff = 5 * time.Second

// keep runs work on a connection, and again on a new one when it has failed, until ctx ends.
func (b *Bus) keep(ctx context.Context, c *pgconn.Config, what string, work func(context.Context, *pgconn.PgConn) error) {
	wait := time.Duration(0)
	for ctx.Err() == nil {
		began := time.Now()
		err := b.connected(ctx, c, work)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > maxBackoff {
			wait = 0
		}
		wait = min(max(2*wait, 50*time.Millisecond), maxBackoff)
		b.log.Warn("the connection that "+what+" notices of other processes was lost, and is made again: until then their changes are noticed once a second",
			"error", err, "retry_in", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait/2 + mathrand.N(wait)):
		}
	}
}

func (b *Bus) connected(ctx context.Context, c *pgconn.Config, work func(context.Context, *pgconn.PgConn) error) error {
	connecting, cancel := context.WithTimeout(ctx, max(b.options.Ping, time.Second))
	defer cancel()
	conn, err := pgconn.ConnectConfig(connecting, c)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing)
	}()
	if b.channel.Load() == nil {
		schema, err := readText(connecting, conn, "select current_schema()")
		if err != nil {
			return err
		}
		channel := channelOf(schema)
		b.channel.Store(&channel)
	}
	return work(ctx, conn)
}

// channelOf names the channel of the processes whose tables are in a schema. The name of a
// channel is an identifier, of at most 63 bytes.
func channelOf(schema string) string {
	sum := sha256.Sum256([]byte(schema))
	return "meanwhile_" + hex.EncodeToString(sum[:10])
}

func readText(ctx context.Context, conn *pgconn.PgConn, sql string) (string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	switch {
	case err != nil:
		return "", err
	case len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 1:
		return "", errors.New("pgbus: the database gave no answer")
	}
	return string(results[0].Rows[0][0]), nil
}

// listen delivers what arrives on the channel, until the connection fails.
func (b *Bus) listen(ctx context.Context, conn *pgconn.PgConn) error {
	if _, err := conn.Exec(ctx, "listen "+*b.channel.Load()).ReadAll(); err != nil {
		return err
	}
	b.pings.forget()
	for {
		waiting, cancel := context.WithTimeout(ctx, b.options.Ping)
		err := conn.WaitForNotification(waiting)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !pgconn.Timeout(err):
			return err
		}
		if err := b.pings.check(time.Now(), 2*b.options.Ping); err != nil {
			b.lag.Store(-1)
			// A pooler answers queries, and loses the notices. Only a live connection tells.
			asking, cancel := context.WithTimeout(ctx, b.options.Ping)
			_, dead := conn.Exec(asking, "select 1").ReadAll()
			cancel()
			if dead != nil {
				return dead
			}
			if b.pings.complain() {
				b.log.Warn("notices do not come through the database, so changes of other processes are noticed once a second: " +
					"a pooler in transaction mode does not pass them on; give the bus a direct connection")
			}
			b.pings.forget()
		}
	}
}

// receive handles a notification.
func (b *Bus) receive(n *pgconn.Notification) {
	kind, from, notice, number, err := decode(n.Payload)
	switch {
	case err != nil: // of another program, or of a newer version
	case kind == kindNotice:
		b.deliver(from, notice)
	case kind == kindPing:
		if took, ours := b.pings.arrived(from, number, time.Now()); ours {
			b.lag.Store(int64(took))
		}
	}
}

// send sends what members publish, and pings, until the connection fails.
func (b *Bus) send(ctx context.Context, conn *pgconn.PgConn) error {
	ping := time.NewTicker(b.options.Ping)
	defer ping.Stop()
	messages := []string{b.pings.next(time.Now())}
	for {
		if len(messages) > 0 {
			if err := b.notify(ctx, conn, messages); err != nil {
				b.lost.Add(int64(len(messages)))
				return err
			}
			// What is published meanwhile is sent together.
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(b.options.Interval):
			}
		}
		messages = nil
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ping.C:
			messages = append(messages, b.pings.next(time.Now()))
		case <-b.ready:
		}
		messages = append(messages, b.takePending()...)
	}
}

func (b *Bus) takePending() (messages []string) {
	b.mu.Lock()
	all := b.pending
	b.pending = map[memberID]*pending{}
	b.mu.Unlock()
	for from, p := range all {
		messages = append(messages, encodeNotices(from, p)...)
	}
	return messages
}

// notify sends messages in one transaction, which does not wait for the disk.
func (b *Bus) notify(ctx context.Context, conn *pgconn.PgConn, messages []string) error {
	var sql strings.Builder
	sql.WriteString("begin; set local synchronous_commit = off")
	for _, m := range messages {
		// Both are of harmless characters.
		fmt.Fprintf(&sql, "; notify %s, '%s'", *b.channel.Load(), m)
	}
	sql.WriteString("; commit")
	sending, cancel := context.WithTimeout(ctx, b.options.Ping)
	defer cancel()
	_, err := conn.Exec(sending, sql.String()).ReadAll()
	return err
}

// pings notes which pings were sent and came back.
type pings struct {
	mu sync.Mutex
	// Guarded by mu.
	from       memberID
	number     uint64
	sent       time.Time // of the ping with this number
	missing    time.Time // when the first ping was sent that has not come back; zero for none
	complained bool
}

func (p *pings) next(now time.Time) (message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.from == (memberID{}) {
		_, _ = rand.Read(p.from[:]) // never fails
	}
	p.number++
	p.sent = now
	if p.missing.IsZero() {
		p.missing = now
	}
	return encodePing(p.from, p.number)
}

// arrived notes a ping, and returns how long it took when it is the last one of this bus.
func (p *pings) arrived(from memberID, number uint64, now time.Time) (took time.Duration, ours bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if from != p.from {
		return 0, false
	}
	p.missing, p.complained = time.Time{}, false
	return now.Sub(p.sent), number == p.number
}

// forget expects no ping that was sent before.
func (p *pings) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missing = time.Time{}
}

// check returns an error when a ping has not come back for longer than patience.
func (p *pings) check(now time.Time, patience time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.missing.IsZero() && now.Sub(p.missing) > patience {
		return errors.New("pgbus: pings do not come back")
	}
	return nil
}

// complain reports whether this is the first failure since a ping came back.
func (p *pings) complain() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := !p.complained
	p.complained = true
	return first
}

var _ bus.Bus = (*Bus)(nil)
