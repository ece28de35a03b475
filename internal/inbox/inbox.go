// Package inbox makes jobs of the rows of the table inbox, which other programs insert in
// transactions of their own.
//
// Any number of processes may run an [Inbox] on one database. A batch of rows of one queue is
// taken in a transaction that locks the queue's part of the inbox and the rows: it submits them
// as any other submits, and deletes them. A process that dies in between has made jobs and
// deleted no row. The next one submits the rows again, under the same ids and idempotency keys,
// and the store answers with the jobs that exist.
package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// DB is the database: a pool of connections.
type DB interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Config configures an [Inbox].
type Config struct {
	DB     DB
	Queues []string // those of this process; rows of others are left to other processes
	// Request checks a row as a submit over HTTP is checked, and converts it.
	Request func(Row) (engine.Request, error)
	// Submit stores jobs; see [engine.Engine.SubmitMany].
	Submit func(context.Context, []engine.Request) ([]engine.SubmitResult, error)
	// MaxBody is the largest body of a row of a queue, in bytes. Larger ones are not read.
	MaxBody func(queue string) int64
	Log     *slog.Logger
	// AfterSubmit is called between the submit of a batch and the delete of its rows. An error
	// ends the batch, as the end of the process does. Nil, except in tests.
	AfterSubmit func() error
}

const (
	pollInterval  = 250 * time.Millisecond
	eagerInterval = 10 * time.Millisecond // for eagerTime after Wake
	eagerTime     = time.Second
	// retryInterval is how long a queue, or a key of a queue, waits after a refusal by a limit.
	retryInterval  = time.Second
	upkeepInterval = time.Minute
	// batchTimeout bounds a batch: a commit of the store may take long.
	batchTimeout = 30 * time.Second
)

// Inbox makes jobs of rows.
type Inbox struct {
	// set once
	config Config
	wake   chan struct{} // has a value after Wake

	refused atomic.Int64 // rows, since the start

	// owned by Run
	held    held
	upkept  time.Time // the last upkeep
	failing bool      // the last round failed

	mu     sync.Mutex
	schema string // of the table; guarded by mu; "" until it is known
}

// New returns an Inbox.
func New(c Config) *Inbox {
	return &Inbox{config: c, wake: make(chan struct{}, 1), held: newHeld()}
}

// Wake makes the inbox look for new rows at once and, for a second, every few milliseconds: the
// transaction of the caller has inserted a row, and will be committed soon.
func (x *Inbox) Wake() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// Run makes jobs of rows until ctx ends.
func (x *Inbox) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var eagerUntil time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-x.wake:
			eagerUntil = time.Now().Add(eagerTime)
		case <-timer.C:
		}
		more, err := x.round(ctx)
		x.report(ctx, err)
		switch {
		case more:
			timer.Reset(0)
		case err != nil:
			timer.Reset(retryInterval)
		case time.Now().Before(eagerUntil):
			timer.Reset(eagerInterval)
		default:
			timer.Reset(pollInterval)
		}
	}
}

// report logs the first of several failures, and that they are over.
func (x *Inbox) report(ctx context.Context, err error) {
	switch failing := err != nil; {
	case ctx.Err() != nil || failing == x.failing:
		return
	case failing:
		x.config.Log.Error("the inbox cannot be read: its rows wait", "error", err)
	default:
		x.config.Log.Info("the inbox can be read again")
	}
	x.failing = err != nil
}

// round takes a batch of each queue that has rows. more means that some queue may have further
// rows that could be taken now.
func (x *Inbox) round(ctx context.Context) (more bool, err error) {
	queues, err := x.pending(ctx)
	if err != nil {
		return false, err
	}
	var errs []error
	for _, queue := range queues {
		again, err := x.take(ctx, queue)
		if err != nil {
			x.held.queue(queue)
			errs = append(errs, fmt.Errorf("the queue %s: %w", job.Quote(queue), err))
		}
		more = more || again
	}
	if time.Since(x.upkept) >= upkeepInterval {
		x.upkept = time.Now()
		errs = append(errs, x.upkeep(ctx))
	}
	return more, errors.Join(errs...)
}

// pending lists the queues that have rows and are not held.
func (x *Inbox) pending(ctx context.Context) ([]string, error) {
	rows, err := x.config.DB.Query(ctx, "select name from unnest($1::text[]) q (name) where exists (select from inbox where queue = name)",
		x.held.free(x.config.Queues))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// take makes jobs of the first rows of a queue. more means that the queue may have further rows.
func (x *Inbox) take(ctx context.Context, queue string) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	var b *batch
	err = pgx.BeginFunc(ctx, x.config.DB, func(tx pgx.Tx) (err error) {
		b, err = x.lock(ctx, tx, queue)
		if err != nil || len(b.rows) == 0 {
			return err
		}
		if err := x.submit(ctx, b); err != nil {
			return err
		}
		return b.finish(ctx, tx)
	})
	if err != nil {
		return false, err
	}
	for i := range b.rows {
		if r := &b.rows[i]; r.refusal != nil {
			x.refused.Add(1)
			x.config.Log.Warn("a row of the inbox is no job", "id", r.ID, "queue", r.Queue, "code", job.CodeOf(r.refusal), "reason", sentence(r.refusal))
		}
	}
	return len(b.rows) > 0, nil
}

// submit makes jobs of the rows of a batch, and sets the outcome of each.
func (x *Inbox) submit(ctx context.Context, b *batch) error {
	var requests []engine.Request
	var of []*row
	for i := range b.rows {
		if r := &b.rows[i]; r.refusal == nil {
			request, err := r.request(x.config.Request)
			if err != nil {
				x.settle(r, nil, err)
				continue
			}
			requests, of = append(requests, request), append(of, r)
		}
	}
	if len(requests) == 0 {
		return nil
	}
	results, err := x.config.Submit(ctx, requests)
	if err != nil {
		return err
	}
	for i := range results {
		x.settle(of[i], &results[i].Job, results[i].Err)
	}
	if x.config.AfterSubmit != nil {
		return x.config.AfterSubmit()
	}
	return nil
}

// settle sets the outcome of a row: a job, a refusal, or that it waits.
func (x *Inbox) settle(r *row, j *job.Job, err error) {
	switch code := job.CodeOf(err); code {
	case "":
		if j.ID != r.id {
			r.existing = j.ID
			r.refusal = job.Errorf(existing, "the job %s was made with this idempotency key before", j.ID)
		}
	case job.QueueFull, job.Overloaded, job.NoSpace, job.ShuttingDown, job.Unavailable, job.UnknownQueue:
		x.held.queue(r.Queue)
		r.waits = true
	case job.KeyFull, job.OwnerFull, job.Internal:
		x.held.lane(r)
		r.waits = true
		if code == job.Internal {
			x.config.Log.Error("a row of the inbox failed to be stored: it is tried again", "id", r.ID, "error", err)
		}
	case job.NotFound:
		// The job of the row was made by a process that died before it deleted the row, and has
		// been deleted since. With a key of the program's own it may be another row's job.
		if r.Idempotency != nil {
			r.refusal = err
		}
	default:
		r.refusal = err
	}
}

// existing is the code of a row whose idempotency key had a job already.
const existing job.Code = "existing"
