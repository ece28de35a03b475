package stream

import (
	"context"
	"errors"
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// Session is a socket on which a client follows many jobs. The goroutine that reads the
// socket calls the session's methods, one at a time. Each followed job has a goroutine of
// its own. When the client leaves, all of these end; the jobs go on.
type Session struct {
	*Socket
	config SessionConfig // set once

	mu       sync.Mutex
	followed map[job.ID]*followed // guarded by mu
}

// SessionConfig configures the sessions of one API.
type SessionConfig struct {
	MaxJobs int   // how many jobs one session follows at a time
	ErrFull error // the error of a further job
	// AbortMessage encodes the message that tells the client why the session stopped
	// following a job that has not ended.
	AbortMessage func(id job.ID, err error) []byte
}

// followed is a job that a session follows.
type followed struct {
	// set once
	id   job.ID
	feed *Feed
	stop context.CancelFunc
	done chan struct{} // closed by the job's goroutine when it sends nothing more

	closed bool // the feed; guarded by the session's mu
}

// NewSession returns the session of a socket.
func NewSession(s *Socket, config SessionConfig) *Session {
	return &Session{Socket: s, config: config, followed: map[job.ID]*followed{}}
}

// Follow sends a job's events until its end. open opens the feed and checks its first
// update; the session cancels open's context when it stops following the job. Follow waits
// for open, so that a client cannot cause reads of the store faster than it reads its
// messages. The caller must not follow a job twice: it calls [Session.Unfollow] before.
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
	f := &followed{id: id, feed: feed, stop: stop, done: make(chan struct{})}
	feed.events = events
	feed.last = func(send func() error) error {
		return s.remove(f, func() error {
			// The client has unfollowed the job and expects no more of its events.
			if ctx.Err() != nil {
				return ErrClientGone
			}
			return send()
		})
	}
	s.mu.Lock()
	s.followed[id] = f
	s.mu.Unlock()
	s.Go(func() {
		defer close(f.done)
		defer stop()
		s.endFollow(ctx, f, feed.run(ctx, first))
	})
	return nil
}

// CheckCapacity returns [SessionConfig.ErrFull] where the session follows MaxJobs jobs.
func (s *Session) CheckCapacity() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.followed) >= s.config.MaxJobs {
		return s.config.ErrFull
	}
	return nil
}

// IsFollowing reports whether the session follows a job.
func (s *Session) IsFollowing(id job.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.followed[id] != nil
}

// SendBeforeEnd sends a message before the last event of a job that the session follows.
// Where it does not follow the job, it sends nothing and returns false.
func (s *Session) SendBeforeEnd(id job.ID, message []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.followed[id] == nil {
		return false
	}
	s.Send(message)
	return true
}

// Unfollow stops following a job. It returns when no more of the job's events will be sent.
// Where the session does not follow the job, it does nothing.
func (s *Session) Unfollow(id job.ID) {
	s.mu.Lock()
	f := s.followed[id]
	s.mu.Unlock()
	if f != nil {
		f.stop()
		<-f.done
	}
}

// remove stops following a job and sends its last message, in one step under the lock. So
// a client that has the last message may follow another job at once, and SendBeforeEnd
// sends before the last message or not at all.
func (s *Session) remove(f *followed, send func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !f.closed {
		f.closed = true
		f.feed.Close()
		delete(s.followed, f.id)
	}
	return send()
}

// endFollow stops following a job whose feed ended with err. It tells the client why, where
// the job has not ended and the client has not unfollowed it.
func (s *Session) endFollow(ctx context.Context, f *followed, err error) {
	_ = s.remove(f, func() error {
		if err != nil && !errors.Is(err, ErrClientGone) && ctx.Err() == nil {
			s.Send(s.config.AbortMessage(f.id, err))
		}
		return nil
	})
}
