package sqlite

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// RowBody reads a side row; see [ops.RowTx].
func (t *tx) RowBody(of store.RowSet, id string) ([]byte, error) {
	return readSideRow(t.q.sideRow, t.ring, of, id)
}

// FirstRowBody reads the first side row of a set; see [ops.RowTx].
func (t *tx) FirstRowBody(of store.RowSet) (body []byte, err error) {
	_, err = t.q.firstSideRow.set(of).first(func(c column) (err error) {
		body, err = t.ring.Open(sealed.Row(of, c.text(1)), c.bytes(0))
		return err
	})
	return body, err
}

// readSideRow returns a row's body, or nil if the row does not exist. The body of a row is never
// nil.
func readSideRow(q *query, ring *sealed.Ring, of store.RowSet, id string) (body []byte, err error) {
	_, err = q.set(of).text(id).first(func(c column) (err error) {
		body, err = ring.Open(sealed.Row(of, id), c.bytes(0))
		return err
	})
	return body, err
}

// RowLength returns the length of a side row; see [ops.RowTx].
func (t *tx) RowLength(of store.RowSet, id string) (bytes int64, known bool, err error) {
	known, err = t.q.sideRowLength.set(of).text(id).first(func(c column) error { bytes = c.int(0); return nil })
	return bytes, known, err
}

// RowLengths returns the length of all side rows of a set; see [ops.RowTx].
func (t *tx) RowLengths(of store.RowSet) (rows, bytes int64, err error) {
	_, err = t.q.sideRowLengths.set(of).first(func(c column) error { rows, bytes = c.int(0), c.int(1); return nil })
	return rows, bytes, err
}

// PutRow writes a side row; see [ops.RowTx].
func (t *tx) PutRow(of store.RowSet, id string, body []byte) error {
	t.wroteRows = true
	return t.q.putSideRow.set(of).text(id).blob(t.ring.Seal(sealed.Row(of, id), body)).run()
}

// DeleteRow deletes a side row; see [ops.RowTx].
func (t *tx) DeleteRow(of store.RowSet, id string) error {
	t.wroteRows = true
	return t.q.deleteSideRow.set(of).text(id).run()
}

// DeleteRows deletes all side rows of a set; see [ops.RowTx].
func (t *tx) DeleteRows(of store.RowSet) error {
	t.wroteRows = true
	return t.q.deleteSideRows.set(of).run()
}

// Row reads one side row; see [store.RowReader].
func (s *Store) Row(ctx context.Context, of store.RowSet, id string) (row store.Row, err error) {
	err = s.readRows(ctx, func(r *reader) error {
		body, err := readSideRow(r.sideRow, r.ring, of, id)
		if err == nil && body == nil {
			return job.Errorf(job.NotFound, "there is no %s %s", of.Kind, job.Quote(id))
		}
		row = rowOf(of, id, body)
		return err
	})
	return row, err
}

// Rows lists side rows; see [store.RowReader].
func (s *Store) Rows(ctx context.Context, of store.RowSet, page store.RowPage) (rows []store.Row, err error) {
	err = s.readRows(ctx, func(r *reader) error {
		q := r.sideRowsUp
		if page.Desc {
			q = r.sideRowsDown
			if page.After == "" {
				page.After = "\U0010FFFF" // sorts after every id
			}
		}
		return q.set(of).text(page.After).int(int64(page.Limit)).each(func(c column) error {
			id := c.text(0)
			body, err := r.ring.Open(sealed.Row(of, id), c.bytes(1))
			rows = append(rows, rowOf(of, id, body))
			return err
		})
	})
	return rows, err
}

// TenantRows lists the side rows of a tenant; see [store.RowReader].
func (s *Store) TenantRows(ctx context.Context, tenant string, limit int) (rows []store.Row, err error) {
	err = s.readRows(ctx, func(r *reader) error {
		return r.tenantRows.text(tenant).int(int64(limit)).each(func(c column) error {
			of := store.RowSet{Owner: job.Owner{Tenant: tenant, User: c.text(0)}, Kind: c.text(1), Parent: c.text(2)}
			rows = append(rows, rowOf(of, c.text(3), nil))
			return nil
		})
	})
	return rows, err
}

func rowOf(set store.RowSet, id string, body []byte) store.Row {
	return store.Row{Owner: set.Owner, Kind: set.Kind, Parent: set.Parent, ID: id, Body: body}
}

// set binds the columns that name a set of rows.
func (q *query) set(of store.RowSet) *query {
	return q.text(of.Owner.Tenant).text(of.Owner.User).text(of.Kind).text(of.Parent)
}
