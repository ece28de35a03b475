// Package meanwhiletest runs a server of package meanwhile in a test.
//
//	s := meanwhiletest.New(t)
//	thumbs := meanwhile.Handle(s, "thumbnails", makeThumbnail)
//	job, err := thumbs.Submit(t.Context(), Picture{ID: 7})
//	…
//	meanwhiletest.RunUntilIdle(t, s)
//	thumb, err := thumbs.Result(t.Context(), job.ID)
//
// The server is the real one, with its data on disk. It retries without a backoff, and it
// needs no network, so it also works in a bubble of testing/synctest. There every wait is
// over at once: a delay of an hour, a timeout, a RetryAfter.
package meanwhiletest

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile"
	"github.com/meanwhile-run/meanwhile/client"
	"github.com/meanwhile-run/meanwhile/internal/testmode"
)

// New opens a server for a test. Its data is in a temporary directory of the test. Its
// warnings and errors are in the log of the test. Each of set may change its configuration.
// Add queues to it before the first call or request: that runs the server, so do not call
// Run. The server stops before the test ends. If the test has failed by then, its log lists
// the jobs of the user "local" that did not succeed, with their errors.
//
// A queue retries without a backoff, whatever the option Backoff of the queue. A job's own
// Backoff and RetryAfter still count.
func New(t testing.TB, set ...func(*meanwhile.Config)) *meanwhile.Server {
	t.Helper()
	c := meanwhile.Config{
		Data:   t.TempDir(),
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, f := range set {
		f(&c)
	}
	ctx, stop := context.WithCancel(context.Background())
	var began atomic.Bool
	var running sync.WaitGroup
	mode := &testmode.Mode{Run: func(run func(context.Context) error) {
		began.Store(true)
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("the server stopped: %v", err)
			}
		})
	}}
	s, err := meanwhile.Open(testmode.With(t.Context(), mode), c)
	if err != nil {
		stop()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && began.Load() {
			logUnsuccessful(t, s)
		}
		stop()
		running.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// The pauses between two looks of [RunUntilIdle]. They grow, because in a bubble of
// testing/synctest a job of an hour would be looked at a million times.
const (
	minPause = time.Millisecond
	maxPause = 50 * time.Millisecond
)

// RunUntilIdle returns when no job runs and no job is ready to run, of any user. Jobs that
// other jobs submit are run too. Jobs that wait for a time, and those of a paused queue, stay
// where they are.
func RunUntilIdle(t testing.TB, s *meanwhile.Server) {
	t.Helper()
	for pause := minPause; ; pause = min(pause*3/2, maxPause) {
		queues, err := s.Queues(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if idle(queues) {
			return
		}
		select {
		case <-time.After(pause):
		case <-t.Context().Done():
			t.Fatal(context.Cause(t.Context()))
		}
	}
}

func idle(queues []client.Queue) bool {
	for _, q := range queues {
		if q.Counts.Running > 0 || !q.Paused && q.Counts.Queued+q.Counts.Parked > 0 {
			return false
		}
	}
	return true
}

// maxLogged is how many jobs the log of a failed test lists.
const maxLogged = 20

func logUnsuccessful(t testing.TB, s *meanwhile.Server) {
	t.Helper()
	logged := 0
	for j, err := range s.List(context.Background(), client.ListOptions{}) {
		switch {
		case err != nil:
			t.Logf("the jobs cannot be listed: %v", err)
			return
		case j.Status == meanwhile.Succeeded:
			continue
		case logged == maxLogged:
			t.Log("… and older jobs")
			return
		}
		logged++
		logJob(t, &j)
	}
}

func logJob(t testing.TB, j *meanwhile.Job) {
	t.Helper()
	what := "queue " + j.Queue
	if kind := j.Metadata[meanwhile.KindMetadata]; kind != "" {
		what += ", kind " + kind
	}
	if j.Error == nil {
		t.Logf("%s (%s) is %s", j.ID, what, j.Status)
		return
	}
	t.Logf("%s (%s) is %s; attempt %d of %d failed: %s: %s",
		j.ID, what, j.Status, j.Error.Attempt, j.MaxAttempts, j.Error.Code, j.Error.Message)
}
