package storetest

import (
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// The default values of ops.
const (
	queue       = "queue"
	leaseFor    = 30 * time.Second
	backoff     = 10 * time.Second
	keep        = time.Hour
	keepFailed  = 2 * time.Hour
	cancelGrace = 10 * time.Second
	day         = 24 * time.Hour
)

var (
	mine      = job.Owner{Tenant: "tenant", User: "user"}
	theirs    = job.Owner{Tenant: "tenant", User: "other"}
	elsewhere = job.Owner{Tenant: "other", User: "user"}
)

// ---- submits and their options ----

func (w *harness) newSubmit(edits ...func(*store.Submit)) *store.Submit {
	s := &store.Submit{
		Job: job.Job{
			ID: w.id(), Owner: mine, Queue: queue, Key: "key",
			Priority: job.DefaultPriority, MaxAttempts: job.DefaultMaxAttempts,
			Policy: job.Policy{
				Timeouts: job.Timeouts{Lease: leaseFor, CancelGrace: cancelGrace},
				Retry:    job.Retry{Backoff: 2 * time.Second, AfterOutput: job.RestartAfterOutput},
				Keep:     job.Keep{Failed: keep, Others: keep},
			},
		},
		Input: []byte("input"),
	}
	for _, edit := range edits {
		edit(s)
	}
	return s
}

// withKeep sets the time for which a job is kept after any end.
func withKeep(d time.Duration) func(*store.Submit) {
	return func(s *store.Submit) { s.Job.Policy.Keep = job.Keep{Failed: d, Others: d} }
}

func (w *harness) submit(edits ...func(*store.Submit)) job.ID {
	w.Helper()
	s := w.newSubmit(edits...)
	w.do(s)
	return s.Job.ID
}

// submitMany submits n jobs in one batch and returns their ids in order.
func (w *harness) submitMany(n int, edits ...func(*store.Submit)) []job.ID {
	w.Helper()
	ops, ids := make([]any, n), make([]job.ID, n)
	for i := range n {
		s := w.newSubmit(edits...)
		ops[i], ids[i] = s, s.Job.ID
	}
	w.do(ops...)
	return ids
}

func inQueue(q string) func(*store.Submit)    { return func(s *store.Submit) { s.Job.Queue = q } }
func withKey(k string) func(*store.Submit)    { return func(s *store.Submit) { s.Job.Key = k } }
func withPriority(p int) func(*store.Submit)  { return func(s *store.Submit) { s.Job.Priority = p } }
func ownedBy(o job.Owner) func(*store.Submit) { return func(s *store.Submit) { s.Job.Owner = o } }
func withRef(ref string) func(*store.Submit) {
	return func(s *store.Submit) { s.Job.Refs = append(s.Job.Refs, ref) }
}
func withInput(in string) func(*store.Submit)     { return func(s *store.Submit) { s.Input = []byte(in) } }
func withRows(r ...store.Row) func(*store.Submit) { return func(s *store.Submit) { s.Rows = r } }

func delayed(d time.Duration) func(*store.Submit) {
	return func(s *store.Submit) { s.Delay = d }
}

func withQueueTimeout(d time.Duration) func(*store.Submit) {
	return func(s *store.Submit) { s.Job.Policy.Timeouts.Queue = d }
}

func leasedAs(t job.Token) func(*store.Submit) {
	return func(s *store.Submit) { s.Token, s.LeaseFor, s.Worker = t, leaseFor, "worker" }
}

// withIdempotency sets an idempotency key, and a hash that stands for the request.
func withIdempotency(key, asked string) func(*store.Submit) {
	return func(s *store.Submit) {
		s.Idempotency = &store.Idempotency{Key: key, Keep: day}
		copy(s.Idempotency.Hash[:], asked)
	}
}

// ---- ops of workers ----

func (w *harness) newClaim(q string, n int) *store.Claim {
	c := &store.Claim{Queue: q, Worker: "worker", LeaseFor: leaseFor}
	for range n {
		c.Tokens = append(c.Tokens, w.token())
	}
	return c
}

func (w *harness) claim(q string, n int) []job.Claimed {
	w.Helper()
	c := w.newClaim(q, n)
	w.do(c)
	return c.Claimed
}

// claimOne claims the next job, which must exist.
func (w *harness) claimOne(q string) *job.Claimed {
	w.Helper()
	got := w.claim(q, 1)
	if len(got) != 1 {
		w.Fatalf("a claim of a queue with a ready job got %d jobs", len(got))
	}
	return &got[0]
}

// running submits a job and claims it.
func (w *harness) running(edits ...func(*store.Submit)) *job.Claimed {
	w.Helper()
	s := w.newSubmit(edits...)
	w.do(s)
	c := w.claimOne(s.Job.Queue)
	if c.Job.ID != s.Job.ID {
		w.Fatalf("the claim got another job than the only one that should be ready")
	}
	return c
}

func newFinish(l job.Lease, to job.State) *store.Finish {
	f := &store.Finish{Lease: l, To: to}
	switch to {
	case job.Succeeded:
		f.Result = &job.Result{ContentType: "text/plain", Body: []byte("result")}
	case job.Scheduled:
		f.Delay = backoff
		f.Failure = &job.Failure{Code: "upstream_error", Message: "it failed", Retryable: true, Attempt: 1}
	case job.Failed:
		f.Failure = &job.Failure{Code: "bad_input", Message: "it failed for good", Attempt: 1}
	}
	return f
}

func newLapse(l job.Lease, to job.State) *store.Finish { return newSweep(l, to, store.LapsedOnly) }

// newSweep makes the finish of a sweep that found the attempt with a filter.
func newSweep(l job.Lease, to job.State, which store.RunningFilter) *store.Finish {
	f := newFinish(l, to)
	f.OnlyIf = which
	return f
}

// newLoss makes the finish of an attempt whose worker was lost.
func newLoss(l job.Lease) *store.Finish {
	f := newFinish(l, job.Scheduled)
	f.Lost = true
	f.Failure = &job.Failure{Code: "worker_lost", Message: "its worker is gone", Retryable: true, Attempt: 1}
	return f
}

func newRenew(l job.Lease, d time.Duration) *store.Renew { return &store.Renew{Lease: l, LeaseFor: d} }

// newAppend makes an append of text entries with the numbers after the given one.
func newAppend(l job.Lease, attempt int, after int64, texts ...string) *store.Append {
	return &store.Append{Lease: l, Entries: textEntries(attempt, after, texts...)}
}

func textEntries(attempt int, after int64, texts ...string) []job.Entry {
	entries := make([]job.Entry, len(texts))
	for i, text := range texts {
		entries[i] = job.Entry{Seq: after + int64(i) + 1, Attempt: attempt, Kind: job.KindText, Events: 1, Data: []byte(text)}
	}
	return entries
}

// ---- ops of owners ----

func newCancel(id job.ID) *store.Cancel { return &store.Cancel{Owner: mine, ID: id} }
func newDelete(id job.ID) *store.Delete { return &store.Delete{Owner: mine, ID: id} }

func newRetry(id job.ID) *store.Retry { return &store.Retry{Owner: mine, ID: id} }

// ---- upkeep ----

func newDue() *store.Due {
	return &store.Due{Limit: 1000, Failure: &job.Failure{Code: "queue_timeout", Message: "it waited too long"}}
}

func newPrune() *store.Prune { return &store.Prune{Limit: 1000} }

// ---- side rows ----

func put(parent, id, body string) store.Row {
	return store.Row{Owner: mine, Kind: "note", Parent: parent, ID: id, Body: []byte(body)}
}

func withAction(a store.Action, r store.Row) store.Row {
	r.Action = a
	return r
}

// moveRow makes an op's row move to another id.
func moveRow(r store.Row, to string) store.Row {
	r.Action, r.To = store.Move, to
	return r
}

func newWrite(rows ...store.Row) *store.Write { return &store.Write{Rows: rows} }

// ---- batches ----

// batchOf makes a batch of ops.
func batchOf(ops ...any) *store.Batch {
	b := store.NewBatch()
	for _, op := range ops {
		b.Add(op)
	}
	return b
}

// opsOf lists a batch's ops in the order in which they are applied.
func opsOf(b *store.Batch) (ops []any) {
	ops = gather(ops, b.Pauses)
	ops = gather(ops, b.Renews)
	ops = gather(ops, b.Presences)
	ops = gather(ops, b.Appends)
	ops = gather(ops, b.Finishes)
	ops = gather(ops, b.Cancels)
	ops = gather(ops, b.Deletes)
	ops = gather(ops, b.Retries)
	ops = gather(ops, b.Writes)
	ops = gather(ops, b.Submits)
	ops = gather(ops, b.Dues)
	ops = gather(ops, b.Prunes)
	return gather(ops, b.Claims)
}

func gather[T any](ops []any, of []T) []any {
	for _, op := range of {
		ops = append(ops, op)
	}
	return ops
}

// errOf is the Err of an op.
func errOf(op any) error {
	switch op := op.(type) {
	case *store.Pause:
		return op.Err
	case *store.Renew:
		return op.Err
	case *store.Presence:
		return op.Err
	case *store.Append:
		return op.Err
	case *store.Finish:
		return op.Err
	case *store.Cancel:
		return op.Err
	case *store.Delete:
		return op.Err
	case *store.Retry:
		return op.Err
	case *store.Write:
		return op.Err
	case *store.Submit:
		return op.Err
	case *store.Due:
		return op.Err
	case *store.Prune:
		return op.Err
	case *store.Claim:
		return op.Err
	}
	panic(fmt.Sprintf("storetest: %T is no op", op))
}

// fresh makes a batch with a new id of copies of ops that were not committed.
func fresh(b *store.Batch) *store.Batch {
	ops := opsOf(b)
	for i, op := range ops {
		ops[i] = freshOp(op)
	}
	return batchOf(ops...)
}

func freshOp(op any) any {
	switch op := op.(type) {
	case *store.Pause:
		return copied(op)
	case *store.Renew:
		return copied(op)
	case *store.Append:
		return copied(op)
	case *store.Finish:
		return copied(op)
	case *store.Cancel:
		return copied(op)
	case *store.Delete:
		return copied(op)
	case *store.Retry:
		return copied(op)
	case *store.Write:
		return copied(op)
	case *store.Submit:
		return copied(op)
	case *store.Due:
		return copied(op)
	case *store.Prune:
		return copied(op)
	case *store.Claim:
		return copied(op)
	}
	panic(fmt.Sprintf("storetest: %T is no op", op))
}

func copied[T any](op *T) *T {
	c := *op
	return &c
}
