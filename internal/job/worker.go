package job

// Worker is someone with free slots for a queue's jobs. Whoever has jobs calls its
// functions; whoever works gives them.
type Worker struct {
	Name  string
	Queue string
	Slots int
	// Deliver takes a leased job, for one slot. It must not block. The slot is free
	// again when the lease has been finished, or was lost.
	Deliver func(Claimed)
	// Order tells the worker what to do with a job it holds. It must not block. An
	// order for a job that the worker does not hold (any more) is ignored.
	Order func(Lease, Order)
}
