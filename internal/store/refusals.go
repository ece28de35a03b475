package store

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// This file has the refusals of the contract, so that a client reads the same sentences from
// every store, and the rules that decide between refusals. The comments of the ops and reads
// name the refusal for each case.

// NoJob refuses a job that does not exist or belongs to another owner.
func NoJob(id job.ID) error { return job.Errorf(job.NotFound, "there is no job %s", id) }

// NoResult refuses the result of a job in a state other than succeeded.
func NoResult(s job.State) error {
	return job.Errorf(job.NotFinished, "the job has no result: it is %s", s)
}

// NoIdempotencyKey refuses the read of a free idempotency key.
func NoIdempotencyKey() error {
	return job.Errorf(job.NotFound, "no job was made with this idempotency key")
}

// LeaseLost refuses a stale lease.
func LeaseLost(l job.Lease) error {
	return job.Errorf(job.LeaseLost, "the lease on %s is not held any more: another worker has the job, or it has ended", l.Job)
}

// SweepTooLate refuses a [Finish] whose job no longer matches OnlyIf.
func SweepTooLate(id job.ID) error {
	return job.Errorf(job.LeaseLost, "the sweep came too late for %s: its worker has renewed the lease or sent output since", id)
}

// BadFinish refuses a [Finish] to a state that cannot follow running.
func BadFinish(to job.State) error {
	return job.Errorf(job.Invalid, "a running job cannot become %s", to)
}

// ClientPresent refuses a [Cancel] with IfAbandoned.
func ClientPresent() error {
	return job.Errorf(job.Conflict, "a client of the job was present since it was listed")
}

// TokenInUse refuses a [Submit] whose token holds another job.
func TokenInUse() error {
	return job.Errorf(job.Conflict, "the token of the lease holds another job")
}

// KeyReused refuses a [Submit] whose idempotency key was used with another hash.
func KeyReused() error {
	return job.Errorf(job.IdempotencyMismatch, "this idempotency key was used before, for another request")
}

// GroupRefused refuses the other submits of a [Group] when one of its submits was refused.
func GroupRefused() error {
	return job.Errorf(job.BatchRefused, "another job of the batch was refused, so that none of it was stored")
}

// NoRow refuses a [Require] of a row that does not exist.
func NoRow(r *Row) error { return job.Errorf(job.NotFound, "there is no %s %s", r.Kind, r.ID) }

// RowExists refuses an [Insert] or a [RequireNone] that found a row.
func RowExists(r *Row) error {
	return job.Errorf(job.Conflict, "%s %s is there already", r.Kind, r.ID)
}

// NotRetryable returns why a [Retry] of the job is refused; nil if it is not.
func NotRetryable(j *job.Job) error {
	switch {
	case !j.State.Ended() || !job.CanMove(j.State, job.Queued):
		return job.Errorf(job.NotRetryable, "the job is %s: only a failed, cancelled or expired job can be retried", j.State)
	case j.Failure != nil && j.Failure.Code == DamagedJob:
		return job.Errorf(job.NotRetryable, "the job's record was damaged, and with it what a retry would need: submit it anew")
	}
	return nil
}

// KeyUse is a stored idempotency key.
type KeyUse struct {
	Hash [32]byte
	Keep time.Time // the end of the time for which the key is kept
	Job  *job.Job  // nil when it was removed
	// Hidden is true for a running job that was deleted.
	Hidden bool
}

// AnswerKey answers a submit whose idempotency key was used before: it sets Existing or Err.
// It returns false, and sets neither, when the key is free again: its job was removed and its
// time has passed. The store then forgets the key.
func (op *Submit) AnswerKey(use *KeyUse, now time.Time) bool {
	removed := use.Job == nil
	switch {
	case removed && !use.Keep.After(now):
		return false
	case use.Hash != op.Idempotency.Hash:
		op.Err = KeyReused()
	case removed || use.Hidden:
		op.Err = job.Errorf(job.NotFound, "the job that this idempotency key made has been deleted")
	default:
		op.Existing = use.Job
	}
	return true
}

// OwnerFull refuses to keep more bytes of an owner; see [Batch.MaxKept].
func OwnerFull(bound int64) *job.Error {
	return job.Errorf(job.OwnerFull, "this user's conversations and deleted jobs take as much as one user may store (%d bytes): delete conversations", bound)
}

// KeepDeletes is how long a second [Delete] of the same job applies again.
const KeepDeletes = 24 * time.Hour
