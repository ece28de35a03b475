package sqlite

import (
	"context"
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// checkRows checks the conditions of all rows before any of them is written. Conflict is the
// body of the stored row that fails a condition.
func (t *tx) checkRows(rows []store.Row) (conflict []byte, refusal, err error) {
	for i := range rows {
		r := &rows[i]
		var body []byte
		switch r.Action {
		case store.Insert, store.Require:
			body, err = readSideRow(t.q.sideRow, r.Set(), r.ID)
		case store.RequireNone:
			body, err = readFirstSideRow(t.q.firstSideRow, r.Set())
		default:
			continue
		}
		switch {
		case err != nil:
			return nil, nil, err
		case r.Action == store.Require && body == nil:
			return nil, store.NoRow(r), nil
		case r.Action != store.Require && body != nil:
			return body, store.RowExists(r), nil
		}
	}
	return nil, nil, nil
}

// readSideRow returns a row's body, or nil if the row does not exist. The body of a row is never
// nil.
func readSideRow(q *query, of store.RowSet, id string) (body []byte, err error) {
	_, err = q.set(of).text(id).first(func(c column) error {
		body = c.bytes(0)
		return nil
	})
	return body, err
}

// readFirstSideRow returns the body of the first row under a parent, or nil.
func readFirstSideRow(q *query, of store.RowSet) (body []byte, err error) {
	_, err = q.set(of).first(func(c column) error {
		body = c.bytes(0)
		return nil
	})
	return body, err
}

// putRows writes rows that were checked.
func (t *tx) putRows(rows []store.Row) error {
	for i := range rows {
		if err := t.putRow(&rows[i]); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) putRow(r *store.Row) error {
	t.wroteRows = true
	switch r.Action {
	case store.Put, store.Insert:
		return t.writeRow(r.Set(), r.ID, r.Body)
	case store.Update:
		if body, err := readSideRow(t.q.sideRow, r.Set(), r.ID); err != nil || body == nil {
			return err
		}
		return t.writeRow(r.Set(), r.ID, r.Body)
	case store.Move:
		body, err := readSideRow(t.q.sideRow, r.Set(), r.ID)
		if err != nil || body == nil {
			return err
		}
		if err := t.removeRow(r.Set(), r.ID); err != nil {
			return err
		}
		return t.writeRow(r.Set(), r.To, body)
	case store.Remove:
		return t.removeRow(r.Set(), r.ID)
	case store.RemoveAll:
		_, err := t.q.sideRowBytes.set(r.Set()).first(func(c column) error {
			t.keep(r.Owner, -c.int(0))
			return nil
		})
		if err != nil {
			return err
		}
		return t.q.deleteSideRows.set(r.Set()).run()
	}
	return nil
}

// writeRow writes a row, and counts its bytes instead of those of the row that it replaces.
func (t *tx) writeRow(of store.RowSet, id string, body []byte) error {
	if err := t.forgetRow(of, id); err != nil {
		return err
	}
	t.keep(of.Owner, rowBytes+int64(len(body)))
	return t.q.putSideRow.set(of).text(id).blob(body).run()
}

func (t *tx) removeRow(of store.RowSet, id string) error {
	if err := t.forgetRow(of, id); err != nil {
		return err
	}
	return t.q.deleteSideRow.set(of).text(id).run()
}

// forgetRow takes the bytes of a row off those of its owner, if the row exists.
func (t *tx) forgetRow(of store.RowSet, id string) error {
	_, err := t.q.sideRowLength.set(of).text(id).first(func(c column) error {
		t.keep(of.Owner, -rowBytes-c.int(0))
		return nil
	})
	return err
}

func removes(r store.Row) bool { return r.Action == store.Remove || r.Action == store.RemoveAll }

func (t *tx) write(op *store.Write) (err error) {
	op.Conflict, op.Err, err = t.checkRows(op.Rows)
	// A full owner can make room: what removes rows always applies.
	if frees := slices.ContainsFunc(op.Rows, removes); op.Err == nil && err == nil && len(op.Rows) > 0 && !frees {
		op.Err, err = t.checkKept(op.Rows[0].Owner, store.AddedBytes(op.Rows))
	}
	if op.Err != nil || err != nil {
		return err
	}
	return t.putRows(op.Rows)
}

// Row reads one side row; see [store.RowReader].
func (s *Store) Row(ctx context.Context, of store.RowSet, id string) (row store.Row, err error) {
	err = s.readRows(ctx, func(r *reader) error {
		body, err := readSideRow(r.sideRow, of, id)
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
			rows = append(rows, rowOf(of, c.text(0), c.bytes(1)))
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
