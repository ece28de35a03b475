package engine

import (
	"context"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// A worker gets a cancel that another process stored with the answer to its next write, even if
// no caller waits for that answer.
func TestEveryWriteReportsCancel(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(w *sweepHarness, l job.Lease) error{
		"output":    func(w *sweepHarness, l job.Lease) error { return w.Append(w.t.Context(), l, oneEntry(1), nil) },
		"a renewal": func(w *sweepHarness, l job.Lease) error { return w.Renew(w.t.Context(), []job.Lease{l})[0] },
		"a renewal whose caller has left": func(w *sweepHarness, l job.Lease) error {
			ctx, leave := context.WithCancel(w.t.Context())
			leave()
			w.Renew(ctx, []job.Lease{l})
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newSweepHarness(t, time.Hour)
			id := w.submit(Request{})
			c := <-w.jobs
			b := store.NewBatch()
			b.Add(&store.Cancel{Owner: job.Owner{User: "u"}, ID: id})
			if err := store.Commit(t.Context(), w.store, b); err != nil {
				t.Fatal(err)
			}
			if err := write(w, c.Lease()); err != nil {
				t.Fatal(err)
			}
			if o := <-w.orders; o != job.OrderCancel {
				t.Errorf("the worker was ordered %d", o)
			}
		})
	}
}
