package telemetry

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Reads lets scrapes read what may be slow or away, such as a database. A scrape waits for a read
// only for a moment, and has the last answer otherwise.
type Reads struct {
	// set once
	ctx    context.Context
	cancel context.CancelFunc
	away   func() bool // then no read begins

	mu sync.Mutex
	// guarded by mu
	closed  bool
	running sync.WaitGroup // begins under mu
}

// NewReads returns Reads without a read. away reports that nothing would answer.
func NewReads(away func() bool) *Reads {
	r := &Reads{away: away}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Close ends the reads under way and waits for them. No read begins after it.
func (r *Reads) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.running.Wait()
}

// run calls read in a goroutine, unless nothing would answer.
func (r *Reads) run(read func(context.Context)) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.away() {
		return false
	}
	r.running.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, readTimeout)
		defer cancel()
		read(ctx)
	})
	return true
}

const (
	readPatience = 500 * time.Millisecond // how long a scrape waits for a read
	readTimeout  = 5 * time.Second        // of one read
	readKept     = time.Minute            // how long an answer is shown while no other comes
)

// errNoAnswer means that a read has not been answered for readKept.
var errNoAnswer = errors.New("the database does not answer")

// Latest returns a function that returns the last answer of read. A call reads again when the last
// read began at least interval ago and none is under way.
func Latest[T any](r *Reads, interval time.Duration, read func(context.Context) (T, error)) func(context.Context) (T, error) {
	return (&latest[T]{reads: r, interval: interval, read: read}).get
}

type latest[T any] struct {
	// set once
	reads    *Reads
	interval time.Duration
	read     func(context.Context) (T, error)

	mu sync.Mutex
	// guarded by mu
	began    time.Time     // when the last read began
	pending  chan struct{} // closed at the end of the read under way; nil for none
	value    T             // the last answer
	answered time.Time     // when value came
}

func (l *latest[T]) get(ctx context.Context) (T, error) {
	if pending := l.start(); pending != nil {
		patience := time.NewTimer(readPatience)
		defer patience.Stop()
		select {
		case <-pending:
		case <-patience.C:
		case <-ctx.Done():
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.answered.IsZero() || time.Since(l.answered) > readKept {
		var none T
		return none, errNoAnswer
	}
	return l.value, nil
}

// start starts a read if it is time for one. It returns the channel of the read under way, or nil
// if the caller should not wait.
func (l *latest[T]) start() chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.pending != nil && time.Since(l.began) >= readPatience:
		return nil // an earlier scrape has waited long enough
	case l.pending != nil:
		return l.pending
	case !l.began.IsZero() && time.Since(l.began) < l.interval:
		return nil
	}
	ended := make(chan struct{})
	if l.reads.run(func(ctx context.Context) { l.ask(ctx, ended) }) {
		l.began, l.pending = time.Now(), ended
	}
	return l.pending
}

func (l *latest[T]) ask(ctx context.Context, ended chan struct{}) {
	defer close(ended)
	value, err := l.read(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending = nil; err == nil {
		l.value, l.answered = value, time.Now()
	}
}
