package sqlite

import (
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A page ends early if it scanned many rows for a long time. A short list is complete, however
// slow the machine is.
func TestListNeverCutsShortList(t *testing.T) {
	t.Parallel()
	a := newBulkStore(t, Options{Unsynced: true, Readers: 1})
	r := <-a.readers
	r.maxScanTime = -1 // every scan is too long
	a.readers <- r
	others := job.Filter{Owner: job.Owner{User: "u"}, Queue: "another", Limit: 10}
	for _, c := range []struct {
		more int
		cut  bool
	}{{maxScanRows - 1, false}, {10, true}} {
		a.addEnded(c.more, 1)
		if page, next, err := a.List(t.Context(), others); err != nil || len(page) > 0 || next != (job.ID{}) != c.cut {
			t.Errorf("with %d more rows the list has %d jobs and the cursor %s: %v", c.more, len(page), next, err)
		}
	}
}
