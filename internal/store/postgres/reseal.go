package postgres

import (
	"bytes"
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// sealedTable is a table with values that may be sealed. Its key is n, n and seq, or the five texts
// of a side row.
type sealedTable struct {
	scan  *statement // the key, the job's id or null, the first bytes, the length
	value *statement // the value of a key
	write *statement // sets the value of a key, if it is still the old one
	keys  int
}

// sealedTables are the tables in the order in which [Store.Reseal] reads them. Their numbers are
// stored in cursors.
var sealedTables = [...]sealedTable{
	jobTable("inputs"),
	jobTable("results"),
	{
		scan: &statement{"reseal_scan_output", `select b.n, b.seq, j.id, substr(b.data, 1, 36), length(b.data) from
			(select n, seq, data from output where (n, seq) > ($1::bigint, $2::bigint) order by n, seq limit $3::bigint) b left join lateral ` + idOfNumber + " order by b.n, b.seq"},
		value: &statement{"reseal_value_output", "select data from output where n = $1::bigint and seq = $2::bigint"},
		write: &statement{"reseal_write_output", "update output set data = $4::bytea where n = $1::bigint and seq = $2::bigint and data = $3::bytea"}, keys: 2,
	},
	{
		scan: &statement{"reseal_scan_rows", `select tenant, usr, kind, parent, id, null::uuid, substr(body, 1, 36), length(body) from records
			where (tenant, usr, kind, parent, id) > ($1::text, $2::text, $3::text, $4::text, $5::text) order by tenant, usr, kind, parent, id limit $6::bigint`},
		value: &statement{"reseal_value_rows", "select body from records where tenant = $1 and usr = $2 and kind = $3 and parent = $4 and id = $5"},
		write: &statement{"reseal_write_rows", "update records set body = $7::bytea where tenant = $1 and usr = $2 and kind = $3 and parent = $4 and id = $5 and body = $6::bytea"}, keys: 5,
	},
}

const idOfNumber = "(select id from jobs where jobs.n = b.n union all select id from ended where ended.n = b.n limit 1) j on true"

func jobTable(name string) sealedTable {
	return sealedTable{
		scan: &statement{"reseal_scan_" + name, "select b.n, j.id, substr(b.body, 1, 36), length(b.body) from (select n, body from " + name +
			" where n > $1::bigint order by n limit $2::bigint) b left join lateral " + idOfNumber + " order by b.n"},
		value: &statement{"reseal_value_" + name, "select body from " + name + " where n = $1::bigint"},
		write: &statement{"reseal_write_" + name, "update " + name + " set body = $3::bytea where n = $1::bigint and body = $2::bytea"}, keys: 1,
	}
}

// oldValue is a value that is not sealed by the current key.
type oldValue struct {
	at    sealed.Cursor
	place sealed.Place
}

// Reseal seals some values again; see [sealed.Resealer]. Each is a transaction of its own, which
// waits for nobody but a batch that deletes or replaces the value.
func (s *Store) Reseal(ctx context.Context, after string) (next string, done sealed.Resealed, err error) {
	at, err := sealed.ParseCursor(after)
	if err != nil || at.Table >= len(sealedTables) {
		return "", done, err
	}
	old, at, ended, err := s.oldValues(ctx, at)
	for _, v := range old {
		if err == nil {
			err = s.reseal(ctx, v, &done)
		}
	}
	if ended {
		if at = (sealed.Cursor{Table: at.Table + 1}); at.Table == len(sealedTables) {
			return "", done, err
		}
	}
	return at.String(), done, err
}

// SideRows reads a few side rows, which must not be sealed.
func SideRows(ctx context.Context, db Beginner, of store.RowSet) (rows []store.Row, err error) {
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		rows = nil
		found, err := tx.Query(ctx, "select id, body"+rowsOfSet+" order by id limit 1000", pgx.QueryExecModeExec, of.Owner.Tenant, of.Owner.User, of.Kind, of.Parent)
		if err != nil {
			return err
		}
		var id string
		var body []byte
		_, err = pgx.ForEachRow(found, []any{&id, &body}, func() error {
			rows = append(rows, rowOf(of, id, bytes.Clone(body)))
			return nil
		})
		return err
	})
	return rows, err
}

// keyParams are the parameters of a cursor's key, before others.
func keyParams(c sealed.Cursor, keys int, others ...[]byte) (list [][]byte) {
	switch keys {
	case 1:
		list = [][]byte{intParam(c.N)}
	case 2:
		list = [][]byte{intParam(c.N), intParam(c.Seq)}
	default:
		for _, name := range c.Row {
			list = append(list, []byte(name))
		}
	}
	return append(list, others...)
}

// oldValues reads which of the next values of a table are not sealed by the current key, and the
// cursor after them. ended is true at the end of the table.
func (s *Store) oldValues(ctx context.Context, at sealed.Cursor) (old []oldValue, next sealed.Cursor, ended bool, err error) {
	t := sealedTables[at.Table]
	rows, left := 0, int64(sealed.PieceBytes)
	err = s.read(ctx, t.scan, func(r *record) error {
		if rows++; left <= 0 {
			return nil
		}
		v := oldValue{at: sealed.Cursor{Table: at.Table}}
		hasPlace := v.scanKey(r, t.keys)
		next = v.at
		first, length := r.raw(), r.int()
		if length > 0 && hasPlace && !s.ring.IsCurrent(first) {
			left -= length
			old = append(old, v)
		}
		return nil
	}, keyParams(at, t.keys, intParam(sealed.PieceValues))...)
	if rows == 0 {
		next = at
	}
	return old, next, left > 0 && rows < sealed.PieceValues, err
}

// scanKey reads the key of a value and sets its place. It returns false for a value without a job.
func (v *oldValue) scanKey(r *record, keys int) bool {
	if keys == 5 {
		for i := range v.at.Row {
			v.at.Row[i] = r.text()
		}
		row := v.at.Row
		v.place = sealed.Row(store.RowSet{Owner: job.Owner{Tenant: row[0], User: row[1]}, Kind: row[2], Parent: row[3]}, row[4])
		r.raw() // no job
		return true
	}
	v.at.N = r.int()
	if keys == 2 {
		v.at.Seq = r.int()
	}
	if r.null() {
		r.raw()
		return false
	}
	id := job.ID(r.uuid())
	switch {
	case keys == 2:
		v.place = sealed.Entry(id, v.at.Seq)
	case v.at.Table == 0:
		v.place = sealed.Input(id)
	default:
		v.place = sealed.Result(id)
	}
	return true
}

// reseal seals one value again, if it is still there.
func (s *Store) reseal(ctx context.Context, v oldValue, done *sealed.Resealed) error {
	t := sealedTables[v.at.Table]
	var stored []byte
	err := s.read(ctx, t.value, func(r *record) error { stored = r.bytes(); return nil }, keyParams(v.at, t.keys)...)
	if err != nil {
		return err
	}
	again, changed, err := s.ring.Reseal(v.place, stored)
	if err != nil || !changed {
		return err
	}
	done.Values++
	done.Bytes += int64(len(again))
	return s.read(ctx, t.write, nil, keyParams(v.at, t.keys, stored, again)...)
}
