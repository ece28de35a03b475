package engine

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// Append stores output of a leased job and returns when it is on disk. It returns
// [job.LeaseLost] for a void lease, and [job.TooLarge] above the limit of an attempt's or a
// job's output.
func (e *Engine) Append(ctx context.Context, l job.Lease, entries []job.Entry, p *job.Progress) error {
	size := entriesSize(entries)
	if err := e.checkAppend(ctx, l, size); err != nil {
		return err
	}
	op := &store.Append{Lease: l, Entries: entries, Progress: p}
	if err := e.do(ctx, &pendingOp{lane: laneOutput, bytes: opBytes + int(size), op: op}); err != nil {
		return err
	}
	return op.Err
}

// checkAppend refuses an append with a lost lease, or above a limit. It reads a lease of this
// process without copying it: the copy of its job would double the stack of every running job.
func (e *Engine) checkAppend(ctx context.Context, l job.Lease, size int64) error {
	e.mu.Lock()
	if local := e.leases[l.Job]; local != nil && local.token == l.Token {
		defer e.mu.Unlock()
		return local.checkOutputLimit(size)
	}
	e.mu.Unlock()
	return e.checkAppendElsewhere(ctx, l, size)
}

// checkAppendElsewhere does the same as checkAppend for a lease that another process handed out.
//
//go:noinline
func (e *Engine) checkAppendElsewhere(ctx context.Context, l job.Lease, size int64) error {
	local, err := e.findLease(ctx, l)
	if err != nil {
		return err
	}
	return local.checkOutputLimit(size)
}

// appended sends committed output to watchers.
func (e *Engine) appended(op *store.Append) {
	if op.Err != nil {
		return
	}
	e.mu.Lock()
	if local := e.leases[op.Lease.Job]; local != nil && local.token == op.Lease.Token {
		local.recordOutput(op.Entries, op.Progress)
	}
	e.mu.Unlock()
	e.observer.OutputStored(entriesSize(op.Entries))
	e.hub.Publish(op.Lease.Job, watch.Event{Entries: op.Entries, Progress: op.Progress})
}

func entriesSize(entries []job.Entry) (size int64) {
	for i := range entries {
		size += int64(len(entries[i].Data))
	}
	return size
}
