package storetest

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Benchmarks measures the store with its own clock and one committer, as the commit loop uses
// it: whole batches, inputs of 500 bytes, jobs of a few keys. Some use a hundred keys, each with
// a limit of running jobs.
func Benchmarks(b *testing.B, s Suite) {
	for _, size := range []int{1, 64, 100, 256} {
		b.Run(fmt.Sprintf("submit+claim+finish/batch=%d", size), func(b *testing.B) { newBench(b, s).claimed(size) })
		b.Run(fmt.Sprintf("submit-leased+finish/batch=%d", size), func(b *testing.B) { newBench(b, s).leased(size) })
		b.Run(fmt.Sprintf("append/batch=%d", size), func(b *testing.B) { newBench(b, s).appends(size) })
	}
	b.Run("submit+claim+finish/keys=100/batch=100", func(b *testing.B) { newBench(b, s).keyed(0).claimed(100) })
	b.Run("submit+claim+finish/keys=100/limited/batch=100", func(b *testing.B) { newBench(b, s).keyed(2).claimed(100) })
	b.Run("submit-leased+finish/keys=100/batch=100", func(b *testing.B) { newBench(b, s).keyed(0).leased(100) })
}

type bench struct {
	*testing.B
	store  store.Store
	bytes  []byte
	keys   int
	limits map[string]job.Limits
}

func newBench(b *testing.B, s Suite) *bench {
	st := s.Open(b, filepath.Join(b.TempDir(), "store"), Options{})
	b.Cleanup(func() { _ = st.Close() })
	return &bench{B: b, store: st, bytes: bytes.Repeat([]byte("5"), 500), keys: 16}
}

// keyed makes a bench with a hundred keys, each with a limit of running jobs; 0 for none.
func (b *bench) keyed(running int) *bench {
	b.keys, b.limits = 100, map[string]job.Limits{queue: {KeyRunning: running}}
	return b
}

func (b *bench) commit(batch *store.Batch) {
	batch.Limits = b.limits
	if err := store.Commit(context.Background(), b.store, batch); err != nil {
		b.Fatal(err)
	}
}

// rate reports the number of operations per second.
func (b *bench) rate(size int, what string) {
	b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), what+"/s")
}

func (b *bench) submits(n int, leased bool) []*store.Submit {
	all := make([]*store.Submit, n)
	for i := range all {
		id := job.NewID()
		all[i] = &store.Submit{Input: b.bytes, Job: job.Job{
			ID: id, Owner: mine, Queue: queue, Key: string(rune('a' + i%b.keys)),
			Priority: job.DefaultPriority, MaxAttempts: job.DefaultMaxAttempts,
		}}
		if leased {
			leasedAs(job.NewToken())(all[i])
		}
	}
	return all
}

// claimed runs jobs through submit, claim and finish. Each batch submits some jobs, claims as
// many, and finishes the jobs that the batch before claimed.
func (b *bench) claimed(size int) {
	var leased []job.Claimed
	for b.Loop() {
		claim := &store.Claim{Queue: queue, Worker: "bench", LeaseFor: leaseFor, Tokens: make([]job.Token, size)}
		for i := range claim.Tokens {
			claim.Tokens[i] = job.NewToken()
		}
		batch := store.NewBatch()
		batch.Submits, batch.Claims = b.submits(size, false), []*store.Claim{claim}
		for i := range leased {
			batch.Finishes = append(batch.Finishes, newFinish(leased[i].Lease(), job.Succeeded))
		}
		b.commit(batch)
		leased = claim.Claimed
	}
	b.rate(size, "jobs")
}

// leased runs jobs that are submitted with a lease. Each batch submits some and finishes those
// of the batch before.
func (b *bench) leased(size int) {
	var leased []*store.Submit
	for b.Loop() {
		batch := store.NewBatch()
		batch.Submits = b.submits(size, true)
		for _, s := range leased {
			batch.Finishes = append(batch.Finishes, newFinish(job.Lease{Job: s.Job.ID, Token: s.Token}, job.Succeeded))
		}
		b.commit(batch)
		leased = batch.Submits
	}
	b.rate(size, "jobs")
}

// appends appends one entry of 500 bytes to each of some running jobs.
func (b *bench) appends(size int) {
	leased := b.submits(size, true)
	first := store.NewBatch()
	first.Submits = leased
	b.commit(first)
	for n := int64(0); b.Loop(); n++ {
		batch := store.NewBatch()
		for _, s := range leased {
			batch.Appends = append(batch.Appends, newAppend(job.Lease{Job: s.Job.ID, Token: s.Token}, 1, n, string(b.bytes)))
		}
		b.commit(batch)
	}
	b.rate(size, "appends")
}
