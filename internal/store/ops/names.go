package ops

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Names is what the ops of a batch name, and so what they will read from a [Tx]. A name may be
// listed several times. What depends on what is read is missing: the jobs of idempotency keys, the
// keys of jobs that a batch deletes, the candidates of claims, what is due, and what the end of a
// job adds.
type Names struct {
	// Running are jobs that the batch looks for among the running ones; see [LeaseTx.Running].
	Running []job.ID
	// Jobs are jobs that it looks for in any state; see [JobTx.Find].
	Jobs []store.OwnedID
	// Tokens may hold a running job; see [LeaseTx.Holder].
	Tokens []job.Token
	Keys   []OwnedKey
	// Rows are rows whose body or length it reads; Sets are sets of which it reads the first row or
	// the lengths.
	Rows []RowID
	Sets []store.RowSet
	// Kept are owners whose kept bytes it reads; see [SumTx.KeptBytes].
	Kept []job.Owner
	// Queues are the queues of its pauses, submits and claims.
	Queues []string
}

// RowID names a side row.
type RowID struct {
	store.RowSet
	ID string
}

// NamesOf lists what a batch names.
func NamesOf(b *store.Batch) *Names {
	n := &Names{}
	for _, op := range b.Pauses {
		n.Queues = append(n.Queues, op.Queue)
	}
	for _, op := range b.Renews {
		n.Running = append(n.Running, op.Lease.Job)
	}
	for _, op := range b.Appends {
		n.Running = append(n.Running, op.Lease.Job)
	}
	for _, op := range b.Finishes {
		n.Running = append(n.Running, op.Lease.Job)
	}
	for _, op := range b.Cancels {
		n.Jobs = append(n.Jobs, store.OwnedID{Owner: op.Owner, ID: op.ID})
	}
	for _, op := range b.Deletes {
		n.Jobs = append(n.Jobs, store.OwnedID{Owner: op.Owner, ID: op.ID})
		n.addKept(b, op.Owner)
	}
	for _, op := range b.Retries {
		n.Jobs = append(n.Jobs, store.OwnedID{Owner: op.Owner, ID: op.ID})
	}
	for _, op := range b.Writes {
		n.addRows(op.Rows)
		if len(op.Rows) > 0 {
			n.addKept(b, op.Rows[0].Owner)
		}
	}
	for _, op := range b.Submits {
		n.addSubmit(b, op)
	}
	for _, op := range b.Claims {
		n.Queues = append(n.Queues, op.Queue)
		n.Tokens = append(n.Tokens, op.Tokens...)
	}
	return n
}

func (n *Names) addSubmit(b *store.Batch, op *store.Submit) {
	n.Queues = append(n.Queues, op.Job.Queue)
	if !op.Token.IsZero() {
		n.Tokens = append(n.Tokens, op.Token)
	}
	if k := op.Idempotency; k != nil {
		n.Keys = append(n.Keys, OwnedKey{op.Job.Owner, k.Key})
	}
	n.addRows(op.Rows)
	if keptBytes(op) > 0 {
		n.addKept(b, op.Job.Owner)
	}
}

func (n *Names) addRows(rows []store.Row) {
	for i := range rows {
		switch r := &rows[i]; r.Action {
		case store.RequireNone, store.RemoveAll:
			n.Sets = append(n.Sets, r.Set())
		case store.Move:
			n.Rows = append(n.Rows, RowID{r.Set(), r.ID}, RowID{r.Set(), r.To})
		default:
			n.Rows = append(n.Rows, RowID{r.Set(), r.ID})
		}
	}
}

func (n *Names) addKept(b *store.Batch, o job.Owner) {
	if b.MaxKept > 0 {
		n.Kept = append(n.Kept, o)
	}
}
