package postgres

import (
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

var (
	selectRows = &statement{"select_rows", "select u.*, r.* from " + unnest("ttttt") + " u (t, o, k, p, i) cross join lateral (" +
		"select body from records where tenant = t and usr = o and kind = k and parent = p and id = i offset 0) r"}
	selectFirstRow = &statement{"select_first_row", `select id, body from records
		where tenant = $1::text and usr = $2::text and kind = $3::text and parent = $4::text order by id limit 1`}
	selectRowLengths = &statement{"select_row_lengths", `select count(*), coalesce(sum(` + plainBody + `), 0)::bigint from records
		where tenant = $1::text and usr = $2::text and kind = $3::text and parent = $4::text`}
)

// rowState is what the batch knows of a side row.
type rowState struct {
	body  []byte // nil if there is no such row
	dirty bool

	unreadable error // why body, as it was read, cannot be opened
	length     int64 // of an unreadable body
}

// setRead sets the body that was read.
func (r *rowState) setRead(ring *sealed.Ring, id ops.RowID, stored []byte) {
	r.length = sealed.Length(stored, int64(len(stored)))
	if r.body, r.unreadable = ring.Open(sealed.Row(id.RowSet, id.ID), stored); r.unreadable != nil {
		r.body = stored
	}
}

// setState is what the batch knows of a set of side rows.
type setState struct {
	deleted bool // all of its rows were deleted, and those that the batch wrote since then follow
	dirty   bool // the delete is not written yet
	changed bool // rows of it were changed and are not written yet

	hasFirst bool
	first    []byte
	firstErr error // why it cannot be opened
}

func (t *tx) set(of store.RowSet) *setState {
	s := t.side.sets[of]
	if s == nil {
		s = &setState{}
		t.side.sets[of] = s
	}
	return s
}

// addRows adds the read of side rows.
func (t *tx) addRows(ids []ops.RowID) {
	names := newTable("ttttt")
	for _, id := range ids {
		if t.side.rows[id] == nil {
			t.side.rows[id] = &rowState{}
			if !t.set(id.RowSet).deleted && isStorable(id.Owner.Tenant+id.Owner.User+id.Kind+id.Parent+id.ID) {
				names.text(id.Owner.Tenant).text(id.Owner.User).text(id.Kind).text(id.Parent).text(id.ID)
			}
		}
	}
	if names.empty() {
		return
	}
	t.reads.add(selectRows, func(r *record) {
		id := ops.RowID{}
		id.Owner.Tenant, id.Owner.User, id.Kind, id.Parent, id.ID = r.text(), r.text(), r.text(), r.text(), r.text()
		t.side.rows[id].setRead(t.s.ring, id, r.bytes())
	}, names.params()...)
}

func (t *tx) row(of store.RowSet, id string) (*rowState, error) {
	k := ops.RowID{RowSet: of, ID: id}
	if t.side.rows[k] == nil {
		t.addRows([]ops.RowID{k})
		if err := t.read(); err != nil {
			return nil, err
		}
	}
	return t.side.rows[k], nil
}

// RowBody reads the body of a row; see [ops.RowTx].
func (t *tx) RowBody(of store.RowSet, id string) ([]byte, error) {
	r, err := t.row(of, id)
	if err != nil {
		return nil, err
	}
	if r.unreadable != nil {
		return nil, r.unreadable
	}
	return r.body, nil
}

// RowLength is the length of a row's body; see [ops.RowTx].
func (t *tx) RowLength(of store.RowSet, id string) (bytes int64, known bool, err error) {
	r, err := t.row(of, id)
	if err != nil {
		return 0, false, err
	}
	if r.unreadable != nil {
		return r.length, true, nil
	}
	return int64(len(r.body)), r.body != nil, nil
}

// setParams are the parameters $1 to $4 of statements for one set, before the others.
func setParams(of store.RowSet, others ...[]byte) [][]byte {
	return append([][]byte{[]byte(of.Owner.Tenant), []byte(of.Owner.User), []byte(of.Kind), []byte(of.Parent)}, others...)
}

// addFirstRow adds the read of the first row of a set.
func (t *tx) addFirstRow(of store.RowSet) {
	s := t.set(of)
	if s.hasFirst {
		return
	}
	s.hasFirst, s.first, s.firstErr = true, nil, nil
	if !isStorable(of.Owner.Tenant + of.Owner.User + of.Kind + of.Parent) {
		return
	}
	t.reads.add(selectFirstRow, func(r *record) {
		s.first, s.firstErr = t.s.ring.Open(sealed.Row(of, r.text()), r.bytes())
	}, setParams(of)...)
}

// FirstRowBody reads the first row of a set; see [ops.RowTx].
func (t *tx) FirstRowBody(of store.RowSet) ([]byte, error) {
	s := t.set(of)
	if s.changed || s.dirty {
		t.writePending()
	}
	if !s.hasFirst {
		t.addFirstRow(of)
		if err := t.read(); err != nil {
			return nil, err
		}
	}
	return s.first, s.firstErr
}

// RowLengths is the number and the length of the rows of a set; see [ops.RowTx].
func (t *tx) RowLengths(of store.RowSet) (rows, bytes int64, err error) {
	if s := t.set(of); s.changed || s.dirty {
		t.writePending()
	}
	t.reads.add(selectRowLengths, func(r *record) { rows, bytes = r.int(), r.int() }, setParams(of)...)
	return rows, bytes, t.read()
}

func (t *tx) setRow(of store.RowSet, id string, body []byte) {
	k := ops.RowID{RowSet: of, ID: id}
	r := t.side.rows[k]
	if r == nil {
		r = &rowState{}
		t.side.rows[k] = r
	}
	s := t.set(of)
	s.changed, s.hasFirst = true, false
	if r.body, r.unreadable = body, nil; !r.dirty {
		r.dirty = true
		t.out.rows = append(t.out.rows, k)
	}
}

// PutRow writes a row; see [ops.RowTx].
func (t *tx) PutRow(of store.RowSet, id string, body []byte) error {
	if body == nil {
		body = []byte{} // the body of a row that exists is not nil
	}
	t.setRow(of, id, body)
	return nil
}

// DeleteRow deletes a row; see [ops.RowTx].
func (t *tx) DeleteRow(of store.RowSet, id string) error {
	t.setRow(of, id, nil)
	return nil
}

// DeleteRows deletes all rows of a set; see [ops.RowTx].
func (t *tx) DeleteRows(of store.RowSet) error {
	s := t.set(of)
	if s.changed {
		t.writePending() // the delete comes after the rows that were written before it
	}
	s.deleted, s.dirty, s.hasFirst = true, true, false
	for k, r := range t.side.rows {
		if k.RowSet == of {
			r.body, r.unreadable = nil, nil
		}
	}
	t.out.sets = append(t.out.sets, of)
	return nil
}
