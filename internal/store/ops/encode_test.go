package ops

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// someChanges has every kind of change and every kind of move.
func someChanges() (all []Change) {
	for _, flag := range []bool{false, true} {
		all = append(all,
			Change{Kind: Advanced, Queue: "q", Tenant: "t", Resource: "gpt", Turn: 1 << 40},
			Change{Kind: Paused, Queue: "", Flag: flag},
			Change{Kind: Forgot, Queue: "q", Tenant: "t", Resource: "gpt"},
			Change{Kind: ScanNeeded, Queue: "q"},
			Change{Kind: SuspectParked, Queue: "other"},
			Change{Kind: NextSuspect, Queue: "other", Flag: flag},
			Change{Kind: Passed, Queue: "q", Tenant: "日本"},
			Change{Kind: Held, Queue: "q", Tenant: "日本", Resource: "gpt"},
		)
	}
	for from := job.State(0); from <= job.Expired; from++ {
		for to := job.Scheduled; to <= job.Expired; to++ {
			j := job.Job{
				Queue: fmt.Sprint("q", from), Owner: job.Owner{Tenant: "t"}, Key: "k", Resource: "r", Priority: 1 + int(to),
				State: to, InputBytes: 1 << 20, RunAt: time.UnixMicro(1_900_000_000_000_000 + int64(from)),
			}
			turn := int64(0)
			if isReady(to) {
				turn = -5*int64(to) + int64(from)
			}
			all = append(all, movedChange(&j, from, turn, true))
		}
	}
	return all
}

// Changes are decoded as they were encoded.
func TestChangesRoundTrip(t *testing.T) {
	t.Parallel()
	want := someChanges()
	got, err := DecodeChanges(AppendChanges(nil, want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the changes are decoded as\n%+v, %v, want\n%+v", got, err, want)
	}
	if got, err := DecodeChanges(AppendChanges(nil, nil)); err != nil || len(got) > 0 {
		t.Errorf("no changes are decoded as %+v, %v", got, err)
	}
}

// A busy batch has small changes.
func TestChangesAreSmall(t *testing.T) {
	t.Parallel()
	var all []Change
	for i := range 500 {
		j := job.Job{
			Queue: "chat", Owner: job.Owner{Tenant: "tenant"}, Key: fmt.Sprint("user-", i%20), Priority: job.DefaultPriority,
			State: job.Running, InputBytes: 500, RunAt: time.UnixMicro(1_900_000_000_000_000 + int64(i)*1000),
		}
		all = append(all, movedChange(&j, job.Queued, 0, false))
	}
	if n := len(AppendChanges(nil, all)); n > 12*len(all) {
		t.Errorf("%d changes take %d bytes", len(all), n)
	}
}

// Truncated changes, or those of another version, are an error.
func TestDecodeChangesRefusesDamage(t *testing.T) {
	t.Parallel()
	whole := AppendChanges(nil, someChanges())
	for n := range whole {
		// A prefix may end between two changes: then it has only whole ones.
		got, err := DecodeChanges(whole[:n])
		if err == nil && !reflect.DeepEqual(got, someChanges()[:len(got)]) && len(got) > 0 {
			t.Errorf("%d of %d bytes are decoded as other changes", n, len(whole))
		}
	}
	if _, err := DecodeChanges(nil); err == nil {
		t.Error("nothing was decoded as changes")
	}
	if _, err := DecodeChanges(append([]byte{changesVersion + 1}, whole[1:]...)); err == nil {
		t.Error("changes of another version were decoded")
	}
	for _, bad := range [][]byte{
		{byte(lastKind+1) << 1, 0, 0},            // unknown kind
		{byte(Paused) << 1, 5},                   // a name that was not written
		{byte(Paused) << 1, 0, 200, 1, 'q'},      // a name longer than the rest
		{byte(Moved) << 1, 0, 0, 0x10},           // a move to no state
		{byte(Moved) << 1, 0, 0, 0xf1, 1, 1},     // a move from an unknown state
		{byte(Advanced) << 1, 0, 0, 1, 1, 0x80},  // an incomplete number
		{byte(Advanced) << 1, 0x80},              // an incomplete name
		{byte(NextSuspect)<<1 | 1, 0, 1, 'q', 0}, // a change of no kind follows
	} {
		if got, err := DecodeChanges(append([]byte{changesVersion}, bad...)); err == nil {
			t.Errorf("%x is decoded as %+v", bad, got)
		}
	}
}

// Any bytes are refused or decode to changes that are encoded again in the same way or shorter.
func FuzzDecodeChanges(f *testing.F) {
	f.Add(AppendChanges(nil, someChanges()))
	f.Add(AppendChanges(nil, nil))
	f.Add([]byte{changesVersion, byte(Moved) << 1, 0, 1, 'q', 0x12, 1, 1, 1, 10, 4, 6, 8})
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := DecodeChanges(data)
		if err != nil {
			return
		}
		raw := AppendChanges(nil, first)
		again, err := DecodeChanges(raw)
		if err != nil || !reflect.DeepEqual(again, first) {
			t.Fatalf("%x is decoded as\n%+v, and then as\n%+v, %v", data, first, again, err)
		}
		if !bytes.Equal(AppendChanges(nil, again), raw) {
			t.Fatalf("%+v is encoded in two ways", first)
		}
	})
}
