package postgres

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// This file encodes the changes of a batch for the table moves. Numbers are varints. A text is
// written once and then named by its number, because a batch repeats queues and keys.

// changesVersion is the first byte. Processes of several versions may share a database.
const changesVersion = 1

// Fields of a change that it has. A number is never used for another field.
const (
	hasTenant = 1 << iota
	hasKey
	hasResource
	hasPriority
	hasBytes
	hasRunAt
	hasStates
	hasTurn
	hasFlag
)

type changeEncoder struct {
	buf    []byte
	texts  map[string]uint64
	runAt  int64 // of the change before
	turnAt int64
}

func encodeChanges(list []ops.Change) []byte {
	e := changeEncoder{buf: []byte{changesVersion}, texts: map[string]uint64{}}
	for i := range list {
		e.add(&list[i])
	}
	return e.buf
}

func (e *changeEncoder) add(c *ops.Change) {
	fields := uint64(0)
	for _, f := range [...]struct {
		has bool
		bit uint64
	}{
		{c.Tenant != "", hasTenant}, {c.Key != "", hasKey}, {c.Resource != "", hasResource}, {c.Priority != 0, hasPriority},
		{c.Bytes != 0, hasBytes}, {!c.RunAt.IsZero(), hasRunAt}, {c.From != 0 || c.To != 0, hasStates}, {c.Turn != 0, hasTurn}, {c.Flag, hasFlag},
	} {
		if f.has {
			fields |= f.bit
		}
	}
	e.buf = append(e.buf, byte(c.Kind))
	e.buf = binary.AppendUvarint(e.buf, fields)
	e.text(c.Queue)
	if c.Tenant != "" {
		e.text(c.Tenant)
	}
	if c.Key != "" {
		e.text(c.Key)
	}
	if c.Resource != "" {
		e.text(c.Resource)
	}
	if c.Priority != 0 {
		e.buf = binary.AppendVarint(e.buf, int64(c.Priority))
	}
	if c.Bytes != 0 {
		e.buf = binary.AppendVarint(e.buf, c.Bytes)
	}
	if !c.RunAt.IsZero() { // most changes of a batch have nearly the same time, and turns are near each other
		at := c.RunAt.UnixMicro()
		e.buf = binary.AppendVarint(e.buf, at-e.runAt)
		e.runAt = at
	}
	if fields&hasStates != 0 {
		e.buf = append(e.buf, byte(c.From), byte(c.To))
	}
	if c.Turn != 0 {
		e.buf = binary.AppendVarint(e.buf, c.Turn-e.turnAt)
		e.turnAt = c.Turn
	}
}

// text writes the number of a text, and a new text after its number.
func (e *changeEncoder) text(v string) {
	n, known := e.texts[v]
	if !known {
		n = uint64(len(e.texts))
		e.texts[v] = n
	}
	e.buf = binary.AppendUvarint(e.buf, n)
	if !known {
		e.buf = append(binary.AppendUvarint(e.buf, uint64(len(v))), v...)
	}
}

var errChanges = errors.New("postgres: a row of the table moves cannot be read: it is damaged, or of a newer version of this program")

type changeDecoder struct {
	buf    []byte
	texts  []string
	runAt  int64
	turnAt int64
	failed bool
}

// eachChange calls f for each change that encodeChanges has encoded.
func eachChange(buf []byte, f func(*ops.Change)) error {
	if len(buf) == 0 || buf[0] != changesVersion {
		return errChanges
	}
	d := changeDecoder{buf: buf[1:]}
	for len(d.buf) > 0 {
		c := d.next()
		if d.failed {
			return errChanges
		}
		f(&c)
	}
	return nil
}

func (d *changeDecoder) next() (c ops.Change) {
	c.Kind = ops.ChangeKind(d.byte())
	fields := d.uint()
	c.Queue = d.text()
	if fields&hasTenant != 0 {
		c.Tenant = d.text()
	}
	if fields&hasKey != 0 {
		c.Key = d.text()
	}
	if fields&hasResource != 0 {
		c.Resource = d.text()
	}
	if fields&hasPriority != 0 {
		c.Priority = int(d.int())
	}
	if fields&hasBytes != 0 {
		c.Bytes = d.int()
	}
	if fields&hasRunAt != 0 {
		d.runAt += d.int()
		c.RunAt = time.UnixMicro(d.runAt)
	}
	if fields&hasStates != 0 {
		c.From, c.To = job.State(d.byte()), job.State(d.byte())
	}
	if fields&hasTurn != 0 {
		d.turnAt += d.int()
		c.Turn = d.turnAt
	}
	c.Flag = fields&hasFlag != 0
	return c
}

func (d *changeDecoder) byte() byte {
	if len(d.buf) == 0 {
		d.failed = true
		return 0
	}
	v := d.buf[0]
	d.buf = d.buf[1:]
	return v
}

func (d *changeDecoder) uint() uint64 {
	v, n := binary.Uvarint(d.buf)
	d.skip(n)
	return v
}

func (d *changeDecoder) int() int64 {
	v, n := binary.Varint(d.buf)
	d.skip(n)
	return v
}

// skip takes n bytes off the input; none or fewer means that they were no number.
func (d *changeDecoder) skip(n int) {
	if n <= 0 {
		d.failed, n = true, len(d.buf)
	}
	d.buf = d.buf[n:]
}

func (d *changeDecoder) text() string {
	n := d.uint()
	if n < uint64(len(d.texts)) {
		return d.texts[n]
	}
	size := d.uint()
	if n > uint64(len(d.texts)) || size > uint64(len(d.buf)) {
		d.failed = true
		return ""
	}
	v := string(d.buf[:size])
	d.buf = d.buf[size:]
	d.texts = append(d.texts, v)
	return v
}
