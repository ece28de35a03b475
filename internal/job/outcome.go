package job

// Outcome is what a worker says of an attempt that is over. What follows from it
// (an end, another attempt, a wait) is the engine's to decide.
type Outcome struct {
	// Fault is why the attempt failed; nil when it did not.
	Fault *Fault
	// Released says that the attempt was stopped through no fault of the job: the
	// worker is stopping. It costs no attempt. Fault is then nil.
	Released bool
	// Cancelled says that the worker stopped because it was told to cancel.
	Cancelled bool
	Result    *Result // when there is no fault; nil is a result without a body
	Usage     []byte  // JSON, or nil
	// Entries and Progress are the last of the output, stored with the end itself.
	Entries  []Entry
	Progress *Progress
}

// Order is what a server tells whoever holds a lease.
type Order uint8

// The orders.
const (
	OrderCancel Order = 1 + iota // stop the work and finish as cancelled
	OrderLost                    // the lease is gone: stop, write nothing more, free the slot
)
