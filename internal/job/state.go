package job

// State is the state of a job.
//
//	scheduled → queued → running → succeeded | failed | cancelled | expired
//
// A job goes back to scheduled when an attempt failed and others are left, or when the worker
// was lost, and back to queued when the worker released it. A parked job is ready but
// waits: for a free place under its key's limit, or, as a suspect, for the end of another
// suspect.
type State uint8

// The states. Their numbers are stored: they are never reused or reordered.
const (
	Scheduled State = 1 + iota // waits for its time: a delay, or the backoff after a failed attempt
	Queued                     // ready for a worker
	Parked                     // ready, but its key is full or another suspect runs
	Running                    // leased to a worker
	Succeeded                  // ended with a result
	Failed                     // ended with an error: no attempts are left, or none would help
	Cancelled                  // ended on request
	Expired                    // ended before it ran: it reached its queue timeout
)

var stateNames = [...]string{"", "scheduled", "queued", "parked", "running", "succeeded", "failed", "cancelled", "expired"}

// States lists every state, in the order of a job's life.
func States() []State {
	return []State{Scheduled, Queued, Parked, Running, Succeeded, Failed, Cancelled, Expired}
}

// String is the state's name on the wire; "" for the zero value.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return ""
}

// ParseState returns the state with that name on the wire.
func ParseState(name string) (State, bool) {
	for s := Scheduled; s <= Expired; s++ {
		if stateNames[s] == name {
			return s, true
		}
	}
	return 0, false
}

// Ended reports whether the job has ended. Only a requested retry moves an ended job, and
// nothing moves a succeeded one.
func (s State) Ended() bool { return s >= Succeeded }

// Waiting reports whether the job waits for a worker.
func (s State) Waiting() bool { return s >= Scheduled && s <= Parked }

// moves lists every legal move: from a state to the states that may follow. A store that
// makes any other move is broken.
var moves = map[State][]State{
	0:         {Scheduled, Queued, Parked, Running}, // a submit; Running when it is leased at once
	Scheduled: {Queued, Parked, Cancelled, Expired},
	Queued:    {Running, Parked, Cancelled, Expired},
	Parked:    {Queued, Cancelled, Expired},
	Running:   {Succeeded, Failed, Cancelled, Scheduled, Queued},
	Failed:    {Queued, Parked},
	Cancelled: {Queued, Parked},
	Expired:   {Queued, Parked},
	Succeeded: {},
}

// CanMove reports whether a job may move from one state to another. The zero state stands for a
// job that does not exist yet.
func CanMove(from, to State) bool {
	for _, s := range moves[from] {
		if s == to {
			return true
		}
	}
	return false
}
