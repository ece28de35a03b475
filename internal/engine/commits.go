package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// maxCommitTime is how long a commit, or a read of the sweep, may take. If one takes longer, the
// disk or the whole machine was stalled.
const maxCommitTime = time.Second

// slowCheckInterval is how often waiting work is refused while a commit is slow.
const slowCheckInterval = maxCommitTime / 4

// commits are the commits in progress: handed to the store and not yet on disk.
type commits struct {
	// Set once.
	onSlow func() // called every slowCheckInterval while the oldest commit is slow
	epoch  time.Time

	oldest atomic.Int64 // when the oldest began, in ns since epoch; 0 while none is in progress

	mu sync.Mutex
	// Guarded by mu.
	began []time.Time // oldest first
	timer *time.Timer // calls check; nil before the first commit
	armed bool        // the timer is running
}

func newCommits(onSlow func()) *commits {
	return &commits{onSlow: onSlow, epoch: time.Now().Add(-time.Nanosecond)}
}

// begin adds a commit that began at the given time.
func (c *commits) begin(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began = append(c.began, at)
	c.updateOldestLocked()
	if c.armed { // one timer serves all commits: begin is on the path of every batch
		return
	}
	c.armed = true
	if c.timer == nil {
		c.timer = time.AfterFunc(maxCommitTime, c.check)
		return
	}
	c.timer.Reset(maxCommitTime)
}

// end removes the oldest commit.
func (c *commits) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began = append(c.began[:0], c.began[1:]...)
	c.updateOldestLocked()
}

func (c *commits) updateOldestLocked() {
	if len(c.began) == 0 {
		c.oldest.Store(0)
		return
	}
	c.oldest.Store(int64(c.began[0].Sub(c.epoch)))
}

// slow reports whether the oldest commit in progress is slow.
func (c *commits) slow() bool {
	oldest := c.oldest.Load()
	return oldest > 0 && time.Since(c.epoch)-time.Duration(oldest) >= maxCommitTime
}

// check refuses waiting work if the oldest commit is slow. The timer calls it.
func (c *commits) check() {
	if c.slow() {
		c.onSlow()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.armed = len(c.began) > 0; c.armed {
		c.timer.Reset(max(slowCheckInterval, time.Until(c.began[0].Add(maxCommitTime))))
	}
}

// refuseWaiting refuses the new work that waits for the loop while a commit is slow. None of it
// was handed to the store. Other ops wait for their outcome without a limit, because until then
// it is unknown whether they are stored.
func (e *Engine) refuseWaiting() {
	for _, p := range e.lanes.removeNewData() {
		p.err = unwritable(nil)
		e.releaseSubmits(p.submits, p.consumers)
		p.answer()
	}
}

// removeNewData removes and returns the ops that only add data; see addsNewData.
func (l *lanes) removeNewData() (ops []*pendingOp) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for lane := range l.waiting {
		kept := l.waiting[lane][:0]
		for _, p := range l.waiting[lane] {
			if !p.addsNewData() {
				kept = append(kept, p)
				continue
			}
			ops = append(ops, p)
			l.subtractLocked(p)
		}
		clear(l.waiting[lane][len(kept):])
		l.waiting[lane] = kept
	}
	return ops
}

// addsNewData reports whether an op only adds data, so that it can be refused while the disk is
// slow.
func (p *pendingOp) addsNewData() bool {
	switch p.op.(type) {
	case *store.Write, *store.Retry:
		return true
	}
	return p.submits != nil
}
