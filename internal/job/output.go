package job

// Kind is the kind of an output entry.
type Kind uint8

// The kinds. Their numbers are stored: they are never reused or reordered.
const (
	KindText     Kind = 1 + iota // plain text of the first choice, UTF-8, to be joined
	KindJSON                     // one event, verbatim
	KindLog                      // a line for whoever operates the job
	KindProgress                 // progress: the JSON of a [Progress]
	KindAttempt                  // a new attempt begins: what earlier attempts said is superseded
)

var kindNames = [...]string{"", "text", "json", "log", "progress", "attempt"}

// String is the kind's name on the wire.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return ""
}

// IsOutput says whether an entry of the kind is part of what the work came to: an
// attempt with such an entry has spoken.
func (k Kind) IsOutput() bool { return k == KindText || k == KindJSON }

// ResetsIdleClock says whether an entry of the kind starts the clock of the next output
// anew. A report that work goes on does not.
func (k Kind) ResetsIdleClock() bool { return k.IsOutput() || k == KindLog }

// Entry is one numbered piece of what a job says. Once a watcher has seen an
// entry it never changes, and no crash takes it back.
type Entry struct {
	Seq     int64 // 1, 2, 3 … without gaps, across all attempts of the job
	Attempt int   // the attempt that said it
	Kind    Kind
	Events  int // how many events it makes on a face that numbers its own; at least 1
	Data    []byte
}

// Progress says how far an attempt has come. Percent never falls within an attempt,
// and one that told any and succeeds ends at 100.
type Progress struct {
	Percent float64 `json:"percent"` // 0 to 100
	Status  string  `json:"status,omitempty"`
}

// Result is what a job came to, once.
type Result struct {
	ContentType string
	Body        []byte
}
