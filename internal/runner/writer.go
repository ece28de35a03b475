package runner

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// When output is appended: the first piece at once; later pieces after flushEvery, or as soon as
// flushSize bytes are collected. Progress is appended at most once in progressEvery, because it
// costs an entry: together with other output if possible, else alone.
const (
	flushEvery    = 25 * time.Millisecond
	flushSize     = 1 << 10
	progressEvery = 250 * time.Millisecond
)

// outputWriter collects the output of an attempt and appends it to the log. The executor's
// goroutine collects; another goroutine appends, from the first output until the attempt is
// over.
type outputWriter struct {
	// set once
	wake  chan struct{} // there may be a chunk to append; never closed
	space chan struct{} // an append has ended; never closed
	stop  chan struct{} // closed by stopWriter
	done  chan struct{} // closed when the goroutine is gone

	// guarded by the attempt's mu
	packer         packer
	inFlight       int       // size of the chunk that is being appended
	lastChunkAt    time.Time // when the last chunk was taken
	lastProgressAt time.Time // when the last chunk with progress was taken
	failed         bool      // a chunk was not stored, so none may follow
}

// writerLocked returns the attempt's writer and starts it on the first call.
func (a *attempt) writerLocked() *outputWriter {
	if a.writer == nil {
		j := &a.claimed.Job
		a.writer = &outputWriter{
			wake:   make(chan struct{}, 1),
			space:  make(chan struct{}, 1),
			stop:   make(chan struct{}),
			done:   make(chan struct{}),
			packer: packer{attempt: j.Attempt, seq: j.Cursor, remaining: outputLimit(j)},
		}
		go a.runWriter(a.writer)
	}
	return a.writer
}

// outputLimit returns how many bytes an attempt that starts now may write.
func outputLimit(j *job.Job) int {
	return int(min(job.MaxOutput, job.MaxJobOutput-j.OutputBytes))
}

// unsaved returns the size of the output that is not on disk.
func (w *outputWriter) unsaved() int { return w.packer.bufferedSize() + w.inFlight }

// urgency is how soon the collected output must be appended.
type urgency int

const (
	never    urgency = iota // there is nothing to append
	whenIdle                // progress, which waits for other output
	soon                    // output
	atOnce                  // a full chunk
)

func (w *outputWriter) urgency() urgency {
	switch p := &w.packer; {
	case w.failed:
		return never
	case p.bytes >= flushSize:
		return atOnce
	// The first progress of an attempt is as urgent as output: it shows that work has begun.
	case len(p.entries) > 0, w.lastProgressAt.IsZero() && p.progressChanged():
		return soon
	case p.progressChanged():
		return whenIdle
	}
	return never
}

// nextChunk returns the chunk to append at the time at. If the chunk has no entries, call
// nextChunk again after wait, or on the next wake-up if wait is 0.
func (w *outputWriter) nextChunk(at time.Time) (c chunk, wait time.Duration) {
	switch w.urgency() {
	case never:
		return chunk{}, 0
	case whenIdle:
		wait = w.lastChunkAt.Add(progressEvery).Sub(at)
	case soon:
		wait = w.lastChunkAt.Add(flushEvery).Sub(at)
	case atOnce:
	}
	if wait > 0 {
		return chunk{}, wait
	}
	c = w.packer.take(w.packer.progressChanged() && at.Sub(w.lastProgressAt) >= progressEvery)
	w.lastChunkAt, w.inFlight = at, c.size
	if c.progress != nil {
		w.lastProgressAt = at
	}
	return c, 0
}

// runWriter appends one chunk at a time until the attempt is over. The last chunk is not
// appended but stored with the outcome.
func (a *attempt) runWriter(w *outputWriter) {
	defer close(w.done)
	timer := time.NewTimer(flushEvery)
	defer timer.Stop()
	for {
		var due <-chan time.Time
		c, wait := a.nextChunk(w)
		if len(c.entries) > 0 {
			a.appendChunk(w, c)
			continue
		}
		if wait > 0 {
			timer.Reset(wait)
			due = timer.C
		}
		select {
		case <-w.wake:
		case <-due:
		case <-w.stop:
			return
		}
	}
}

func (a *attempt) nextChunk(w *outputWriter) (c chunk, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// The rest is stored with the outcome.
	if a.finishing {
		return chunk{}, 0
	}
	return w.nextChunk(time.Now())
}

// appendChunk stores a chunk. If that fails for good, the attempt ends, because later output
// would leave a gap in the log.
func (a *attempt) appendChunk(w *outputWriter, c chunk) {
	write := func(ctx context.Context) error {
		return a.r.cfg.Source.Append(ctx, a.claimed.Lease(), c.entries, c.progress)
	}
	err := a.retry(write(a.r.writeCtx), write)
	if job.CodeOf(err) == job.LeaseLost {
		a.onLeaseLost()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	w.inFlight = 0
	notify(w.space)
	if err == nil {
		return
	}
	// A failed write is final here: a refusal, a lost lease, or a shutdown that gave up.
	w.failed = true
	if isRefusal(err) {
		a.r.cfg.Log.Error("output was refused", "job", a.claimed.Job.ID, "err", err)
		a.stopLocked(err, refusedOutput(err), a.graceLocked())
	}
}

// stopWriter waits until the writer's goroutine has ended. The attempt is finishing, so no more
// output is collected.
func (a *attempt) stopWriter() {
	a.mu.Lock()
	w := a.writer
	a.mu.Unlock()
	if w != nil {
		close(w.stop)
		<-w.done
	}
}

// remainingOutputLocked returns the collected output that was not appended.
func (a *attempt) remainingOutputLocked() ([]job.Entry, *job.Progress) {
	w := a.writer
	if w == nil || w.failed {
		return nil, nil
	}
	w.packer.flushPartial()
	c := w.packer.take(true)
	return c.entries, c.progress
}
