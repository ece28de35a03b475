package postgres

import (
	"reflect"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// Changes of all kinds are decoded as they were encoded, and no cut of them makes the decoder panic.
func TestChanges(t *testing.T) {
	t.Parallel()
	at := time.UnixMicro(1_900_000_000_123_456)
	want := []ops.Change{
		{Kind: ops.Moved, Queue: "q", Tenant: "t", Key: "k", Resource: "r", Priority: 9, Bytes: 1 << 40, RunAt: at, From: 0, To: job.Queued, Turn: -5},
		{Kind: ops.Advanced, Queue: "q", Tenant: "t", Turn: 1 << 60, Flag: true},
		{Kind: ops.Moved, Queue: "q", Tenant: "t", Key: "k", RunAt: at.Add(-time.Hour), From: job.Queued, To: job.Running, Flag: true},
		{Kind: ops.Paused, Queue: "other", Flag: true},
		{Kind: ops.NextSuspect},
	}
	raw := encodeChanges(want)
	var got []ops.Change
	if err := eachChange(raw, func(c *ops.Change) { got = append(got, *c) }); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the changes are\n%+v, want\n%+v", got, want)
	}
	for cut := range raw {
		n := 0
		if err := eachChange(raw[:cut], func(*ops.Change) { n++ }); err == nil && n == len(want) {
			t.Errorf("the first %d of %d bytes are decoded as all changes", cut, len(raw))
		}
	}
	if err := eachChange([]byte{changesVersion + 1}, func(*ops.Change) {}); err == nil {
		t.Error("changes of a newer version are decoded")
	}
}
