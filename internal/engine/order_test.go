package engine

import (
	"reflect"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// Ops are answered in the order of the fields of a batch, because the store applies them
// in that order.
func TestOpKindsFollowBatchFields(t *testing.T) {
	t.Parallel()
	batch := reflect.TypeFor[store.Batch]()
	last := -1
	for i := range batch.NumField() {
		field := batch.Field(i)
		if field.Type.Kind() != reflect.Slice || field.Type.Elem().Kind() != reflect.Pointer {
			continue
		}
		op := reflect.New(field.Type.Elem().Elem()).Interface()
		p := &pendingOp{op: op}
		if submit, ok := op.(*store.Submit); ok {
			p = &pendingOp{submits: []*store.Submit{submit}}
		}
		if kind := kindOf(p); kind != last+1 {
			t.Errorf("%s is the kind %d, want %d", field.Name, kind, last+1)
		}
		last++
	}
	if last != kindOf(&pendingOp{op: &store.Claim{}}) {
		t.Errorf("%d kinds were looked at", last+1)
	}
}

// Ops of one kind keep their order.
func TestStoreOrderIsStable(t *testing.T) {
	t.Parallel()
	var ops []*pendingOp
	for i := range 100 {
		p := &pendingOp{bytes: i, op: &store.Cancel{}}
		if i%3 == 0 {
			p.op = &store.Finish{}
		}
		ops = append(ops, p)
	}
	last := &pendingOp{op: &store.Pause{}}
	for i, p := range inStoreOrder(ops) {
		if kindOf(p) < kindOf(last) || kindOf(p) == kindOf(last) && p.bytes < last.bytes {
			t.Fatalf("op %d, asked as number %d, is in the wrong place", i, p.bytes)
		}
		last = p
	}
}

// Callers are answered in the order in which the store applied their ops: a finish before an
// earlier cancel of the same batch.
func TestCallersAreAnsweredInStoreOrder(t *testing.T) {
	t.Parallel()
	s := NewTestStore(t, sqlite.Options{})
	defer func() { _ = s.Close() }()
	e, err := New(t.Context(), Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	submit := &store.Submit{Job: job.Job{ID: job.NewID(), Queue: "q"}, Token: job.NewToken(), LeaseFor: time.Minute}
	b := store.NewBatch()
	b.Add(submit)
	if err := store.Commit(t.Context(), s, b); err != nil {
		t.Fatal(err)
	}
	cancel := &pendingOp{lane: laneUrgent, op: &store.Cancel{ID: submit.Job.ID}}
	answered := make(chan int, 1)
	finish := &pendingOp{
		lane: laneUrgent, op: &store.Finish{Lease: job.Lease{Job: submit.Job.ID, Token: submit.Token}, To: job.Failed},
		onAnswer: func(error) { answered <- len(cancel.done) },
	}
	for _, p := range []*pendingOp{cancel, finish} {
		if err := e.lanes.put(p); err != nil {
			t.Fatal(err)
		}
	}
	pb := e.gather()
	e.commit(t.Context(), pb)
	e.syncAndAnswer(pb)
	if before := <-answered; before != 0 || len(cancel.done) != 1 {
		t.Errorf("%d cancels were answered before the finish, %d in all", before, len(cancel.done))
	}
}
