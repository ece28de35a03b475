package job

import "math"

// Kind is the kind of an output entry.
type Kind uint8

// The kinds. Their numbers are stored: they are never reused or reordered.
const (
	KindText     Kind = 1 + iota // plain text of the first choice, UTF-8; a reader joins the entries
	KindJSON                     // one event, verbatim
	KindLog                      // a message for the operator
	KindProgress                 // progress: the JSON of a [Progress]
	KindAttempt                  // a new attempt begins: the output of earlier attempts is superseded
)

var kindNames = [...]string{"", "text", "json", "log", "progress", "attempt"}

// String is the kind's name on the wire; "" for an unknown kind.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return ""
}

// IsOutput reports whether entries of the kind belong to the result of the work. Retry policies
// ask whether an attempt has written such an entry; see [Retry.AfterOutput].
func (k Kind) IsOutput() bool { return k == KindText || k == KindJSON }

// ResetsIdleClock reports whether an entry of the kind restarts the idle output timeout. A
// progress report does not: it is no output.
func (k Kind) ResetsIdleClock() bool { return k.IsOutput() || k == KindLog }

// Entry is one numbered piece of a job's output. Once a watcher has received an entry, it
// never changes, and no crash removes it.
type Entry struct {
	Seq     int64 // 1, 2, 3 … without gaps, over all attempts of the job
	Attempt int   // the attempt that wrote it
	Kind    Kind
	Events  int // number of events in an API with event numbers of its own; at least 1
	Data    []byte
}

// CheckEntries returns why an attempt may not append entries and progress to its job's output,
// or nil. The log has the entries up to the number cursor, those up to start from before the
// attempt. repeated is true when the attempt has appended the entries before: then there is
// nothing to store.
func CheckEntries(entries []Entry, p *Progress, start, cursor int64) (repeated bool, refusal error) {
	if p != nil && (math.IsNaN(p.Percent) || math.IsInf(p.Percent, 0)) {
		return false, Errorf(Invalid, "a progress of %v percent is no number", p.Percent)
	}
	if len(entries) == 0 {
		return false, nil
	}
	first, last := entries[0].Seq, entries[len(entries)-1].Seq
	for i := range entries {
		if entries[i].Seq != first+int64(i) {
			return false, Errorf(Conflict, "entry %d does not follow entry %d", entries[i].Seq, entries[i-1].Seq)
		}
	}
	// Entries up to start came under an earlier lease: they are no repetition.
	repeated = first > start && last <= cursor
	if !repeated && first != cursor+1 {
		return false, Errorf(Conflict, "entry %d does not follow entry %d", first, cursor)
	}
	return repeated, nil
}

// Progress is the last progress report of an attempt. Percent never falls within an attempt. A
// job that succeeds stands at 100, also where its executor has reported nothing.
type Progress struct {
	Percent float64 `json:"percent"` // 0 to 100
	Status  string  `json:"status,omitempty"`
}

// Result is the result of a job.
type Result struct {
	ContentType string
	Body        []byte
}

// ResultPart is a part of a result. A result may be large, and is never read whole for a client
// that may read it slowly.
type ResultPart struct {
	ContentType string
	Size        int64  // bytes of the whole result
	Body        []byte // the part
}
