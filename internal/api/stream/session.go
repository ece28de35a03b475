package stream

import (
	"context"
	"errors"
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// Session is a socket on which a client follows many jobs. The goroutine that reads the
// socket calls its methods, one after another; each followed job has a goroutine of its
// own. Leaving ends them all, and nothing of the jobs.
type Session struct {
	*Socket
	rules SessionConfig // set once

	mu       sync.Mutex
	followed map[job.ID]*followed // guarded by mu
}

// SessionRules are those of an API's sockets.
type SessionConfig struct {
	MaxJobs int   // jobs that one socket follows
	ErrFull error // the refusal of one more
	// Cut is the message that says why a job is not followed any more, where that is not
	// its end.
	AbortMessage func(id job.ID, err error) []byte
}

// followed is a job that a session follows.
type followed struct {
	// set once
	id   job.ID
	feed *Feed
	stop context.CancelFunc
	gone chan struct{} // closed by its goroutine, which sends nothing more

	over bool // the feed is closed; guarded by the session's mu
}

// NewSession makes the session of a socket.
func NewSession(s *Socket, rules SessionConfig) *Session {
	return &Session{Socket: s, rules: rules, followed: map[job.ID]*followed{}}
}

// Follow sends a job's events until its end. It opens the feed itself, and waits for
// the first update: so a client gets as many reads of the store as it takes answers. open
// checks that update; its context ends with the following. A job that is followed already
// is not followed twice: see [Session.Unfollow].
func (s *Session) Follow(id job.ID, events EventSink, open func(ctx context.Context) (*Feed, watch.Update, error)) error {
	if err := s.CheckCapacity(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(s.Context())
	feed, first, err := open(ctx)
	if err != nil {
		stop()
		return err
	}
	f := &followed{id: id, feed: feed, stop: stop, gone: make(chan struct{})}
	feed.events = events
	feed.last = func(send func() error) error {
		return s.last(f, func() error {
			if ctx.Err() != nil { // the client has let go of the job, and awaits no more of it
				return ErrClientGone
			}
			return send()
		})
	}
	s.mu.Lock()
	s.followed[id] = f
	s.mu.Unlock()
	s.Go(func() {
		defer close(f.gone)
		defer stop()
		s.end(ctx, f, feed.run(ctx, first))
	})
	return nil
}

// Room refuses one job too many.
func (s *Session) CheckCapacity() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.followed) >= s.rules.MaxJobs {
		return s.rules.ErrFull
	}
	return nil
}

// Follows says whether a job is followed.
func (s *Session) IsFollowing(id job.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.followed[id] != nil
}

// SendBeforeEnd sends a message while a job is followed, before the last of its events;
// false, and nothing is sent, when it is not followed.
func (s *Session) SendBeforeEnd(id job.ID, message []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.followed[id] == nil {
		return false
	}
	s.Send(message)
	return true
}

// Unfollow lets go of a job, if it is followed, and returns when nothing more is sent
// of it.
func (s *Session) Unfollow(id job.ID) {
	s.mu.Lock()
	f := s.followed[id]
	s.mu.Unlock()
	if f != nil {
		f.stop()
		<-f.gone
	}
}

// last lets go of a job and sends the last of it, in one step: a client that has it may
// follow another job in its place, and whoever finds the job here hears its end first.
func (s *Session) last(f *followed, send func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !f.over {
		f.over = true
		f.feed.Close()
		delete(s.followed, f.id)
	}
	return send()
}

// end lets go of a job, and says why it is not followed any more where that is not its
// end.
func (s *Session) end(ctx context.Context, f *followed, err error) {
	_ = s.last(f, func() error {
		if err != nil && !errors.Is(err, ErrClientGone) && ctx.Err() == nil {
			s.Send(s.rules.AbortMessage(f.id, err))
		}
		return nil
	})
}
