package runner

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// When gathered output is appended: the first at once, then what came in
// flushEvery, or sooner when it is flushAt bytes. Progress costs as much again as
// what it goes with: it is told every reportEvery at most, together with what is
// appended anyway, and alone when nothing was for as long.
const (
	flushEvery  = 25 * time.Millisecond
	flushAt     = 1 << 10
	reportEvery = 250 * time.Millisecond
)

// speech is what an attempt says: gathered by its executor, appended by its
// writer, a goroutine that lives from the first piece until the attempt is over.
type speech struct {
	// set once
	wake    chan struct{} // there may be a chunk to append; never closed
	room    chan struct{} // a chunk was appended; never closed
	over    chan struct{} // closed by hush
	written chan struct{} // closed by the writer when it is gone

	// guarded by the attempt's mu
	packer  packer
	writing int       // the size of the chunk that is being appended
	tookAt  time.Time // when the last chunk was taken
	toldAt  time.Time // when the last chunk with progress was
	mute    bool      // a chunk was not stored: nothing may follow it
}

// speechLocked is the attempt's speech, begun when there is none.
func (a *attempt) speechLocked() *speech {
	if a.speech == nil {
		j := &a.claimed.Job
		a.speech = &speech{
			wake:    make(chan struct{}, 1),
			room:    make(chan struct{}, 1),
			over:    make(chan struct{}),
			written: make(chan struct{}),
			packer:  packer{attempt: j.Attempt, seq: j.Cursor, room: roomFor(j)},
		}
		go a.write(a.speech)
	}
	return a.speech
}

// roomFor is how many bytes an attempt may say that begins now.
func roomFor(j *job.Job) int {
	return int(min(job.MaxOutput, job.MaxJobOutput-j.OutputBytes))
}

// held is what was said and is not on disk.
func (s *speech) held() int { return s.packer.size() + s.writing }

// urgency is how soon what is gathered is to be appended.
type urgency int

const (
	never    urgency = iota // there is nothing to append
	whenIdle                // progress, which goes with something else if it can
	soon                    // output
	atOnce                  // as much as a chunk is to have
)

func (s *speech) urgency() urgency {
	switch p := &s.packer; {
	case s.mute:
		return never
	case p.bytes >= flushAt:
		return atOnce
	case len(p.entries) > 0, s.toldAt.IsZero() && p.news():
		return soon
	case p.news():
		return whenIdle
	}
	return never
}

// take is the chunk to append at that moment; without entries, how long until there
// is one, and 0 while nothing is to be appended.
func (s *speech) take(at time.Time) (c chunk, wait time.Duration) {
	switch s.urgency() {
	case never:
		return chunk{}, 0
	case whenIdle:
		wait = s.tookAt.Add(reportEvery).Sub(at)
	case soon:
		wait = s.tookAt.Add(flushEvery).Sub(at)
	case atOnce:
	}
	if wait > 0 {
		return chunk{}, wait
	}
	c = s.packer.take(s.packer.news() && at.Sub(s.toldAt) >= reportEvery)
	s.tookAt, s.writing = at, c.size
	if c.progress != nil {
		s.toldAt = at
	}
	return c, 0
}

// write appends what is gathered, one chunk at a time, until the attempt is over.
// The last chunk is left for the end.
func (a *attempt) write(s *speech) {
	defer close(s.written)
	timer := time.NewTimer(flushEvery)
	defer timer.Stop()
	for {
		var due <-chan time.Time
		c, wait := a.takeChunk(s)
		if len(c.entries) > 0 {
			a.append(s, c)
			continue
		}
		if wait > 0 {
			timer.Reset(wait)
			due = timer.C
		}
		select {
		case <-s.wake:
		case <-due:
		case <-s.over:
			return
		}
	}
}

func (a *attempt) takeChunk(s *speech) (c chunk, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seized {
		return chunk{}, 0
	}
	return s.take(time.Now())
}

// append stores a chunk. What follows a chunk that could not be stored has no
// place in the log, so the attempt ends there.
func (a *attempt) append(s *speech, c chunk) {
	write := func(ctx context.Context) error {
		return a.r.cfg.Source.Append(ctx, a.claimed.Lease(), c.entries, c.progress)
	}
	err := a.insist(write(a.r.base), write)
	if job.CodeOf(err) == job.LeaseLost {
		a.lost()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.writing = 0
	notify(s.room)
	if err == nil {
		return
	}
	s.mute = true
	if refused(err) {
		a.r.cfg.Log.Error("output was refused", "job", a.claimed.Job.ID, "err", err)
		a.haltLocked(err, refusedOutput(err), a.graceLocked())
	}
}

// hush waits until the writer is gone. The attempt is seized, so nothing more is
// gathered.
func (a *attempt) hush() {
	a.mu.Lock()
	s := a.speech
	a.mu.Unlock()
	if s != nil {
		close(s.over)
		<-s.written
	}
}

// completeLocked says of an attempt that has succeeded, and told how far it was,
// that it is all done.
func (a *attempt) completeLocked() {
	if a.speech != nil {
		a.speech.packer.complete()
	}
}

// lastWordsLocked are what is gathered and was not appended.
func (a *attempt) lastWordsLocked() ([]job.Entry, *job.Progress) {
	s := a.speech
	if s == nil || s.mute {
		return nil, nil
	}
	s.packer.end()
	c := s.packer.take(true)
	return c.entries, c.progress
}
