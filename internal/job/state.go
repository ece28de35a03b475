package job

// State says where a job stands.
//
//	scheduled → queued → running → succeeded | failed | cancelled | expired
//
// A failed attempt with tries left, and one that was lost, goes back to scheduled, an
// attempt that was handed back to queued. Parked is a queued job that waits for its
// key's turn under a per-key limit, or a suspect that waits for another to end.
type State uint8

// The states. Their numbers are stored: they are never reused or reordered.
const (
	Scheduled State = 1 + iota // waits for its time: a delay, or the backoff after a failed attempt
	Queued                     // ready for a worker
	Parked                     // ready, but its key has as many running as it may, or another suspect runs
	Running                    // leased to a worker
	Succeeded                  // ended with a result
	Failed                     // ended with an error; no attempts left, or none would help
	Cancelled                  // ended because someone asked
	Expired                    // ended before it ran: it waited longer than it was allowed to
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

// ParseState reads a state's name.
func ParseState(name string) (State, bool) {
	for s := Scheduled; s <= Expired; s++ {
		if stateNames[s] == name {
			return s, true
		}
	}
	return 0, false
}

// Ended says whether the job is over. Only a retry that someone asks for leads
// out of an ended state, and none leads out of [Succeeded].
func (s State) Ended() bool { return s >= Succeeded }

// Waiting says whether the job has yet to be given to a worker.
func (s State) Waiting() bool { return s >= Scheduled && s <= Parked }

// moves is the whole law: from → every state that may follow.
// A store that makes any other move is broken.
var moves = map[State][]State{
	0:         {Scheduled, Queued, Parked, Running}, // a submit; running when a worker was already waiting
	Scheduled: {Queued, Parked, Cancelled, Expired},
	Queued:    {Running, Parked, Cancelled, Expired},
	Parked:    {Queued, Cancelled, Expired},
	Running:   {Succeeded, Failed, Cancelled, Scheduled, Queued},
	Failed:    {Queued, Parked},
	Cancelled: {Queued, Parked},
	Expired:   {Queued, Parked},
	Succeeded: {},
}

// CanMove says whether a job in state from may go to state to. The zero state
// stands for a job that does not exist yet.
func CanMove(from, to State) bool {
	for _, s := range moves[from] {
		if s == to {
			return true
		}
	}
	return false
}
