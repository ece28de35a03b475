package sealed

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Resealer is a store that can seal its values again, with the current key of its ring. Other
// processes may use the store meanwhile.
type Resealer interface {
	// Reseal looks at the next values after a cursor, and seals those again whose key is not the
	// current one: about [PieceBytes] of them. "" is the cursor of the first value, and the answer
	// after the last one. A value that is changed or deleted meanwhile is left alone, and so is one
	// that is damaged.
	Reseal(ctx context.Context, after string) (next string, done Resealed, err error)
}

// Resealed counts what was sealed again.
type Resealed struct {
	Values int64
	Bytes  int64 // as stored
}

// Limits of a call of [Resealer.Reseal].
const (
	PieceBytes  = 1 << 20 // after so many bytes no further value is read
	PieceValues = 500     // no more values are looked at
)

// Cursor is where a store is in sealing its values again. A store has several tables of values; the
// other fields are the key of the last row that was looked at.
type Cursor struct {
	Table int       `json:"t"`
	N     int64     `json:"n,omitempty"`
	Seq   int64     `json:"s,omitempty"`
	Row   [5]string `json:"r,omitzero"` // tenant, user, kind, parent, id
}

// ParseCursor parses what [Cursor.String] returns; "" is the first one.
func ParseCursor(s string) (c Cursor, err error) {
	if s == "" {
		return c, nil
	}
	if json.Unmarshal([]byte(s), &c) != nil || c.Table < 0 {
		return c, job.Errorf(job.Invalid, "this is no cursor of sealed values")
	}
	return c, nil
}

// String encodes the cursor.
func (c Cursor) String() string {
	raw, err := json.Marshal(c)
	if err != nil {
		panic(err) // it has only numbers and texts
	}
	return string(raw)
}

// IsCurrent reports whether a stored value, of which these are the first bytes, is as the ring would
// store it now.
func (r *Ring) IsCurrent(first []byte) bool {
	return KeyOf(first) == r.Current()
}

// Reseal returns what is to be stored instead of a value; changed is false if it may stay. A damaged
// value stays.
func (r *Ring) Reseal(p Place, stored []byte) (again []byte, changed bool, err error) {
	if len(stored) == 0 || p.clear || r.IsCurrent(stored) {
		return nil, false, nil
	}
	plain, err := r.Open(p, stored)
	if errors.Is(err, ErrDamaged) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return r.Seal(p, plain), true, nil
}
