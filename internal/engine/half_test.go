package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// halfDamagedStore cannot take the data of one submit, so that its batch is halved. It
// reports damage when the half with that submit is committed.
type halfDamagedStore struct {
	store.Store
	tries int // batches with that submit; owned by the engine's loop
}

func (s *halfDamagedStore) Apply(ctx context.Context, b *store.Batch) (func() error, error) {
	for _, op := range b.Submits {
		if string(op.Input) != "poison" {
			continue
		}
		if s.tries++; s.tries == 1 {
			return nil, fmt.Errorf("%w: %w", store.ErrData, store.ErrNotCommitted)
		}
		return nil, fmt.Errorf("%w: %w", store.ErrDamaged, store.ErrNotCommitted)
	}
	return s.Store.Apply(ctx, b)
}

// The second half of a batch cannot be applied. The jobs of the first half are
// acknowledged and delivered to workers. Then the engine ends, although no other op
// comes.
func TestAppliedHalfOfBatchIsAcknowledged(t *testing.T) {
	t.Parallel()
	s := &halfDamagedStore{Store: newStore(t)}
	e, err := engine.New(context.Background(), engine.Config{Store: s, Queues: queues()})
	if err != nil {
		t.Fatal(err)
	}
	delivered := make(chan job.Claimed, 9)
	defer e.Consume(job.Worker{Name: "local", Queue: "wide", Slots: 1, Deliver: func(c job.Claimed) { delivered <- c }})()
	ended := make(chan error, 1)
	go func() { ended <- e.Run(context.Background()) }()
	var list []engine.Request
	for _, input := range []string{"a", "b", "poison", "c"} {
		list = append(list, engine.Request{Owner: local, Queue: "wide", Input: []byte(input)})
	}
	answers, err := e.SubmitMany(t.Context(), list, false)
	if err != nil || len(answers) != 4 {
		t.Fatalf("the batch was answered %v, %v", answers, err)
	}
	for i, want := range []job.Code{"", "", job.Unavailable, job.Unavailable} {
		if job.CodeOf(answers[i].Err) != want {
			t.Errorf("%s was answered %v", list[i].Input, answers[i].Err)
		}
	}
	if c := <-delivered; string(c.Input) != "a" {
		t.Errorf("the worker was given %q", c.Input)
	}
	if err := <-ended; !errors.Is(err, store.ErrDamaged) {
		t.Errorf("the engine ended with %v", err)
	}
	_ = s.Close()
}
