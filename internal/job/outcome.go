package job

// Outcome is a worker's report of an attempt that is over. The engine decides what follows:
// an end, another attempt, or a wait.
type Outcome struct {
	// Fault is why the attempt failed; nil when it did not fail.
	Fault *Fault
	// Released means that the worker stopped the attempt for its own reasons: it is shutting
	// down. The attempt is not counted, and Fault is nil.
	Released bool
	// Cancelled means that the worker stopped because of an [OrderCancel].
	Cancelled bool
	Result    *Result // of an attempt that did not fail; nil for a result without a body
	Usage     []byte  // JSON, or nil
	// Entries and Progress are the last output. The store writes them with the end.
	Entries  []Entry
	Progress *Progress
}

// Order is an instruction to the worker that has a lease.
type Order uint8

// The orders.
const (
	OrderCancel Order = 1 + iota // stop the work and finish as cancelled
	OrderLost                    // the lease was lost: stop, write nothing more, free the slot
)
