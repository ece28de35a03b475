package postgres

import (
	"encoding/binary"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// This file has the binary formats in which the writer sends parameters and reads answers. A
// batch sends the columns of its rows as arrays, one statement a kind of write.

// An array is a parameter of an array type, built one element at a time.
type array struct {
	buf   []byte
	count int32
	nulls bool
}

const arrayHeader = 20 // dimensions, nulls, type of the elements, their number, the first index

// begin empties the array for elements of a type.
func (a *array) begin(oid uint32) {
	a.buf = append(a.buf[:0], make([]byte, arrayHeader)...)
	binary.BigEndian.PutUint32(a.buf[8:], oid)
	a.count, a.nulls = 0, false
}

// value returns the parameter. It is valid until begin.
func (a *array) value() []byte {
	if a.count == 0 {
		return a.buf[:12] // an array without dimensions
	}
	binary.BigEndian.PutUint32(a.buf[0:], 1)
	if a.nulls {
		binary.BigEndian.PutUint32(a.buf[4:], 1)
	}
	binary.BigEndian.PutUint32(a.buf[12:], uint32(a.count))
	binary.BigEndian.PutUint32(a.buf[16:], 1)
	return a.buf
}

func (a *array) null() {
	a.count++
	a.nulls = true
	a.buf = binary.BigEndian.AppendUint32(a.buf, 0xffffffff)
}

func (a *array) int(v int64) {
	a.count++
	a.buf = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(a.buf, 8), uint64(v))
}

func (a *array) text(v string) {
	a.count++
	a.buf = append(binary.BigEndian.AppendUint32(a.buf, uint32(len(v))), v...)
}

func (a *array) bytes(v []byte) {
	a.count++
	a.buf = append(binary.BigEndian.AppendUint32(a.buf, uint32(len(v))), v...)
}

func (a *array) bool(v bool) {
	a.count++
	a.buf = append(binary.BigEndian.AppendUint32(a.buf, 1), boolByte(v))
}

// A table has the rows of one write as columns.
type table struct {
	columns []array
	types   []uint32
	at      int // the column that is added next
}

// newTable makes a table with a column for each letter: i an integer, t a text, b bytes, u a
// UUID, f a flag.
func newTable(letters string) *table {
	t := &table{columns: make([]array, len(letters)), types: make([]uint32, len(letters))}
	for i := range letters {
		switch letters[i] {
		case 'i':
			t.types[i] = pgtype.Int8OID
		case 't':
			t.types[i] = pgtype.TextOID
		case 'b':
			t.types[i] = pgtype.ByteaOID
		case 'u':
			t.types[i] = pgtype.UUIDOID
		case 'f':
			t.types[i] = pgtype.BoolOID
		}
	}
	t.clear()
	return t
}

func (t *table) clear() {
	t.at = 0
	for i := range t.columns {
		t.columns[i].begin(t.types[i])
	}
}

func (t *table) empty() bool { return t.columns[0].count == 0 }

// params returns the columns as parameters, valid until clear.
func (t *table) params() [][]byte {
	list := make([][]byte, len(t.columns))
	for i := range t.columns {
		list[i] = t.columns[i].value()
	}
	return list
}

func (t *table) next() *array {
	a := &t.columns[t.at]
	if t.at++; t.at == len(t.columns) {
		t.at = 0
	}
	return a
}

func (t *table) int(v int64) *table     { t.next().int(v); return t }
func (t *table) text(v string) *table   { t.next().text(v); return t }
func (t *table) flag(v bool) *table     { t.next().bool(v); return t }
func (t *table) uuid(v [16]byte) *table { t.next().bytes(v[:]); return t }
func (t *table) blob(v []byte) *table   { t.next().bytes(v); return t }
func (t *table) null() *table           { t.next().null(); return t }

// bytes adds bytes, or NULL for nil.
func (t *table) bytes(v []byte) *table {
	if v == nil {
		return t.null()
	}
	return t.blob(v)
}

// textOrNull adds a text, or NULL for none.
func (t *table) textOrNull(v string, has bool) *table {
	if !has {
		return t.null()
	}
	return t.text(v)
}

// time adds a time in microseconds, or NULL for the zero time.
func (t *table) time(v time.Time) *table {
	if v.IsZero() {
		return t.null()
	}
	return t.int(v.UnixMicro())
}

// uuidOrNull adds a UUID, or NULL for the zero value.
func (t *table) uuidOrNull(v [16]byte) *table {
	if v == ([16]byte{}) {
		return t.null()
	}
	return t.uuid(v)
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func intParam(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

// A record is a row of an answer in binary format. Its methods read one column after the other.
type record struct {
	values [][]byte
	at     int
}

// raw returns the next column; nil for NULL. It is valid until the next row is read.
func (r *record) raw() []byte {
	v := r.values[r.at]
	r.at++
	return v
}

// intAt and bytesAt read the column with an index.
func (r *record) intAt(i int) int64 { return (&record{r.values, i}).int() }

func (r *record) bytesAt(i int) []byte { return (&record{r.values, i}).bytes() }

func (r *record) null() bool   { return r.values[r.at] == nil }
func (r *record) text() string { return string(r.raw()) }

// int reads an integer of any size; 0 for NULL.
func (r *record) int() int64 {
	switch v := r.raw(); len(v) {
	case 8:
		return int64(binary.BigEndian.Uint64(v))
	case 4:
		return int64(int32(binary.BigEndian.Uint32(v)))
	case 2:
		return int64(int16(binary.BigEndian.Uint16(v)))
	}
	return 0
}

func (r *record) flag() bool {
	v := r.raw()
	return len(v) == 1 && v[0] != 0
}

// bytes copies a column; nil for NULL.
func (r *record) bytes() []byte {
	v := r.raw()
	if v == nil {
		return nil
	}
	return append(make([]byte, 0, len(v)), v...)
}

func (r *record) uuid() (id [16]byte) {
	copy(id[:], r.raw())
	return id
}

// time reads a time in microseconds; zero for NULL.
func (r *record) time() time.Time {
	if r.null() {
		r.at++
		return time.Time{}
	}
	return time.UnixMicro(r.int())
}
