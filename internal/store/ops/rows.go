package ops

import (
	"errors"
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// checkRows checks the conditions of all rows before any of them is written. Conflict is the
// body of the stored row that fails a condition.
func (a *applier) checkRows(rows []store.Row) (conflict []byte, refusal, err error) {
	for i := range rows {
		r := &rows[i]
		var body []byte
		switch r.Action {
		case store.Insert, store.Require:
			body, err = a.tx.RowBody(r.Set(), r.ID)
		case store.RequireNone:
			body, err = a.tx.FirstRowBody(r.Set())
		default:
			continue
		}
		if refusal, err = refusalOf(err); refusal != nil || err != nil {
			return nil, refusal, err
		}
		switch {
		case r.Action == store.Require && body == nil:
			return nil, store.NoRow(r), nil
		case r.Action != store.Require && body != nil:
			return body, store.RowExists(r), nil
		}
	}
	return nil, nil, nil
}

// refusalOf returns the error of a read of one value as a refusal if it concerns only this value: it
// cannot be decrypted. All others end the batch.
func refusalOf(err error) (refusal, other error) {
	var unreadable *job.Error
	if errors.As(err, &unreadable) {
		return err, nil
	}
	return nil, err
}

// putRows writes rows that were checked.
func (a *applier) putRows(rows []store.Row) error {
	for i := range rows {
		if err := a.putRow(&rows[i]); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) putRow(r *store.Row) error {
	switch r.Action {
	case store.Put, store.Insert:
		return a.writeRow(r.Set(), r.ID, r.Body)
	case store.Update:
		if _, known, err := a.tx.RowLength(r.Set(), r.ID); err != nil || !known {
			return err
		}
		return a.writeRow(r.Set(), r.ID, r.Body)
	case store.Move:
		body, err := a.tx.RowBody(r.Set(), r.ID)
		if unreadable, err := refusalOf(err); err != nil || unreadable != nil || body == nil {
			return err // what cannot be decrypted stays where it is
		}
		if err := a.removeRow(r.Set(), r.ID); err != nil {
			return err
		}
		return a.writeRow(r.Set(), r.To, body)
	case store.Remove:
		return a.removeRow(r.Set(), r.ID)
	case store.RemoveAll:
		rows, bytes, err := a.tx.RowLengths(r.Set())
		if err != nil {
			return err
		}
		a.keep(r.Owner, -rows*RowBytes-bytes)
		return a.tx.DeleteRows(r.Set())
	}
	return nil
}

// writeRow writes a row, and counts its bytes instead of those of the row that it replaces.
func (a *applier) writeRow(of store.RowSet, id string, body []byte) error {
	if err := a.forgetRow(of, id); err != nil {
		return err
	}
	a.keep(of.Owner, RowBytes+int64(len(body)))
	return a.tx.PutRow(of, id, body)
}

func (a *applier) removeRow(of store.RowSet, id string) error {
	if err := a.forgetRow(of, id); err != nil {
		return err
	}
	return a.tx.DeleteRow(of, id)
}

// forgetRow takes the bytes of a row off those of its owner, if the row exists.
func (a *applier) forgetRow(of store.RowSet, id string) error {
	bytes, known, err := a.tx.RowLength(of, id)
	if known && err == nil {
		a.keep(of.Owner, -RowBytes-bytes)
	}
	return err
}

func removes(r store.Row) bool { return r.Action == store.Remove || r.Action == store.RemoveAll }

func (a *applier) write(op *store.Write) (err error) {
	op.Conflict, op.Err, err = a.checkRows(op.Rows)
	// A full owner can make room: what removes rows always applies.
	if frees := slices.ContainsFunc(op.Rows, removes); op.Err == nil && err == nil && len(op.Rows) > 0 && !frees {
		op.Err, err = a.checkKept(op.Rows[0].Owner, store.AddedBytes(op.Rows))
	}
	if op.Err != nil || err != nil {
		return err
	}
	return a.putRows(op.Rows)
}
