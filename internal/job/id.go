package job

import (
	"encoding/base32"
	"strings"
	"time"

	"github.com/google/uuid"
)

// UUID is a version 7 UUID (RFC 9562, section 5.7): 16 bytes that sort by the millisecond in
// which they were made, and within a process by the order in which they were made. The zero
// value is no id.
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

// crockford is Crockford's base 32 alphabet: without i, l, o and u. It is in ASCII order, so
// that the texts of ids sort like their bytes.
var crockford = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

const uuidText = 26 // 128 bits in base 32

// Text writes the id as a prefix and 26 lower-case base 32 characters, such as "job_06b8…". The
// prefix names the kind of the id.
func (u UUID) Text(prefix string) string {
	return string(crockford.AppendEncode(append(make([]byte, 0, 64), prefix...), u[:]))
}

// ParseUUID parses the text of [UUID.Text]. It accepts the canonical spelling only, so an id
// has exactly one text.
func ParseUUID(prefix, text string) (UUID, bool) {
	digits, ok := strings.CutPrefix(text, prefix)
	if !ok || len(digits) != uuidText {
		return UUID{}, false
	}
	var u UUID
	n, err := crockford.Decode(u[:], []byte(digits))
	// The decoder ignores the unused bits of the last digit: compare with the canonical text.
	if err != nil || n != len(u) || u.Text(prefix) != text {
		return UUID{}, false
	}
	return u, true
}

// Time is when the id was made, to the millisecond, by the clock of the process that made it.
func (u UUID) Time() time.Time {
	ms := int64(u[0])<<40 | int64(u[1])<<32 | int64(u[2])<<24 | int64(u[3])<<16 | int64(u[4])<<8 | int64(u[5])
	return time.UnixMilli(ms)
}

// ID names a job.
type ID UUID

// NewID makes a job's id.
func NewID() ID { return ID(NewUUID()) }

// String is the id's public form: "job_" and 26 characters.
func (id ID) String() string { return UUID(id).Text("job_") }

// Append appends the public form to b.
func (id ID) Append(b []byte) []byte { return crockford.AppendEncode(append(b, "job_"...), id[:]) }

// MarshalText returns the public form. JSON logs use it.
func (id ID) MarshalText() ([]byte, error) { return id.Append(nil), nil }

// Time is when the id was made, to the millisecond: before the job's files were received.
func (id ID) Time() time.Time { return UUID(id).Time() }

// ParseID parses a job's public id. Any other text is a [NotFound] error: callers cannot tell
// an invalid id from the id of a job that does not exist.
func ParseID(text string) (ID, error) {
	u, ok := ParseUUID("job_", text)
	if !ok {
		return ID{}, Errorf(NotFound, "there is no job %s", Quote(text))
	}
	return ID(u), nil
}

// Quote quotes a caller's text for a message: at most 80 bytes, valid UTF-8, without control
// characters.
func Quote(text string) string {
	const maxBytes = 80
	if len(text) > maxBytes {
		text = text[:maxBytes] + "…"
	}
	return `"` + strings.Map(printable, strings.ToValidUTF8(text, "�")) + `"`
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return '�'
	}
	return r
}
