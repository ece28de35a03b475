package job

import (
	"encoding/base32"
	"strings"
	"time"

	"github.com/google/uuid"
)

// UUID is a version 7 UUID (RFC 9562, section 5.7): 16 bytes that sort by the
// millisecond they were made in, and within a process by the order of making.
// The zero value names nothing.
type UUID [16]byte

// NewUUID makes a UUID from the wall clock and the system's randomness.
func NewUUID() UUID {
	id, err := uuid.NewV7()
	if err != nil {
		// The system's randomness failed: nothing that follows could be trusted.
		panic("job: no randomness for an id: " + err.Error())
	}
	return UUID(id)
}

// crockford is the base 32 alphabet without i, l, o and u, in ASCII order, so that
// the text of two ids sorts as their bytes do.
var crockford = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

const uuidText = 26 // 128 bits in base 32

// Text writes the id as a prefix and 26 lower-case base 32 characters, such as
// "job_06b8…". The prefix says what kind of thing the id names.
func (u UUID) Text(prefix string) string {
	return string(crockford.AppendEncode(append(make([]byte, 0, 64), prefix...), u[:]))
}

// ParseUUID reads what [UUID.Text] wrote. It accepts only the canonical spelling:
// one id has one text.
func ParseUUID(prefix, text string) (UUID, bool) {
	digits, ok := strings.CutPrefix(text, prefix)
	if !ok || len(digits) != uuidText {
		return UUID{}, false
	}
	var u UUID
	n, err := crockford.Decode(u[:], []byte(digits))
	if err != nil || n != len(u) || u.Text(prefix) != text {
		return UUID{}, false
	}
	return u, true
}

// Time is the moment the id was made, to the millisecond, by its maker's clock.
func (u UUID) Time() time.Time {
	ms := int64(u[0])<<40 | int64(u[1])<<32 | int64(u[2])<<24 | int64(u[3])<<16 | int64(u[4])<<8 | int64(u[5])
	return time.UnixMilli(ms)
}

// ID names a job.
type ID UUID

// NewID makes a job's id.
func NewID() ID { return ID(NewUUID()) }

// String is the public form: "job_" and 26 characters.
func (id ID) String() string { return UUID(id).Text("job_") }

// Append is String, appended.
func (id ID) Append(b []byte) []byte { return crockford.AppendEncode(append(b, "job_"...), id[:]) }

// MarshalText is the public form too, for a log whose lines are JSON.
func (id ID) MarshalText() ([]byte, error) { return id.Append(nil), nil }

// Time is the moment the job was submitted, to the millisecond.
func (id ID) Time() time.Time { return UUID(id).Time() }

// ParseID reads a job's public id. A text that is none is a [NotFound] error: an
// id that cannot exist and one that does not are the same to whoever asks.
func ParseID(text string) (ID, error) {
	u, ok := ParseUUID("job_", text)
	if !ok {
		return ID{}, Errorf(NotFound, "there is no job %s", Quote(text))
	}
	return ID(u), nil
}

// Quote shows a caller's own text back to them, bounded and printable.
func Quote(text string) string {
	const most = 80
	if len(text) > most {
		text = text[:most] + "…"
	}
	return `"` + strings.Map(printable, strings.ToValidUTF8(text, "�")) + `"`
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return '�'
	}
	return r
}
