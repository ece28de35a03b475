package ops

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Changes are encoded as a version byte and then one change after another: kind and flag in a byte,
// then the fields that the kind has. A name that was written before is a reference to it. Turns and
// times are differences from the ones before. A busy batch has hundreds of changes of a few queues
// and tenants, and takes about ten bytes for each.

const changesVersion = 1

var errChanges = errors.New("ops: stored changes cannot be read")

// AppendChanges appends the encoding of changes to buf.
func AppendChanges(buf []byte, changes []Change) []byte {
	e := encoder{buf: append(buf, changesVersion), names: map[string]uint64{}}
	for i := range changes {
		e.change(&changes[i])
	}
	return e.buf
}

// DecodeChanges decodes the encoding of some changes.
func DecodeChanges(data []byte) (changes []Change, err error) {
	if len(data) == 0 || data[0] != changesVersion {
		return nil, errChanges
	}
	d := decoder{data: data[1:]}
	for len(d.data) > 0 && !d.failed {
		var c Change
		d.change(&c)
		changes = append(changes, c)
	}
	if d.failed {
		return nil, errChanges
	}
	return changes, nil
}

// previous has the numbers of which the next ones are encoded as differences.
type previous struct{ turn, micros int64 }

type encoder struct {
	buf   []byte
	names map[string]uint64 // the number of each name, from 1
	previous
}

func (e *encoder) change(c *Change) {
	head := byte(c.Kind) << 1
	if c.Flag {
		head |= 1
	}
	e.buf = append(e.buf, head)
	e.name(c.Queue)
	switch c.Kind {
	case Moved:
		e.moved(c)
	case Advanced:
		e.name(c.Tenant)
		e.name(c.Resource)
		e.difference(c.Turn, &e.turn)
	case Forgot, Held:
		e.name(c.Tenant)
		e.name(c.Resource)
	case Passed:
		e.name(c.Tenant)
	}
}

func (e *encoder) moved(c *Change) {
	e.buf = append(e.buf, byte(c.From)<<4|byte(c.To))
	e.name(c.Tenant)
	e.name(c.Key)
	e.name(c.Resource)
	e.buf = binary.AppendVarint(e.buf, int64(c.Priority))
	if isReady(c.To) {
		e.difference(c.Turn, &e.turn)
	}
	if c.changesBytes() {
		e.buf = binary.AppendVarint(e.buf, c.Bytes)
	}
	if c.changesReady() {
		e.difference(c.RunAt.UnixMicro(), &e.micros)
	}
}

func (e *encoder) difference(v int64, before *int64) {
	e.buf = binary.AppendVarint(e.buf, v-*before)
	*before = v
}

func (e *encoder) name(s string) {
	if n, known := e.names[s]; known {
		e.buf = binary.AppendUvarint(e.buf, n)
		return
	}
	e.names[s] = uint64(len(e.names) + 1)
	e.buf = append(binary.AppendUvarint(append(e.buf, 0), uint64(len(s))), s...)
}

type decoder struct {
	data   []byte
	names  []string
	failed bool // data is not what an encoder has written
	previous
}

func (d *decoder) change(c *Change) {
	head := d.byte()
	c.Kind, c.Flag = ChangeKind(head>>1), head&1 != 0
	if c.Kind == 0 || c.Kind > lastKind {
		d.failed = true
		return
	}
	c.Queue = d.name()
	switch c.Kind {
	case Moved:
		d.moved(c)
	case Advanced:
		c.Tenant = d.name()
		c.Resource = d.name()
		c.Turn = d.difference(&d.turn)
	case Forgot, Held:
		c.Tenant = d.name()
		c.Resource = d.name()
	case Passed:
		c.Tenant = d.name()
	}
}

func (d *decoder) moved(c *Change) {
	states := d.byte()
	c.From, c.To = job.State(states>>4), job.State(states&15)
	if c.From > job.Expired || c.To == 0 || c.To > job.Expired {
		d.failed = true
		return
	}
	c.Tenant, c.Key, c.Resource = d.name(), d.name(), d.name()
	c.Priority = int(d.varint())
	if isReady(c.To) {
		c.Turn = d.difference(&d.turn)
	}
	if c.changesBytes() {
		c.Bytes = d.varint()
	}
	if c.changesReady() {
		c.RunAt = time.UnixMicro(d.difference(&d.micros))
	}
}

func (d *decoder) byte() byte {
	if len(d.data) == 0 {
		d.failed = true
		return 0
	}
	b := d.data[0]
	d.data = d.data[1:]
	return b
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.data)
	d.skip(n)
	return v
}

// skip skips a number of n bytes; n is not positive if there is none.
func (d *decoder) skip(n int) {
	if n <= 0 {
		d.failed = true
		n = len(d.data)
	}
	d.data = d.data[n:]
}

func (d *decoder) difference(before *int64) int64 {
	*before += d.varint()
	return *before
}

func (d *decoder) name() string {
	n, size := binary.Uvarint(d.data)
	d.skip(size)
	if n > 0 {
		if n > uint64(len(d.names)) {
			d.failed = true
			return ""
		}
		return d.names[n-1]
	}
	length, size := binary.Uvarint(d.data)
	d.skip(size)
	if length > uint64(len(d.data)) {
		d.failed = true
		return ""
	}
	s := string(d.data[:length])
	d.data = d.data[length:]
	d.names = append(d.names, s)
	return s
}
