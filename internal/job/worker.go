package job

// Worker runs jobs of one queue and has a number of free slots. The worker provides the
// functions; the engine calls them.
type Worker struct {
	Name  string
	Queue string
	Slots int
	// Deliver hands a leased job to the worker, for one slot. It must not block. The slot is
	// free again when the lease has been finished or lost.
	Deliver func(Claimed)
	// Order tells the worker what to do with a job that it runs. It must not block. The
	// worker ignores an order for a lease that it does not have.
	Order func(Lease, Order)
}
