package sqlite

import (
	"os"
	"path/filepath"
	"testing"
	"testing/quick"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Under a load that never pauses the log is begun anew: it does not grow with what
// is written.
func TestTheLogIsBegunAnewUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	s, err := Open(t.Context(), path, Options{Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	const batch, most = 4 << 20, 512 << 20
	for written := int64(batch); written < most; written += batch {
		b := store.NewBatch()
		for range 4 {
			j := job.Job{ID: job.NewID(), Owner: job.Owner{User: "u"}, Queue: "q", Priority: 5, MaxAttempts: 1}
			b.Submits = append(b.Submits, &store.Submit{Job: j, Input: make([]byte, batch/4)})
		}
		if err := store.Commit(t.Context(), s, b); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() < written/2 {
			return
		}
	}
	t.Fatalf("after %d MiB the log still holds most of them", most>>20)
}

// A policy reads back as it was stored, to the millisecond.
func TestPoliciesAreKept(t *testing.T) {
	keep := func(lease, hard, queue, backoff, patience uint32, onTimeout, fail bool) bool {
		ms := func(n uint32) time.Duration { return time.Duration(n) * time.Millisecond }
		p := job.Policy{
			Timeouts: job.Timeouts{Lease: ms(lease), RunHard: ms(hard), Queue: ms(queue), CancelGrace: ms(backoff)},
			Retry:    job.Retry{Backoff: ms(backoff), For: ms(patience), OnTimeout: onTimeout, AfterOutput: job.RestartAfterOutput},
		}
		if fail {
			p.Retry.AfterOutput = job.FailAfterOutput
		}
		got, err := decodePolicy(encodePolicy(p))
		return err == nil && got == p
	}
	if err := quick.Check(keep, nil); err != nil {
		t.Error(err)
	}
}

// A policy that was cut short or is of a version to come is an error, not a guess.
func TestDamagedPoliciesAreNoticed(t *testing.T) {
	whole := encodePolicy(job.Policy{Timeouts: job.Timeouts{Lease: time.Hour}})
	for n := range whole {
		if _, err := decodePolicy(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes were read as a policy", n, len(whole))
		}
	}
	if _, err := decodePolicy(append([]byte{policyVersion + 1}, whole[1:]...)); err == nil {
		t.Error("a policy of another version was read")
	}
}
