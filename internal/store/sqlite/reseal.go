package sqlite

import (
	"context"
	"errors"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// sealedTable is a table with values that may be sealed. The columns of its key are those of the
// cursor that it uses: n; n and seq; or the five texts of a side row.
type sealedTable struct {
	scan  string // key, the job's id or NULL, kind of the entry or 0, the first bytes, the length
	value string // the value of a key
	write string // sets the value of a key, if it is still the old one
	keys  int
}

const firstBytes = ", substr(body, 1, 36), length(body)"

// sealedTables are the tables in the order in which [Store.Reseal] reads them. Their numbers are
// stored in cursors.
var sealedTables = [...]sealedTable{
	jobTable("inputs"),
	jobTable("results"),
	{
		scan: `SELECT o.job, o.seq, j.id, o.kind, substr(o.data, 1, 36), length(o.data) FROM output o LEFT JOIN jobs j ON j.n = o.job
			WHERE (o.job, o.seq) > (?, ?) ORDER BY o.job, o.seq LIMIT ?`,
		value: "SELECT data FROM output WHERE job = ? AND seq = ?",
		write: "UPDATE output SET data = ? WHERE job = ? AND seq = ? AND data = ?", keys: 2,
	},
	{
		scan: "SELECT tenant, usr, kind, parent, id, NULL, 0" + firstBytes + ` FROM records
			WHERE (tenant, usr, kind, parent, id) > (?, ?, ?, ?, ?) ORDER BY tenant, usr, kind, parent, id LIMIT ?`,
		value: "SELECT body FROM records WHERE tenant = ? AND usr = ? AND kind = ? AND parent = ? AND id = ?",
		write: "UPDATE records SET body = ? WHERE tenant = ? AND usr = ? AND kind = ? AND parent = ? AND id = ? AND body = ?", keys: 5,
	},
}

func jobTable(name string) sealedTable {
	return sealedTable{
		scan:  "SELECT b.n, j.id, 0" + firstBytes + " FROM " + name + " b LEFT JOIN jobs j ON j.n = b.n WHERE b.n > ? ORDER BY b.n LIMIT ?",
		value: "SELECT body FROM " + name + " WHERE n = ?",
		write: "UPDATE " + name + " SET body = ? WHERE n = ? AND body = ?", keys: 1,
	}
}

// oldValue is a value that is not sealed by the current key.
type oldValue struct {
	at            sealed.Cursor
	place         sealed.Place
	stored, again []byte
}

// Reseal seals some values again; see [sealed.Resealer]. It reads them beside the commits, and writes
// them in one short transaction.
func (s *Store) Reseal(ctx context.Context, after string) (next string, done sealed.Resealed, err error) {
	at, err := sealed.ParseCursor(after)
	if err != nil {
		return "", done, err
	}
	if at.Table == len(sealedTables) {
		return "", done, s.flushTail()
	}
	var old []oldValue
	ended := false
	err = s.read(ctx, func(r *reader) (err error) {
		old, at, ended, err = r.oldValues(at)
		return err
	})
	for i := range old {
		if err == nil {
			var changed bool
			v := &old[i]
			if v.again, changed, err = s.ring.Reseal(v.place, v.stored); !changed {
				v.again = nil
			}
		}
	}
	if err == nil {
		done, err = s.writeResealed(old)
	}
	if ended {
		at = sealed.Cursor{Table: at.Table + 1}
	}
	return at.String(), done, err
}

// SideRows reads a few side rows of the database at path, which a server may be using. They must not
// be sealed.
func SideRows(path string, of store.RowSet) (rows []store.Row, err error) {
	conn, err := openToRead(path)
	if err != nil {
		return nil, explain(path, err)
	}
	defer func() { _ = conn.Close() }() // it was only read
	// Before migration 0007 no row had an owner.
	if version, err := pragma(conn, "user_version"); err != nil || version < 7 {
		return nil, wrapDamage(err)
	}
	q := newQuery(conn, "SELECT id, body FROM records WHERE tenant = ? AND usr = ? AND kind = ? AND parent = ? ORDER BY id LIMIT 1000")
	err = q.set(of).each(func(c column) error {
		rows = append(rows, rowOf(of, c.text(0), c.bytes(1)))
		return nil
	})
	return rows, wrapDamage(err)
}

// bindKey binds the columns of a cursor's key.
func (q *query) bindKey(c sealed.Cursor, keys int) *query {
	switch keys {
	case 1:
		return q.int(c.N)
	case 2:
		return q.int(c.N).int(c.Seq)
	}
	for _, name := range c.Row {
		q.text(name)
	}
	return q
}

// oldValues reads the next values of a table that are not sealed by the current key, and the cursor
// after them. ended is true at the end of the table.
func (r *reader) oldValues(at sealed.Cursor) (old []oldValue, next sealed.Cursor, ended bool, err error) {
	t := sealedTables[at.Table]
	next = at
	rows, left := 0, int64(sealed.PieceBytes)
	err = newQuery(r.conn, t.scan).bindKey(at, t.keys).int(sealed.PieceValues).each(func(c column) error {
		if left <= 0 {
			return errStop
		}
		rows++
		v := oldValue{at: sealed.Cursor{Table: at.Table}}
		v.scanKey(c, t.keys)
		next = v.at
		if c.int(t.keys+3) > 0 && !r.ring.IsCurrent(c.bytes(t.keys+2)) && v.place != (sealed.Place{}) {
			left -= c.int(t.keys + 3)
			old = append(old, v)
		}
		return nil
	})
	if errors.Is(err, errStop) {
		err = nil
	} else {
		ended = rows < sealed.PieceValues
	}
	for i := range old {
		if err == nil {
			v := &old[i]
			_, err = newQuery(r.conn, t.value).bindKey(v.at, t.keys).first(func(c column) error { v.stored = c.bytes(0); return nil })
		}
	}
	return old, next, ended, err
}

// scanKey reads the key of a value and sets its place; none for a value without a job.
func (v *oldValue) scanKey(c column, keys int) {
	if keys == 5 {
		for i := range v.at.Row {
			v.at.Row[i] = c.text(i)
		}
		row := v.at.Row
		v.place = sealed.Row(store.RowSet{Owner: job.Owner{Tenant: row[0], User: row[1]}, Kind: row[2], Parent: row[3]}, row[4])
		return
	}
	v.at.N = c.int(0)
	if c.stmt.ColumnIsNull(keys) {
		return
	}
	id := c.id(keys)
	switch {
	case keys == 2:
		v.at.Seq = c.int(1)
		v.place = logPlace(id, c.int(3), v.at.Seq)
	case v.at.Table == 0:
		v.place = sealed.Input(id)
	default:
		v.place = sealed.Result(id)
	}
}

// writeResealed writes values that are still what was read.
func (s *Store) writeResealed(values []oldValue) (done sealed.Resealed, err error) {
	if len(values) == 0 {
		return done, nil
	}
	err = s.commitBeside(func() error {
		for i := range values {
			v := &values[i]
			if v.again == nil {
				continue
			}
			t := sealedTables[v.at.Table]
			if err := newQuery(s.conn, t.write).blob(v.again).bindKey(v.at, t.keys).blob(v.stored).run(); err != nil {
				return err
			}
			done.Values++
			done.Bytes += int64(len(v.again))
		}
		return nil
	})
	if err == nil {
		s.checkpointer.noteWrite(done.Bytes)
	}
	return done, err
}

// commitBeside commits what f writes, between two batches. It does not wait for the disk: the log is
// in order, so no later batch is durable without it.
func (s *Store) commitBeside(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.trusted() {
		return errUntrusted
	}
	if err := s.q.begin.run(); err != nil {
		return err
	}
	err := f()
	if err == nil {
		s.syncer.begin(true)
		err = s.q.commit.run()
		s.syncer.end(err == nil)
	}
	if err != nil && !s.conn.AutocommitEnabled() {
		_ = s.q.rollback.run()
	}
	return err
}

// flushTail moves all output from the tail to the logs of its jobs, where it is sealed by the current
// key.
func (s *Store) flushTail() error {
	t := &tx{Store: s, now: s.Now()}
	err := s.commitBeside(func() error {
		if err := s.refresh(); err != nil {
			return err
		}
		s.staleMemory = true // until the commit
		for _, h := range s.running {
			if h.firstTailRow == 0 {
				continue
			}
			t.publishLater(h)
			if err := t.flush(h); err != nil {
				return err
			}
		}
		t.tail.firstRow = t.tail.lastRow + 1
		return t.q.trimTail.int(t.tail.firstRow).run()
	})
	if err == nil {
		s.mu.Lock()
		s.staleMemory = false
		t.publish()
		s.mu.Unlock()
	}
	return err
}
