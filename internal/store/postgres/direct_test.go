package postgres

import (
	"errors"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// wantDirect fails the test unless a batch can be direct, or cannot be.
func (d *harness) wantDirect(b *store.Batch, want bool) {
	d.Helper()
	if got := d.Store.isDirect(b); got != want {
		d.Errorf("a batch is direct: %v, want %v", got, want)
	}
}

func end(s *store.Submit) *store.Finish {
	return &store.Finish{Lease: leaseOf(s), To: job.Succeeded, Result: &job.Result{ContentType: "text/plain", Body: []byte("done")}}
}

// Batches that need no read are sent one after another, before the first is answered.
func TestDirectBatches(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	d.apply(newSubmit(leased))
	var syncs []func() error
	running := newSubmit(leased)
	ops := [][]any{{running}, {end(running), newSubmit()}, {&store.Claim{Queue: "q", Tokens: []job.Token{job.NewToken()}, LeaseFor: time.Minute}}, {newSubmit()}}
	for _, list := range ops {
		b := batchWith(list...)
		d.wantDirect(b, true)
		synced, err := d.Store.Apply(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		syncs = append(syncs, synced)
	}
	for i := range syncs { // in any order
		if err := syncs[len(syncs)-1-i](); err != nil {
			t.Error(err)
		}
	}
	if c := ops[2][0].(*store.Claim); len(c.Claimed) != 1 || string(c.Claimed[0].Input) != "input" {
		t.Errorf("the claim got %+v", c.Claimed)
	}
	for _, s := range []*Store{d.Store, d.another()} {
		if c, err := s.Counts(t.Context()); err != nil || c["q"] != (job.Counts{Queued: 1, Running: 2, Succeeded: 1, WaitingBytes: c["q"].WaitingBytes}) {
			t.Errorf("%+v, %v", c["q"], err)
		}
	}
}

// Another process comes first, and the batch is applied again.
func TestDirectBatchIsOutdated(t *testing.T) {
	t.Parallel()
	for name, between := range map[string]func(*harness, *Store, *store.Submit){
		"by a move": func(d *harness, other *Store, _ *store.Submit) { d.applyTo(other, newSubmit()) },
		"by a pause": func(d *harness, other *Store, _ *store.Submit) {
			d.applyTo(other, &store.Pause{Queue: "q", Paused: true})
		},
		"by a renewal": func(d *harness, other *Store, s *store.Submit) { d.applyTo(other, &store.Renew{Lease: leaseOf(s)}) },
		"by a cancel": func(d *harness, other *Store, s *store.Submit) {
			d.applyTo(other, &store.Cancel{Owner: local, ID: s.Job.ID})
		},
		"by its end": func(d *harness, other *Store, s *store.Submit) { d.applyTo(other, end(s)) },
		"by output": func(d *harness, other *Store, s *store.Submit) {
			d.applyTo(other, &store.Append{Lease: leaseOf(s), Entries: entriesAfter(0, "text")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newHarness(t)
			other := d.another()
			running := newSubmit(leased)
			d.apply(running)
			between(d, other, running)
			finish, submit := end(running), newSubmit(leased)
			b := batchWith(finish, submit)
			d.wantDirect(b, true)
			if err := store.Commit(t.Context(), d.Store, b); err != nil {
				t.Fatal(err)
			}
			j, err := d.Store.Job(t.Context(), local, running.Job.ID)
			if err != nil || !j.State.Ended() {
				t.Errorf("the job is %v, %v", j.State, err)
			}
			switch name {
			case "by a cancel":
				if j.State != job.Cancelled || finish.State != job.Cancelled {
					t.Errorf("the cancelled job is %v, and its finish says %v", j.State, finish.State)
				}
			case "by its end":
				if job.CodeOf(finish.Err) != job.LeaseLost {
					t.Errorf("the second finish answers %v", finish.Err)
				}
			case "by a pause":
				if submit.Job.State != job.Queued {
					t.Errorf("a job of a paused queue is %v", submit.Job.State)
				}
			case "by output":
				if j.Cursor != 1 {
					t.Errorf("the output ends at %d", j.Cursor)
				}
			}
			want, err := other.Counts(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got, err := d.Store.Counts(t.Context()); err != nil || got["q"] != want["q"] {
				t.Errorf("the counts are %+v (%v), and at the other store %+v", got["q"], err, want["q"])
			}
		})
	}
}

// Output and renewals of known jobs are direct too, also while another process is busy.
func TestDirectOutput(t *testing.T) {
	t.Parallel()
	for name, between := range map[string]func(*harness, *Store, *store.Submit){
		"alone": func(*harness, *Store, *store.Submit) {},
		"after a move": func(d *harness, other *Store, _ *store.Submit) {
			d.applyTo(other, newSubmit())
			d.wantQueued(d.Store, 1)
		},
		"after a cancel": func(d *harness, other *Store, s *store.Submit) {
			d.applyTo(other, &store.Cancel{Owner: local, ID: s.Job.ID})
		},
		"after its end": func(d *harness, other *Store, s *store.Submit) { d.applyTo(other, end(s)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newHarness(t)
			other := d.another()
			running := newSubmit(leased)
			d.apply(running)
			between(d, other, running)
			renewed := &store.Renew{Lease: leaseOf(running)}
			first := &store.Append{Lease: leaseOf(running), Entries: entriesAfter(0, "one ")}
			second := &store.Append{Lease: leaseOf(running), Entries: entriesAfter(1, "two")}
			b := batchWith(renewed, first)
			d.wantDirect(b, true)
			for _, b := range []*store.Batch{b, batchWith(second)} {
				if err := store.Commit(t.Context(), d.Store, b); err != nil {
					t.Fatal(err)
				}
			}
			want := "one two"
			if name == "after its end" {
				want = ""
			}
			if _, text, err := other.Text(t.Context(), local, running.Job.ID, 100); err != nil || text != want {
				t.Errorf("the text is %q (%v), want %q", text, err, want)
			}
			if lost := job.CodeOf(second.Err) == job.LeaseLost; lost != (name == "after its end") || (job.CodeOf(renewed.Err) == job.LeaseLost) != lost {
				t.Errorf("the lease: %v, %v", renewed.Err, second.Err)
			}
			if cancelled := name == "after a cancel"; renewed.CancelRequested != cancelled || second.CancelRequested != cancelled {
				t.Errorf("a cancel is requested: %v, %v", renewed.CancelRequested, second.CancelRequested)
			}
		})
	}
}

// While batches have to be applied again, in their order, no other is applied.
func TestDirectBatchesInDoubt(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	d.apply(newSubmit())
	lost := errors.New("the answer was lost")
	n := 0
	d.Store.afterCommit = func(err error) error {
		if n++; n == 2 {
			return lost
		}
		return err
	}
	var batches []*store.Batch
	var syncs []func() error
	for range 3 {
		b := batchWith(newSubmit())
		synced, err := d.Store.Apply(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		batches, syncs = append(batches, b), append(syncs, synced)
	}
	for i, want := range []error{nil, store.ErrUnknown, store.ErrUnknown} {
		if err := syncs[i](); !errors.Is(err, want) {
			t.Errorf("the sync of batch %d: %v", i, err)
		}
	}
	for _, wrong := range []*store.Batch{batches[2], batchWith(newSubmit())} {
		if _, err := d.Store.Apply(t.Context(), wrong); !errors.Is(err, store.ErrNotCommitted) {
			t.Errorf("a batch that is not the next one: %v", err)
		}
	}
	for _, b := range batches[1:] {
		if err := store.Commit(t.Context(), d.Store, b); err != nil {
			t.Fatal(err)
		}
	}
	d.apply(newSubmit())
	d.wantQueued(d.Store, 5)
	d.wantQueued(d.another(), 5)
}

// A process whose turn it is makes its batch then, and gives its turn up if there is none.
func TestBegin(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	other := d.another()
	d.apply(newSubmit())
	d.applyTo(other, newSubmit())
	d.apply(newSubmit()) // follows the move of the other store
	d.Store.Begin(t.Context())
	if d.Store.begun == nil {
		t.Fatal("while another process is busy, nothing was begun")
	}
	done := make(chan error, 1)
	go func() { done <- store.Commit(t.Context(), other, batchWith(newSubmit())) }()
	d.awaitQuery(done, waitsForLock)
	if _, err := d.Store.Counts(t.Context()); err != nil {
		t.Error(err)
	}
	d.apply(newSubmit())
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	cancel := d.Store.Begin(t.Context())
	cancel()
	d.applyTo(other, newSubmit())
	d.wantQueued(d.Store, 6)
	d.wantQueued(other, 6)
}

// A restore ends all connections. The first direct batch after it finds that the last move is gone.
func TestDirectBatchAfterRestore(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	d.apply(newSubmit())
	d.now = d.now.Add(time.Second)
	lost := newSubmit()
	d.apply(lost)
	for _, table := range []string{"inputs where n = (select n from jobs where id = $1)", "jobs where id = $1"} {
		d.exec("delete from "+table, lost.Job.ID)
	}
	d.exec("delete from moves where seq = 2")
	d.exec("delete from applied where at = $1", d.now.UnixMicro())
	d.Store.mu.Lock()
	d.disconnect()
	d.Store.mu.Unlock()
	b := batchWith(newSubmit())
	d.wantDirect(b, true)
	if err := store.Commit(t.Context(), d.Store, b); err != nil {
		t.Fatal(err)
	}
	d.wantQueued(d.Store, 2)
	d.wantQueued(d.another(), 2)
}

// A refusal is not answered from memory: nothing of the batch would be guarded.
func TestRefusalIsRead(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	other := d.another()
	running := newSubmit(leased)
	d.apply(running)
	d.applyTo(other, &store.Append{Lease: leaseOf(running), Entries: entriesAfter(0, "text")})
	finish := end(running)
	finish.Entries = entriesAfter(1, "more")
	d.applyTo(d.Store, finish)
	if finish.Err != nil {
		t.Errorf("a finish with the next entries after those of another process answers %v", finish.Err)
	}
}

// A claim repeats a token that another process has given a job, and gets that job, also when no job
// is left for the token.
func TestRepeatedTokenIsFound(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	other := d.another()
	d.apply(newSubmit())
	first := &store.Claim{Queue: "q", Tokens: []job.Token{job.NewToken()}, LeaseFor: time.Minute}
	d.applyTo(other, first)
	if len(first.Claimed) != 1 {
		t.Fatalf("%d jobs", len(first.Claimed))
	}
	AlwaysRead(d.Store)
	d.apply(newSubmit()) // follows the move
	d.Store.options.alwaysRead = false
	again := &store.Claim{Queue: "q", Tokens: []job.Token{job.NewToken(), first.Tokens[0]}, LeaseFor: time.Minute}
	d.apply(again)
	if len(again.Claimed) != 2 {
		t.Errorf("the claim got %d jobs, want the one of its token and another", len(again.Claimed))
	}
}
