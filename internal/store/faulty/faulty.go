// Package faulty is a store that fails on purpose: it wraps another store, and fails, delays or
// loses answers at a named step, by a plan or one commit at a time. It tests the packages that
// use a store, and every store: the conformance suite must also pass when the outcome of commits
// is unknown; see [Retrying].
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

// Step is the step of a commit at which it fails.
type Step uint8

// The steps.
const (
	None                 Step = iota // no fault
	BeforeCommit                     // nothing is applied: store.ErrNotCommitted
	LostBeforeCommit                 // nothing is applied, and the answer is lost: ErrLost
	LostAfterCommit                  // all is applied, and the answer is lost: ErrLost
	LostEither                       // LostBeforeCommit or LostAfterCommit, at random
	DiskFull                         // nothing is applied: store.ErrFull
	BadSync                          // all is applied, but the disk cannot be trusted
	SyncLostAfterCommit              // all is applied, the sync is lost: store.ErrUnknown
	SyncLostBeforeCommit             // nothing is stored in the end, the sync is lost: store.ErrUnknown
	SyncLostEither                   // SyncLostAfterCommit or SyncLostBeforeCommit, at random
)

// ErrLost is the error of a commit whose answer was lost.
var ErrLost = errors.New("faulty: the answer was lost")

// Fault is the fault of one commit. The zero value is no fault.
type Fault struct {
	Step Step
	// Outdated makes a lost sync say that the store works; see [store.ErrOutdated].
	Outdated bool
	// Before, when set, is called before the commit is applied, and After during its sync. The
	// commit waits for both: this makes it slow. While After blocks, the next commit may be
	// applied.
	Before, After func()
	// On, when set, reserves a fault given to Next for the next commit with an op for which On
	// is true. An engine also commits ops of its own, at times that a test does not know.
	On func(op any) bool
}

// Op is true for ops of one type. It is meant for On, as Op[store.Submit].
func Op[T any](op any) bool {
	_, is := op.(*T)
	return is
}

// Plan is the behaviour of a store. The zero value has no faults. Several goroutines may call its
// functions at once.
type Plan struct {
	// Commit returns the fault of the n-th call of Apply; the first is number 1.
	Commit func(n int, b *store.Batch) Fault
	// Bad marks ops whose data the store cannot take: a batch with such an op is refused with
	// store.ErrData.
	Bad func(op any) bool
	// Read is called before every read with the name of its method. The read fails with the
	// error that it returns. The read waits for it: this makes it slow.
	Read func(method string) error
	// Seed is the seed of all random choices.
	Seed uint64
	// Copy opens a copy of the wrapped store in its current state. A batch whose sync will fail,
	// and that will not be stored, is applied to the copy, so that it has answers until then.
	// It may be nil when no such step is planned.
	Copy func() (store.Store, error)
	// Clock changes the result of Now, and nothing else; nil does not change it.
	Clock func(time.Time) time.Time
}

// Store is a store that fails on purpose.
type Store struct {
	inner store.Store // set once
	plan  Plan        // set once

	mu sync.Mutex
	// Guarded by mu.
	random   *rand.Rand
	commits  int
	next     []Fault       // faults of the next commits, before the plan is asked
	lastLost store.BatchID // the last batch that was applied and whose answer was lost
	unknown  unknownBatches
}

// New wraps a store. Close of the wrapper closes it.
func New(inner store.Store, p Plan) *Store {
	return &Store{inner: inner, plan: p, random: rand.New(rand.NewPCG(p.Seed, 0))}
}

// Next sets the faults of the next commits, one for each; the plan is not asked for them. A fault
// that waits for its op delays the faults after it.
func (s *Store) Next(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = append(s.next, faults...)
}

// Commits is the number of calls of Apply.
func (s *Store) Commits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commits
}

// Every is a [Plan.Commit] in which each n-th commit fails at the step, starting with the commit
// number first.
func Every(n int, at Step, first int) func(int, *store.Batch) Fault {
	return func(commit int, _ *store.Batch) Fault {
		if commit >= first && (commit-first)%n == 0 {
			return Fault{Step: at}
		}
		return Fault{}
	}
}

// Apply fails as planned, or applies the batch; see [store.Store].
func (s *Store) Apply(ctx context.Context, b *store.Batch) (func() error, error) {
	f := s.fault(b)
	if f.Step == DiskFull && s.mayBeApplied(b) {
		f.Step = BeforeCommit // a store returns ErrFull only for a batch that was never applied
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
		case lost && f.Outdated:
			return fmt.Errorf("faulty: %w: %w", store.ErrUnknown, store.ErrOutdated)
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

// fault removes and returns the fault of the next commit. It replaces LostEither and
// SyncLostEither by one of their two steps.
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
