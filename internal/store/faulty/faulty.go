// Package faulty is a store that breaks on purpose: it wraps another one and
// fails, delays or forgets at a named step, by a plan or one commit at a time.
// What stands on a store is tested with it, and so is every store: its conformance
// suite also passes when the outcome of its commits is not told; see [Retrying].
package faulty

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Step names the dangerous step of a commit at which it breaks.
type Step uint8

// The steps.
const (
	None                 Step = iota // nothing breaks
	BeforeCommit                     // nothing is applied, and the caller is told so: store.ErrNotCommitted
	LostBeforeCommit                 // nothing is applied, and the caller learns nothing
	LostAfterCommit                  // all is applied, and the caller learns nothing
	LostEither                       // one of the last two, by the flip of a coin
	DiskFull                         // nothing is applied, and the caller is told: store.ErrFull
	BadSync                          // all is applied, and the disk cannot say whether it has it
	SyncLostAfterCommit              // all is applied, and the sync learns nothing: store.ErrUnknown
	SyncLostBeforeCommit             // nothing will have been applied, and the sync learns nothing: store.ErrUnknown
	SyncLostEither                   // one of the last two, by the flip of a coin
)

// ErrLost is why the caller of a commit learns nothing of it.
var ErrLost = errors.New("faulty: the answer was lost")

// Fault is what becomes of one commit. The zero value lets it be.
type Fault struct {
	Step Step
	// Before and After are called, when set, before the commit would be applied, and
	// after that as a part of its sync. A commit waits for them: that is how it is slow.
	// While After blocks the next commit may be applied.
	Before, After func()
	// On, when set, keeps the fault given to Next for the next commit that holds such
	// an op: an engine also commits what it does by itself, at times of its own.
	On func(op any) bool
}

// Op is true of the ops of one type, as in On: Op[store.Submit].
func Op[T any](op any) bool {
	_, is := op.(*T)
	return is
}

// Plan is how a store behaves. The zero value breaks nothing. Its functions may be
// called by several goroutines at once.
type Plan struct {
	// Commit says what becomes of the n-th call of Apply; the first has the number 1.
	Commit func(n int, b *store.Batch) Fault
	// Bad marks ops whose data the store cannot take: a batch that holds one is
	// refused with store.ErrData.
	Bad func(op any) bool
	// Read is asked before every read, by the name of its method; the read fails with
	// the error that it returns. A read waits for it: that is how it is slow.
	Read func(method string) error
	// Seed is for the coin of Unknown: the same seed flips the same.
	Seed uint64
	// Copy opens a copy of the wrapped store as it is now. A batch that will not have been
	// applied when its sync fails is applied there, so that it has answers until then. Nil
	// where no such step is planned.
	Copy func() (store.Store, error)
	// Clock changes what Now tells, and nothing else; nil leaves it as it is.
	Clock func(time.Time) time.Time
}

// Store is a store that breaks on purpose.
type Store struct {
	inner store.Store // set once
	plan  Plan        // set once

	mu sync.Mutex
	// Guarded by mu.
	random   *rand.Rand
	commits  int
	next     []Fault       // one-shot faults for the coming commits, before the plan is asked
	lastLost store.BatchID // the last batch that was applied without its caller learning so
	unknown  unknownBatches
}

// New wraps a store. Closing the wrapper closes it.
func New(inner store.Store, p Plan) *Store {
	return &Store{inner: inner, plan: p, random: rand.New(rand.NewPCG(p.Seed, 0))}
}

// Next says what becomes of the coming commits, one fault for each, whatever the
// plan says of them. A fault that waits for its op holds up the ones after it.
func (s *Store) Next(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = append(s.next, faults...)
}

// Commits is how often Apply was called.
func (s *Store) Commits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commits
}

// Every is a plan in which each n-th commit breaks at the step, beginning with the
// one whose number is first.
func Every(n int, at Step, first int) func(int, *store.Batch) Fault {
	return func(commit int, _ *store.Batch) Fault {
		if commit >= first && (commit-first)%n == 0 {
			return Fault{Step: at}
		}
		return Fault{}
	}
}

// Apply breaks as planned, or applies; see [store.Store].
func (s *Store) Apply(ctx context.Context, b *store.Batch) (func() error, error) {
	f := s.fault(b)
	if f.Step == DiskFull && s.mayBeApplied(b) {
		f.Step = BeforeCommit // a store that has applied it does not say so
	}
	call(f.Before)
	in, lost, err := s.chooseStore(b, f.Step)
	var synced func() error
	if err == nil {
		synced, err = s.apply(ctx, in, b, f)
	}
	if err != nil {
		s.mu.Lock()
		err = errors.Join(err, s.unknown.failed(b, err))
		s.mu.Unlock()
		call(f.After)
		return nil, err
	}
	return func() error {
		call(f.After)
		switch {
		case f.Step == BadSync:
			return ErrLost
		case lost:
			return fmt.Errorf("faulty: %w", store.ErrUnknown)
		}
		return synced()
	}, nil
}

func (s *Store) apply(ctx context.Context, in store.Store, b *store.Batch, f Fault) (synced func() error, err error) {
	if s.plan.Bad != nil && anyOp(b, s.plan.Bad) {
		return nil, fmt.Errorf("faulty: %w: %w", store.ErrData, store.ErrNotCommitted)
	}
	switch f.Step {
	case BeforeCommit:
		return nil, fmt.Errorf("faulty: %w", store.ErrNotCommitted)
	case DiskFull:
		return nil, fmt.Errorf("faulty: %w: %w", store.ErrFull, store.ErrNotCommitted)
	case LostBeforeCommit:
		return nil, ErrLost
	}
	synced, err = in.Apply(ctx, b)
	if err == nil && f.Step == LostAfterCommit {
		s.mu.Lock()
		s.lastLost = b.ID
		s.mu.Unlock()
		return nil, ErrLost
	}
	return synced, err
}

// fault takes what is to become of the next commit, with the coin flipped.
func (s *Store) fault(b *store.Batch) (f Fault) {
	s.mu.Lock()
	s.commits++
	n := s.commits
	heads := s.random.IntN(2) == 0
	planned := len(s.next) == 0 || s.next[0].On != nil && !anyOp(b, s.next[0].On)
	if !planned {
		f, s.next = s.next[0], s.next[1:]
	}
	s.mu.Unlock()
	if planned && s.plan.Commit != nil {
		f = s.plan.Commit(n, b)
	}
	switch {
	case f.Step == LostEither && heads:
		f.Step = LostBeforeCommit
	case f.Step == LostEither:
		f.Step = LostAfterCommit
	case f.Step == SyncLostEither && heads:
		f.Step = SyncLostBeforeCommit
	case f.Step == SyncLostEither:
		f.Step = SyncLostAfterCommit
	}
	return f
}

func call(f func()) {
	if f != nil {
		f()
	}
}

// Close closes the wrapped store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.unknown.dropCopy(), s.inner.Close())
}
