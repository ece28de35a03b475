package store_test

import (
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func TestAnswerKey(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	first := &job.Job{ID: job.NewID()}
	same, other := [32]byte{1}, [32]byte{2}
	for name, c := range map[string]struct {
		use  store.KeyUse
		free bool
		code job.Code // "" for the existing job
	}{
		"its job exists":                      {use: store.KeyUse{Hash: same, Job: first}},
		"its job exists, past the key's time": {use: store.KeyUse{Hash: same, Keep: now, Job: first}},
		"another request":                     {use: store.KeyUse{Hash: other, Job: first}, code: job.IdempotencyMismatch},
		"its job was removed":                 {use: store.KeyUse{Hash: same, Keep: now.Add(1)}, code: job.NotFound},
		"another request, job removed":        {use: store.KeyUse{Hash: other, Keep: now.Add(1)}, code: job.IdempotencyMismatch},
		"its job was deleted while it runs":   {use: store.KeyUse{Hash: same, Job: first, Hidden: true}, code: job.NotFound},
		"job removed, past the key's time":    {use: store.KeyUse{Hash: other, Keep: now}, free: true},
	} {
		op := store.Submit{Idempotency: &store.Idempotency{Key: "k", Hash: same}}
		answered := op.AnswerKey(&c.use, now)
		switch {
		case answered == c.free:
			t.Errorf("%s: answered is %v", name, answered)
		case c.free:
			if op.Err != nil || op.Existing != nil {
				t.Errorf("%s: %v, %v", name, op.Err, op.Existing)
			}
		case c.code == "":
			if op.Err != nil || op.Existing != first {
				t.Errorf("%s: %v, %v", name, op.Err, op.Existing)
			}
		case job.CodeOf(op.Err) != c.code || op.Existing != nil:
			t.Errorf("%s: %v, %v; want %s", name, op.Err, op.Existing, c.code)
		}
	}
}
